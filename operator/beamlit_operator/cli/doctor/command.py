"""The command itself."""

from __future__ import annotations

from typing import Literal

from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.doctor.findings import Level, Result, run, verdict
from beamlit_operator.cli.doctor.gatherer import Gatherer
from beamlit_operator.cli.doctor.report import CHECKS, as_json, show
from beamlit_operator.cli.errors import FAILED
from beamlit_operator.cli.screen import text_console
from beamlit_operator.kube import HttpClient

Output = Literal["table", "json"]


async def doctor_command(
    target: Target, *, output: Output, system: str | None, gateway: str | None
) -> int:
    """Prints the findings; 0 unless there is a problem."""
    async with connection(target) as client:
        results = await examined(client, target, system=system, gateway=gateway)
    if output == "json":
        print(as_json(results))
    else:
        show(text_console(), results)
    return FAILED if verdict(results)[Level.PROBLEM] else 0


async def examined(
    client: HttpClient, target: Target, *, system: str | None = None, gateway: str | None = None
) -> list[Result]:
    """Every check's findings about a cluster; about one workspace if the target names one."""
    gatherer = Gatherer(client, workspace=target.namespace, system=system, gateway=gateway)
    return run(CHECKS, await gatherer.picture())
