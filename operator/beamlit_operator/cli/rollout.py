"""``beamlit rollout``: looks at the rollout of a deployment, and gives it orders.

Without a name it is the one rollout under way in the workspace, if there is one and no other.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import aclosing

from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.api.conditions import RECONCILING, find
from beamlit_operator.cli import finding
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.editing import FIELD_MANAGER, edit
from beamlit_operator.cli.errors import FAILED, CommandError
from beamlit_operator.cli.following import changes
from beamlit_operator.cli.orders import OrderRefusedError, Verb, orders, said, under_way
from beamlit_operator.cli.picture import history_table, picture, summary
from beamlit_operator.cli.release import changes_table
from beamlit_operator.cli.screen import table_console, text_console
from beamlit_operator.cli.undoing import UndoRefusedError, undo
from beamlit_operator.kube import MODEL_DEPLOYMENTS, MODELS, ApiError, HttpClient, Json

TAKEN_WITHIN = 15.0
"""Seconds in which an operator that runs takes note of an annotation that is gone."""


async def status_command(
    name: str | None, target: Target, *, environment: str | None, watch: bool
) -> int:
    """Shows the rollout; with ``watch`` until it ends. The exit status is 1 if it ended badly."""
    async with connection(target) as client:
        live = await _chosen(client, target, name, environment)
        deployment = ModelDeployment.model_validate(live)
        if watch:
            deployment = await _watched(client, live)
        else:
            table_console().print(picture(deployment))
    badly = deployment.status.rollout is not None and under_way(deployment) is None
    return FAILED if badly else 0


async def order_command(
    name: str | None, target: Target, *, environment: str | None, verb: Verb
) -> None:
    """Gives an order.

    Raises:
        CommandError: it makes no sense now; says why. Nothing was changed then.
    """
    async with connection(target) as client:
        live = await _chosen(client, target, name, environment)
        try:
            given = orders(ModelDeployment.model_validate(live), verb)
        except OrderRefusedError as refusal:
            raise CommandError(str(refusal)) from refusal
        if given.stale:
            await _annotate(client, live, dict.fromkeys(given.stale))
            await _until_forgotten(client, live, given.stale)
        await _annotate(client, live, given.annotations)
    print(f"{live['metadata']['name']}: {given.told}")


async def undo_command(
    name: str | None,
    target: Target,
    *,
    environment: str | None,
    to: str | None,
    dry_run: bool,
    force_conflicts: bool,
) -> None:
    """Puts the spec of an earlier revision back.

    Raises:
        CommandError: there is none, or a tool declares the fields; says so.
    """
    console = text_console()
    async with connection(target) as client:
        if name is None:
            live = await _chosen(client, target, name, environment)
        else:
            live = await finding.find(client, target, name, environment)
        try:
            plan = undo(live, await _model_of(client, live), to=to)
        except UndoRefusedError as refusal:
            raise CommandError(str(refusal)) from refusal
        found = live["metadata"]["name"]
        console.print(Text(f"{found}: back to {plan.to.revision} ({plan.to.outcome})"))
        console.print(Padding(changes_table(plan.changes), (0, 0, 0, 2)))
        await edit(
            client,
            live,
            plan.after,
            instead="Revert the commit where that is declared",
            force_conflicts=force_conflicts,
            dry_run=dry_run,
        )
    if dry_run:
        console.print("dry run: the API server would take it; nothing was changed")
    else:
        console.print(f"undone; `beamlit rollout status {found}` shows how it goes")


async def history_command(name: str, target: Target, *, environment: str | None) -> None:
    """Shows the revisions that a deployment had."""
    async with connection(target) as client:
        live = await finding.find(client, target, name, environment)
    deployment = ModelDeployment.model_validate(live)
    if not deployment.status.history:
        print(f"{deployment.metadata.name} has no history yet")
        return
    table_console().print(history_table(deployment.status.history))


async def _chosen(
    client: HttpClient, target: Target, name: str | None, environment: str | None
) -> Json:
    """The deployment that is meant: without a name, the one with a rollout under way."""
    if name is not None:
        return await finding.find(client, target, name, environment)
    there = (await client.list(MODEL_DEPLOYMENTS, target.workspace)).items
    busy = [each for each in there if under_way(ModelDeployment.model_validate(each))]
    if len(busy) == 1:
        return busy[0]
    where = f"workspace {target.workspace}"
    if not busy:
        raise CommandError(f"no rollout is under way in {where}: name a deployment")
    names = ", ".join(sorted(each["metadata"]["name"] for each in busy))
    raise CommandError(f"several rollouts are under way in {where}: name one of {names}")


async def _annotate(client: HttpClient, live: Json, annotations: dict[str, str | None]) -> None:
    metadata = live["metadata"]
    await client.merge_patch(
        MODEL_DEPLOYMENTS,
        metadata["name"],
        {"metadata": {"annotations": annotations}},
        metadata["namespace"],
        field_manager=FIELD_MANAGER,
    )


async def _until_forgotten(client: HttpClient, live: Json, stale: tuple[str, ...]) -> None:
    """Waits until the operator has seen that the annotations are gone."""

    before = live["metadata"]["annotations"]
    gone = {said(key, before[key]) for key in stale}

    def forgotten(deployment: ModelDeployment) -> bool:
        return not gone & set(deployment.status.used_orders)

    try:
        async with asyncio.timeout(TAKEN_WITHIN):
            async for deployment in changes(client, live):
                if forgotten(deployment):
                    return
    except TimeoutError as error:
        raise CommandError(
            f"{live['metadata']['name']}: an order of before was taken away, but the operator has "
            f"not taken note of that for {TAKEN_WITHIN:g} s: does it run? Give the order again"
        ) from error


async def _watched(client: HttpClient, live: Json) -> ModelDeployment:
    """Shows every change until the rollout has ended; returns the last state."""
    console = table_console()
    last = ModelDeployment.model_validate(live)
    if console.is_terminal:
        with Live(picture(last), console=console, auto_refresh=False) as screen:

            def show(deployment: ModelDeployment) -> None:
                screen.update(picture(deployment), refresh=True)

            return await _follow(client, live, show)
    shown = ""

    def say(deployment: ModelDeployment) -> None:
        nonlocal shown
        line = summary(deployment)
        if line != shown:
            print(line, flush=True)
            shown = line

    last = await _follow(client, live, say)
    console.print(picture(last))
    return last


async def _follow(
    client: HttpClient, live: Json, show: Callable[[ModelDeployment], None]
) -> ModelDeployment:
    async with aclosing(changes(client, live)) as states:
        async for deployment in states:
            show(deployment)
            if _is_over(deployment):
                return deployment
    raise CommandError(f"ModelDeployment {live['metadata']['name']} was deleted")


def _is_over(deployment: ModelDeployment) -> bool:
    """Whether nothing is under way, as far as the operator has looked."""
    status = deployment.status
    seen = (status.observed_generation or 0) >= deployment.metadata.generation
    moving = find(status.conditions, RECONCILING) is not None and status.rollout is None
    return seen and not moving and under_way(deployment) is None


async def _model_of(client: HttpClient, live: Json) -> Model | None:
    metadata = live["metadata"]
    try:
        found = await client.get(MODELS, live["spec"]["model"], metadata["namespace"])
    except ApiError as error:
        if error.not_found:
            return None
        raise
    return Model.model_validate(copy.deepcopy(found))
