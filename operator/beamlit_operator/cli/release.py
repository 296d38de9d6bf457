"""``beamlit release``: shows what putting a version into another environment changes, and does it.

| policies of the destination allow it | --dry-run | -o yaml | what happens                      |
|--------------------------------------|-----------|---------|-----------------------------------|
| no                                   |           |         | told, nothing is changed, fails   |
| yes                                  | no        | no      | asked of the server, then done    |
| yes                                  | yes       | no      | asked of the server only          |
| yes                                  |           | yes     | the manifest is printed, no more  |
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Literal

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.cli import catalogues
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.differences import ABSENT, Difference, shown
from beamlit_operator.cli.editing import create, edit
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.cli.explain import allowed_text, not_allowed, overridden, policy_table
from beamlit_operator.cli.releasing import (
    Order,
    Release,
    ReleaseRefusedError,
    manifest,
    plan,
)
from beamlit_operator.cli.screen import text_console
from beamlit_operator.kube import (
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    POLICIES,
    SELF_SUBJECT_REVIEWS,
    ApiError,
    HttpClient,
)
from beamlit_operator.policy import Catalogue, EffectivePolicy, effective_policy

INSTEAD = "Write the manifest with -o yaml and commit it where that is declared"


async def release_command(
    model: str,
    target: Target,
    *,
    source: str,
    destination: str,
    with_policies: bool,
    name: str | None,
    dry_run: bool,
    output: Literal["yaml"] | None,
    force_conflicts: bool,
) -> int:
    """Releases, and returns the exit status.

    Raises:
        CommandError: it cannot be done; says why. Nothing was changed then.
    """
    if source == destination:
        raise CommandError(
            f"--from and --to are both {source}: name two environments", status=BAD_INPUT
        )
    # The manifest alone goes to where it can be piped from.
    console = Console(stderr=True, highlight=False) if output else text_console()
    async with connection(target) as client:
        client.on_warning = lambda text: print(f"warning: {text}", file=sys.stderr)
        order = Order(
            model=model,
            source=source,
            destination=destination,
            by=await _me(client),
            at=datetime.now(UTC),
            with_policies=with_policies,
            name=name,
        )
        release, problems = await _planned(client, order, target.workspace, console=console)
        if problems:
            raise CommandError(f"not released to {destination}: {problems[0]}")
        if output:
            print(yaml.safe_dump(manifest(release), sort_keys=False), end="")
            return 0
        if not release.changes:
            console.print(f"{release.name} runs this version already: nothing to do")
            return 0
        for pretend in (True,) if dry_run else (True, False):
            if release.before is None:
                await create(client, release.after, dry_run=pretend)
            else:
                await edit(
                    client,
                    release.before,
                    release.after,
                    instead=INSTEAD,
                    force_conflicts=force_conflicts,
                    dry_run=pretend,
                )
            # Once is enough.
            client.on_warning = None
    if dry_run:
        console.print("dry run: the API server would take it; nothing was changed")
    else:
        console.print(f"released; `beamlit rollout status {release.name}` shows how it goes")
    return 0


async def _planned(
    client: HttpClient, order: Order, workspace: str, *, console: Console
) -> tuple[Release, list[str]]:
    """The release, shown; and why it is not allowed, if so."""
    model = await _model(client, order.model, workspace)
    deployments = (await client.list(MODEL_DEPLOYMENTS, workspace)).items
    try:
        release = plan(order, model, deployments)
    except ReleaseRefusedError as refusal:
        raise CommandError(f"not released: {refusal}", status=FAILED) from refusal
    after = ModelDeployment.model_validate(release.after)
    catalogue = await catalogues.from_cluster(client)
    policy = await _policy(client, after, workspace, catalogue=catalogue)
    problems = not_allowed(after, policy, model=model, catalogue=catalogue)
    _show(console, order, release)
    _show_policy(console, order, policy, problems=problems)
    for warning in (*release.warnings, *overridden(policy)):
        console.print(Text("warning: ", style="yellow").append(warning, style="default"))
    return release, problems


async def _model(client: HttpClient, name: str, workspace: str) -> Model:
    try:
        return Model.model_validate(await client.get(MODELS, name, workspace))
    except ApiError as error:
        if not error.not_found:
            raise
    there = sorted(m["metadata"]["name"] for m in (await client.list(MODELS, workspace)).items)
    raise CommandError(
        f"not released: workspace {workspace} has no Model {name}; there: "
        f"{', '.join(there) or 'none'}"
    )


async def _policy(
    client: HttpClient, deployment: ModelDeployment, workspace: str, *, catalogue: Catalogue
) -> EffectivePolicy:
    """What the destination will be held to."""
    environment: Environment | None = None
    try:
        found = await client.get(ENVIRONMENTS, deployment.spec.environment, workspace)
        environment = Environment.model_validate(found)
    except ApiError as error:
        if not error.not_found:
            raise
    policies = {}
    for item in (await client.list(POLICIES, workspace)).items:
        try:
            policies[item["metadata"]["name"]] = Policy.model_validate(item)
        except ValidationError as error:
            # To the operator it is not there either: what refers to it fails closed.
            name = item["metadata"]["name"]
            print(f"beamlit: Policy {name} cannot be read: {error}", file=sys.stderr)
    return effective_policy(deployment, environment, policies=policies, catalogue=catalogue)


async def _me(client: HttpClient) -> str | None:
    """Who the API server says we are (Kubernetes 1.28 and later tell everybody)."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.create(SELF_SUBJECT_REVIEWS, body)
    except ApiError as error:
        if error.status in (403, 404, 405):
            return None
        raise
    name = ((answer.get("status") or {}).get("userInfo") or {}).get("username")
    return str(name) if name else None


def _show(console: Console, order: Order, release: Release) -> None:
    what = "new" if release.before is None else "changed"
    console.print(
        Text(order.model, style="bold").append(
            f": {order.source} -> {order.destination}, ModelDeployment {release.name} ({what})",
            style="default",
        )
    )
    if release.changes:
        console.print(Padding(changes_table(release.changes), (0, 0, 0, 2)))


def changes_table(changes: tuple[Difference, ...]) -> Table:
    """One row per field that changes."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("FIELD", no_wrap=True)
    for column in ("NOW", "THEN"):
        table.add_column(column, overflow="fold")
    for each in changes:
        table.add_row(
            Text(each.field),
            Text(shown(each.before), style="red" if each.before is not ABSENT else "dim"),
            Text(shown(each.after), style="green" if each.after is not ABSENT else "dim"),
        )
    return table


def _show_policy(
    console: Console, order: Order, policy: EffectivePolicy, *, problems: list[str]
) -> None:
    console.print(f"policies in {order.destination}:")
    for title, aspect in (("location", policy.location), ("flavor", policy.flavor)):
        line = Text(f"  {title}: ").append(allowed_text(aspect), style="bold")
        console.print(line)
        if aspect.policies:
            console.print(Padding(policy_table(aspect), (0, 0, 0, 4)))
    if problems:
        console.print("not allowed:", style="bold red")
        for problem in problems:
            console.print(Padding(Text(problem), (0, 0, 0, 2), expand=False))
