"""``beamlit activate`` and ``deactivate``: `spec.enabled`, and nothing else.

A deactivated deployment answers 404, has no replicas, and keeps its status and history.
"""

from __future__ import annotations

import copy

from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.editing import edit
from beamlit_operator.cli.finding import find
from beamlit_operator.cli.following import until_looked_at


async def switch_command(
    name: str,
    target: Target,
    *,
    environment: str | None,
    enabled: bool,
    force_conflicts: bool,
) -> None:
    """Sets `spec.enabled`.

    Raises:
        CommandError: there is no such deployment, or it may not be changed; says why.
    """
    done = "activated" if enabled else "deactivated"
    async with connection(target) as client:
        live = await find(client, target, name, environment)
        found = live["metadata"]["name"]
        if live["spec"].get("enabled", True) is enabled:
            print(f"{found} is {done} already")
            return
        desired = copy.deepcopy(live)
        desired["spec"]["enabled"] = enabled
        await edit(
            client,
            live,
            desired,
            instead=f"Set it to {str(enabled).lower()} where that is declared",
            force_conflicts=force_conflicts,
        )
        if not await until_looked_at(client, live):
            print(f"{found} is {done}, but the operator has not looked at it yet: does it run?")
            return
    print(
        f"{found} is activated: the next request starts it, if none runs"
        if enabled
        else f"{found} is deactivated: its endpoint answers 404; requests under way end first"
    )
