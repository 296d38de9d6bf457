"""``beamlit status NAME``: all about one deployment or model, on one screen."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Condition, Model, ModelDeployment
from beamlit_operator.api.conditions import READY, STALLED, find
from beamlit_operator.api.model import PrefetchStatus
from beamlit_operator.api.modeldeployment import EffectiveAspect
from beamlit_operator.api.summary import counted, facts_line, size
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import FAILED, CommandError
from beamlit_operator.cli.explain import EFFECT_STYLES
from beamlit_operator.cli.listing import (
    READY_STYLES,
    deployments_table,
    phase_text,
    short_version,
)
from beamlit_operator.cli.screen import table_console, text_console
from beamlit_operator.kube import MODEL_DEPLOYMENTS, MODELS, ApiError, Json, KubeClient, Resource

PREFETCH_STYLES = {"Pending": "yellow", "Fetching": "yellow", "Done": "green", "Failed": "red"}


async def show_status(name: str, target: Target) -> int:
    """Prints the object's state; the exit status is 0 when it is ready."""
    console = text_console()
    async with connection(target) as client:
        found = await _get(client, MODEL_DEPLOYMENTS, name, namespace=target.workspace)
        if found is not None:
            deployment = ModelDeployment.model_validate(found)
            _print_deployment(console, deployment)
            return _verdict(deployment.status.conditions)
        found = await _get(client, MODELS, name, namespace=target.workspace)
        if found is None:
            raise CommandError(
                f"workspace {target.workspace} has no ModelDeployment and no Model named {name}"
            )
        model = Model.model_validate(found)
        deployments = [
            ModelDeployment.model_validate(d)
            for d in (await client.list(MODEL_DEPLOYMENTS, target.workspace)).items
        ]
    _print_model(console, model, [d for d in deployments if d.spec.model == name])
    return _verdict(model.status.conditions)


async def _get(client: KubeClient, resource: Resource, name: str, *, namespace: str) -> Json | None:
    try:
        return await client.get(resource, name, namespace)
    except ApiError as error:
        if error.not_found:
            return None
        raise


def _verdict(conditions: Iterable[Condition]) -> int:
    ready = find(conditions, READY)
    return 0 if ready is not None and ready.status == "True" else FAILED


def _print_deployment(console: Console, deployment: ModelDeployment) -> None:
    status, spec = deployment.status, deployment.spec
    console.print(
        Text(deployment.metadata.name, style="bold")
        .append(f": model {spec.model} in environment {spec.environment}, ", style="default")
        .append(phase_text(status.phase or "no status yet"))
    )
    if status.url:
        console.print(Text(f"endpoint  {status.url}"))
    if status.progress:
        since = status.progress.since.astimezone().strftime("%H:%M:%S")
        console.print(
            Text("start     ")
            .append(status.progress.phase, style="yellow")
            .append(f" since {since}: {status.progress.message}")
        )
    console.print(conditions_table(status.conditions))
    if status.revisions:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        for column in ("REVISION", "VERSION", "READY", "TRAFFIC"):
            table.add_column(column)
        for each in status.revisions:
            ready = f"{each.ready_replicas}/{each.replicas}"
            table.add_row(each.name, short_version(each.version), ready, f"{each.traffic} %")
        console.print(table)
    if status.effective_policy is not None:
        for title in ("location", "flavor"):
            aspect = getattr(status.effective_policy, title)
            if aspect is not None:
                print_aspect(console, title, aspect)


def _print_model(console: Console, model: Model, deployments: list[ModelDeployment]) -> None:
    console.print(
        Text(model.metadata.name, style="bold").append(
            f": model, {model.status.phase or 'no status yet'}", style="default"
        )
    )
    if origin := model.status.origin:
        # Of files in a claim nothing is known: the operator cannot see them.
        held = f", {counted(origin.files, 'file')}, {size(origin.bytes)}" if origin.files else ""
        console.print(Text(f"origin    {origin.uri} at {short_version(origin.revision)}{held}"))
    if suggested := model.status.suggested_runtime:
        console.print(Text(f"runtime   {suggested.type}: {suggested.because}"))
    if model.status.facts is not None and (line := facts_line(model.status.facts)):
        console.print(Text(f"model     {line}"))
    if (needed := model.status.gpu_memory_bytes) is not None:
        console.print(Text(f"needs     {size(needed)} of GPU memory at least"))
    if (prefetch := model.status.prefetch) is not None:
        console.print(prefetch_text(prefetch))
    console.print(conditions_table(model.status.conditions))
    if deployments:
        table_console().print(deployments_table(deployments))


def prefetch_text(prefetch: PrefetchStatus) -> Text:
    """How far the files are on their way into the cache."""
    told = f": {prefetch.message}" if prefetch.message else ""
    style = PREFETCH_STYLES[prefetch.phase]
    return Text("prefetch  ").append(prefetch.phase, style=style).append(told)


def conditions_table(conditions: Iterable[Condition]) -> Table:
    """One row per condition, with its message in full, once."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("CONDITION", "STATUS", "REASON"):
        table.add_column(column, no_wrap=True)
    table.add_column("MESSAGE", overflow="fold")
    above: Condition | None = None
    for each in conditions:
        style = READY_STYLES[each.status]
        if each.type == STALLED:
            style = "red"
        elif each.type != READY:
            style = "yellow"
        # What is Stalled is not Ready either, in the same words.
        known = each.message and each.message == (above.message if above else None)
        message = Text("as above", style="dim") if known else Text(each.message)
        table.add_row(each.type, Text(each.status, style=style), each.reason, message)
        above = each
    return table


def print_aspect(console: Console, title: str, aspect: EffectiveAspect) -> None:
    """What is allowed for one type of policy, and what became of each policy."""
    allowed = "anything" if aspect.allowed is None else ", ".join(aspect.allowed)
    console.print(Text(f"{title}: ").append(allowed, style="bold"))
    if not aspect.policies:
        return
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in aspect.policies:
        level = f"{row.level}, mandatory" if row.mandatory else row.level
        table.add_row(
            Text(row.effect, style=EFFECT_STYLES[row.effect]),
            Text(f"{row.name} ({level})"),
            Text(row.because),
        )
    console.print(table)
