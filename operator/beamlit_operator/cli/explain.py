"""``beamlit policy explain``: where a deployment may run, and what became of each policy.

| the deployment                                                   | exit status       |
|------------------------------------------------------------------|-------------------|
| gets what it asks for, perhaps narrowed                          | 0, compliant      |
| attaches a policy that the environment overrides                 | 1, not compliant  |
| tries to remove or replace a mandatory policy                    | 1, not compliant  |
| asks for a flavor or a device that is not allowed                | 1, not compliant  |
| refers to an Environment or Policy that is missing               | 1, not compliant  |
| does not exist, a manifest is malformed, no cluster answers      | 2, bad input      |

The answer comes from the same pure function that the operator uses, from the cluster's objects or
from manifests alone, by the catalogue that the operator has (`catalogues`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.cli import catalogues
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.cli.manifests import Workspace, read_manifests, read_workspaces
from beamlit_operator.cli.screen import text_console
from beamlit_operator.kube import (
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    POLICIES,
    ApiError,
    Json,
    KubeClient,
)
from beamlit_operator.policy import Catalogue
from beamlit_operator.policy.algebra import written
from beamlit_operator.policy.effective import Aspect, Effect, EffectivePolicy, effective_policy
from beamlit_operator.policy.explain import explain_json
from beamlit_operator.policy.placement import place
from beamlit_operator.workloads.devices import DeviceNotAllowedError, flavors_to_place

EFFECT_STYLES = {
    "enforced": "green",
    "narrowed": "cyan",
    "overridden": "yellow",
    "replaced": "dim",
    "removed": "dim",
    "missing": "red",
}


async def explain_command(
    name: str,
    target: Target,
    *,
    files: tuple[Path, ...],
    output: Literal["table", "json"],
    catalogue: Path | None = None,
) -> int:
    """Prints the explanation and returns the exit status.

    Raises:
        CommandError: there is no answer; never with the status that means "not compliant".
    """
    try:
        deployment, workspace, known = await _given(name, target, files=files, catalogue=catalogue)
    except CommandError as error:
        raise CommandError(error.message, status=BAD_INPUT) from error
    result = effective_policy(
        deployment,
        workspace.environments.get(deployment.spec.environment),
        policies=workspace.policies,
        catalogue=known,
    )
    problems = violations(
        deployment,
        result,
        model=workspace.models.get(deployment.spec.model),
        catalogue=known,
    )
    if output == "json":
        print(json.dumps(explain_json(deployment, result), indent=2))
    else:
        _print(text_console(), deployment, result=result, problems=problems)
    return FAILED if problems else 0


def violations(
    deployment: ModelDeployment,
    result: EffectivePolicy,
    *,
    model: Model | None,
    catalogue: Catalogue,
) -> list[str]:
    """Why the deployment is not compliant, one sentence each; none when it is."""
    return [
        *overridden(result),
        *not_allowed(deployment, result, model=model, catalogue=catalogue),
    ]


def overridden(result: EffectivePolicy) -> list[str]:
    """The deployment's own policies that its environment overrides; it runs all the same."""
    return [
        f"policy {row.name} is overridden: {row.because}"
        for aspect in (result.location, result.flavor)
        for row in aspect.overridden()
        if row.level == "deployment"
    ]


def not_allowed(
    deployment: ModelDeployment,
    result: EffectivePolicy,
    *,
    model: Model | None,
    catalogue: Catalogue,
) -> list[str]:
    """What policies forbid, one sentence each: with any of it nothing is placed, or it is refused
    when it is applied."""
    problems = [each.message for each in result.unresolved]
    problems += [each.message for each in result.ignored]
    placement = place(result, requested=deployment.spec.flavors, catalogue=catalogue)
    allowed = ", ".join(written(result.flavor.allowed or ()))
    problems += [
        f"spec.flavors asks for {wanted}, which is not allowed: {allowed}"
        for wanted in written(placement.forbidden)
    ]
    if placement.problem:
        problems.append(placement.problem)
    if not placement.forbidden:
        problems += _devices(deployment, result, model=model, catalogue=catalogue)
    return problems


def _devices(
    deployment: ModelDeployment,
    result: EffectivePolicy,
    *,
    model: Model | None,
    catalogue: Catalogue,
) -> list[str]:
    """Why the devices that the pod asks for by name are not allowed, if so."""
    runtime = deployment.spec.runtime
    own = runtime.resources if runtime is not None else None
    if own is None and model is not None and model.spec.runtime is not None:
        own = model.spec.runtime.resources
    template = (deployment.spec.pod_template or {}).get("spec")
    # A template of another shape is refused for that, and asks for nothing.
    containers = [{"resources": own or {}}]
    for kind in ("containers", "initContainers"):
        each = template.get(kind) if isinstance(template, dict) else None
        containers += [c for c in each if isinstance(c, dict)] if isinstance(each, list) else []
    try:
        flavors_to_place(
            {"containers": containers},
            requested=deployment.spec.flavors,
            allowed=result.flavor.allowed,
            catalogue=catalogue,
        )
    except DeviceNotAllowedError as problem:
        return [str(problem)]
    return []


