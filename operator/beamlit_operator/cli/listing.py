"""``beamlit get models`` and ``beamlit get deployments``: what there is, one line each."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.screen import table_console
from beamlit_operator.kube import MODEL_DEPLOYMENTS, MODELS

VERSION_LENGTH = 12
"""Characters of a digest or commit that are shown, as many as git shows of a commit at most."""

READY_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}
PHASE_STYLES = {"Active": "green", "Idle": "cyan", "Pending": "yellow", "Failed": "red"}


async def show_models(target: Target, *, everywhere: bool) -> None:
    """Prints one row per Model, with a column per environment for the version that serves."""
    namespace = None if everywhere else target.workspace
    async with connection(target) as client:
        models = [Model.model_validate(m) for m in (await client.list(MODELS, namespace)).items]
        deployments = [
            ModelDeployment.model_validate(d)
            for d in (await client.list(MODEL_DEPLOYMENTS, namespace)).items
        ]
    if not models:
        print(_nothing("models", namespace))
        return
    table_console().print(models_table(models, deployments, everywhere=everywhere))


def models_table(
    models: Iterable[Model], deployments: Iterable[ModelDeployment], *, everywhere: bool = False
) -> Table:
    """One row per model; a cell per environment says version and phase."""
    running = {
        (d.metadata.namespace, d.spec.model, d.spec.environment): d
        for d in sorted(deployments, key=lambda d: d.metadata.name, reverse=True)
    }
    environments = sorted({key[2] for key in running})
    table = _table(everywhere)
    for column in ("MODEL", "PHASE", "ORIGIN", *(e.upper() for e in environments)):
        table.add_column(column)
    for model in sorted(models, key=lambda m: (m.metadata.namespace, m.metadata.name)):
        origin = model.status.origin
        cells = [
            Text(model.metadata.name),
            Text(model.status.phase or "-"),
            Text(origin.uri if origin else _ready_reason(model)),
        ]
        for environment in environments:
            key = (model.metadata.namespace, model.metadata.name, environment)
            cells.append(_cell(running.get(key)))
        table.add_row(*([Text(model.metadata.namespace)] if everywhere else []), *cells)
    return table


async def show_deployments(target: Target, *, everywhere: bool) -> None:
    """Prints one row per ModelDeployment."""
    namespace = None if everywhere else target.workspace
    async with connection(target) as client:
        deployments = [
            ModelDeployment.model_validate(d)
            for d in (await client.list(MODEL_DEPLOYMENTS, namespace)).items
        ]
    if not deployments:
        print(_nothing("deployments", namespace))
        return
    table_console().print(deployments_table(deployments, everywhere=everywhere))


def deployments_table(deployments: Iterable[ModelDeployment], *, everywhere: bool = False) -> Table:
    """One row per deployment: state, replicas and endpoint."""
    table = _table(everywhere)
    for column in ("NAME", "MODEL", "ENVIRONMENT", "READY", "PHASE", "REPLICAS"):
        table.add_column(column, no_wrap=True)
    table.add_column("URL", no_wrap=True)
    for each in sorted(deployments, key=lambda d: (d.metadata.namespace, d.metadata.name)):
        ready = find(each.status.conditions, READY)
        state = ready.status if ready else "Unknown"
        table.add_row(
            *([Text(each.metadata.namespace)] if everywhere else []),
            Text(each.metadata.name),
            Text(each.spec.model),
            Text(each.spec.environment),
            Text(state, style=READY_STYLES[state]),
            phase_text(each.status.phase).append(_so_far(each)),
            f"{each.status.ready_replicas or 0}/{each.status.replicas or 0}",
            Text(each.status.url or "-"),
        )
    return table


def phase_text(phase: str | None) -> Text:
    """The phase in its colour."""
    return Text(phase or "-", style=PHASE_STYLES.get(phase or "", ""))


def _so_far(deployment: ModelDeployment) -> str:
    """How far a start is, in a word or two."""
    progress = deployment.status.progress
    if progress is None:
        return ""
    if not progress.total_bytes:
        return f" ({progress.phase})"
    return f" ({progress.phase} {100 * (progress.fetched_bytes or 0) // progress.total_bytes} %)"


def short_version(version: str) -> str:
    """A commit or digest as people compare it; names stay as they are."""
    bare = version.rpartition(":")[2]
    is_digest = len(bare) >= 32 and all(c in "0123456789abcdef" for c in bare)
    return bare[:VERSION_LENGTH] if is_digest else version


def _cell(deployment: ModelDeployment | None) -> Text:
    """Which version answers, and the share of each while there are two."""
    if deployment is None:
        return Text("-", style="dim")
    status = deployment.status
    serving = [each for each in status.revisions if each.traffic]
    if len(serving) > 1:
        shares = sorted(serving, key=lambda r: (-r.traffic, r.name))
        # Two revisions of one version are told apart by their names.
        same = len({each.version for each in shares}) < len(shares)
        names = [_revision(each.name) if same else short_version(each.version) for each in shares]
        told = ", ".join(f"{n} {r.traffic} %" for n, r in zip(names, shares, strict=True))
    elif serving:
        told = short_version(serving[0].version)
    else:
        return _without_version(deployment)
    text = Text(told)
    return text.append(" ").append(phase_text(status.phase)) if status.phase else text


def _without_version(deployment: ModelDeployment) -> Text:
    """What it does instead of serving one, and why."""
    phase, ready = deployment.status.phase, find(deployment.status.conditions, READY)
    text = phase_text(phase)
    return text.append(f" ({ready.reason})") if ready and ready.reason != phase else text


def _revision(name: str) -> str:
    """The end of a revision's name, which tells it from the others of its deployment."""
    return name.rpartition("-")[2]


def _ready_reason(model: Model) -> str:
    ready = find(model.status.conditions, READY)
    return ready.reason if ready else "-"


def _table(everywhere: bool) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    if everywhere:
        table.add_column("WORKSPACE")
    return table


def _nothing(what: str, namespace: str | None) -> str:
    return f"no {what} in {'any workspace' if namespace is None else f'workspace {namespace}'}"
