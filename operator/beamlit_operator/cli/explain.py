"""``beamlit policy explain``: where a deployment may run, and what became of each policy.

| the deployment                                                   | exit status       |
|------------------------------------------------------------------|-------------------|
| gets what it asks for, perhaps narrowed                          | 0, compliant      |
| attaches a policy that the environment overrides                 | 1, not compliant  |
| tries to remove or replace a mandatory policy                    | 1, not compliant  |
| asks for a flavor that is not allowed                            | 1, not compliant  |
| refers to an Environment or Policy that is missing               | 1, not compliant  |
| does not exist, or a manifest is malformed                       | 2, bad input      |

The answer comes from the same pure function that the operator uses, from the cluster's objects or
from manifests alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.cli.manifests import Workspace, read_manifests, read_workspace
from beamlit_operator.cli.screen import text_console
from beamlit_operator.kube import (
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    POLICIES,
    ApiError,
    KubeClient,
)
from beamlit_operator.policy.algebra import written
from beamlit_operator.policy.effective import Aspect, Effect, EffectivePolicy, effective_policy
from beamlit_operator.policy.explain import explain_json

EFFECT_STYLES = {
    "enforced": "green",
    "narrowed": "cyan",
    "overridden": "yellow",
    "replaced": "dim",
    "removed": "dim",
    "missing": "red",
}


async def explain_command(
    name: str, target: Target, *, files: tuple[Path, ...], output: Literal["table", "json"]
) -> int:
    """Prints the explanation and returns the exit status."""
    if files:
        workspace = read_workspace(read_manifests(files), target.namespace)
        where = "the manifests"
    else:
        async with connection(target) as client:
            workspace = await _from_cluster(name, client, target.workspace)
        where = f"workspace {target.workspace}"
    deployment = workspace.deployments.get(name)
    if deployment is None:
        known = ", ".join(sorted(workspace.deployments)) or "none"
        raise CommandError(
            f"ModelDeployment {name} is not in {where}; there: {known}", status=BAD_INPUT
        )
    result = effective_policy(
        deployment,
        workspace.environments.get(deployment.spec.environment),
        policies=workspace.policies,
    )
    problems = violations(deployment, result)
    if output == "json":
        print(json.dumps(explain_json(deployment, result), indent=2))
    else:
        _print(text_console(), deployment, result=result, problems=problems)
    return FAILED if problems else 0


def violations(deployment: ModelDeployment, result: EffectivePolicy) -> list[str]:
    """Why the deployment is not compliant, one sentence each; none when it is."""
    problems = [each.message for each in result.unresolved]
    problems += [each.message for each in result.ignored]
    problems += [
        f"policy {row.name} is overridden: {row.because}"
        for aspect in (result.location, result.flavor)
        for row in aspect.overridden()
        if row.level == "deployment"
    ]
    allowed = result.flavor.allowed
    if allowed is not None:
        names = set(written(allowed))
        problems += [
            f"spec.flavors asks for {wanted}, which is not allowed: {', '.join(sorted(names))}"
            for wanted in (f"{f.type}:{f.name.lower()}" for f in deployment.spec.flavors)
            if wanted not in names
        ]
    return problems


async def _from_cluster(name: str, client: KubeClient, workspace: str) -> Workspace:
    found = Workspace({}, {}, {}, {})
    try:
        raw = await client.get(MODEL_DEPLOYMENTS, name, workspace)
    except ApiError as error:
        if not error.not_found:
            raise
        for item in (await client.list(MODEL_DEPLOYMENTS, workspace)).items:
            known = ModelDeployment.model_validate(item)
            found.deployments[known.metadata.name] = known
        return found
    found.deployments[name] = ModelDeployment.model_validate(raw)
    for item in (await client.list(ENVIRONMENTS, workspace)).items:
        environment = Environment.model_validate(item)
        found.environments[environment.metadata.name] = environment
    for item in (await client.list(POLICIES, workspace)).items:
        policy = Policy.model_validate(item)
        found.policies[policy.metadata.name] = policy
    return found


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