async def _given(
    name: str, target: Target, *, files: tuple[Path, ...], catalogue: Path | None
) -> tuple[ModelDeployment, Workspace, Catalogue]:
    """The deployment, what is around it, and the catalogue to judge it by."""
    if not files:
        async with connection(target) as client:
            found = await _from_cluster(name, client, target.workspace)
            known = (
                catalogues.from_file(catalogue)
                if catalogue is not None
                else await catalogues.from_cluster(client)
            )
        deployment = _named(name, found.deployments, f"workspace {target.workspace}")
        return deployment, found, known
    manifests = read_manifests(files)
    spaces = read_workspaces(manifests, target.namespace)
    homes = sorted(where for where, each in spaces.items() if name in each.deployments)
    if len(homes) > 1:
        raise CommandError(
            f"ModelDeployment {name} is in the workspaces {' and '.join(homes)}: choose with -n"
        )
    names = [each for space in spaces.values() for each in space.deployments]
    where = "the manifests" if target.namespace is None else f"workspace {target.namespace}"
    found = spaces[homes[0]] if homes else Workspace.empty()
    deployment = _named(name, found.deployments, where, known=names)
    return (
        deployment,
        found,
        catalogues.from_file(catalogue)
        if catalogue is not None
        else catalogues.from_manifests(manifests),
    )


def _named(
    name: str,
    deployments: Mapping[str, ModelDeployment],
    where: str,
    *,
    known: Iterable[str] | None = None,
) -> ModelDeployment:
    if name in deployments:
        return deployments[name]
    there = ", ".join(sorted(set(deployments if known is None else known))) or "none"
    raise CommandError(f"ModelDeployment {name} is not in {where}; there: {there}")


async def _from_cluster(name: str, client: KubeClient, workspace: str) -> Workspace:
    """The deployment with the Environments and Policies; without it, the names that there are."""
    found = Workspace.empty()
    try:
        wanted = [await client.get(MODEL_DEPLOYMENTS, name, workspace)]
    except ApiError as error:
        if not error.not_found:
            raise
        wanted = (await client.list(MODEL_DEPLOYMENTS, workspace)).items
    models = {(each.get("spec") or {}).get("model") for each in wanted}
    for model, items in (
        (Model, [m for m in (await client.list(MODELS, workspace)).items if _name(m) in models]),
        (ModelDeployment, wanted),
        (Environment, (await client.list(ENVIRONMENTS, workspace)).items),
        (Policy, (await client.list(POLICIES, workspace)).items),
    ):
        for item in items:
            try:
                found.put(model.model_validate(item))
            except ValidationError as error:
                # To the operator it is not there either: what refers to it fails closed.
                where = f"{model.__name__} {_name(item)}"
                print(f"beamlit: {where} cannot be read: {error}", file=sys.stderr)
    return found


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])


def _print(
    console: Console, deployment: ModelDeployment, *, result: EffectivePolicy, problems: list[str]
) -> None:
    console.print(
        f"{deployment.metadata.name} in environment {deployment.spec.environment}", style="bold"
    )
    for title, aspect in (("location", result.location), ("flavor", result.flavor)):
        console.print(Text(f"{title}: ").append(allowed_text(aspect), style="bold green"))
        if aspect.policies:
            console.print(policy_table(aspect))
    for note in result.notes:
        console.print(Text(f"note: {note}"))
    if problems:
        console.print("not compliant", style="bold red")
        for problem in problems:
            console.print(Padding(Text(problem), (0, 0, 0, 2), expand=False))
    else:
        console.print("compliant", style="bold green")


def allowed_text(aspect: Aspect) -> str:
    """What is allowed, in one line."""
    return "anything" if aspect.allowed is None else ", ".join(written(aspect.allowed))


def policy_table(aspect: Aspect) -> Table:
    """What became of each policy of one type."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("POLICY", "FROM", "EFFECT"):
        table.add_column(column, no_wrap=True)
    table.add_column("BECAUSE", overflow="fold")
    for row in aspect.policies:
        level = f"{row.level}, mandatory" if row.mandatory else row.level
        effect = Effect(row.effect).value
        table.add_row(
            Text(row.name), level, Text(effect, style=EFFECT_STYLES[effect]), Text(row.because)
        )
    return table
