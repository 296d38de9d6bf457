"""Replicas follow the load, by each metric, through real gateways, processes and their cpu."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from tests.integration.system.conftest import Workspace, ready

from beamlit_operator.kube import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, Json


@contextlib.asynccontextmanager
async def callers(
    workspace: Workspace, count: int, query: str, *, pause: float = 0.0
) -> AsyncIterator[set[int]]:
    """So many callers, each calling again and again; the statuses they get."""
    statuses: set[int] = set()
    stop = asyncio.Event()

    async def keep_calling() -> None:
        while not stop.is_set():
            status, _ = await workspace.call(query=query)
            statuses.add(status)
            await asyncio.sleep(pause)

    calling = [asyncio.create_task(keep_calling()) for _ in range(count)]
    try:
        yield statuses
    finally:
        stop.set()
        await asyncio.gather(*calling)


def ready_replicas(deployment: Json) -> int:
    return int(deployment["status"].get("readyReplicas") or 0)


def replicas(deployment: Json) -> int:
    return int(deployment["status"].get("replicas") or 0)


def seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


async def autoscaler(workspace: Workspace) -> Json:
    (found,) = (await workspace.client.list(HORIZONTAL_POD_AUTOSCALERS, workspace.name)).items
    return found


@pytest.mark.long
async def test_cpu_load_adds_replicas_and_its_end_removes_them_to_zero(workspace):
    request = {"name": "model", "resources": {"requests": {"cpu": "50m"}}}
    await workspace.quickstart(
        serverlessConfig={
            "metric": "cpu",
            "target": 60,
            "maxNumReplicas": 2,
            "stableWindow": "6s",
        },
        podTemplate={"spec": {"containers": [request]}},
    )
    await workspace.until_ready("Idle")
    async with callers(workspace, 2, "?work=0.05") as statuses:
        await workspace.until(lambda md: ready_replicas(md) == 2, within=90)
        status = (await autoscaler(workspace))["status"]
        assert status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 0
    assert statuses == {200}
    # Calls that cost nothing keep it awake, and the autoscaler takes it down to one.
    async with callers(workspace, 1, "", pause=0.5) as statuses:
        await workspace.until(lambda md: replicas(md) == 1, within=90)
    assert statuses == {200}
    idle = await workspace.until_ready("Idle")
    assert replicas(idle) == 0
    assert [c["type"] for c in idle["status"]["conditions"]] == ["Ready"]
    assert (await workspace.call())[0] == 200, "and it wakes again"
    assert await autoscaler(workspace)


async def test_requests_per_second_add_replicas(workspace):
    await workspace.quickstart(
        serverlessConfig={
            "metric": "rps",
            "target": 4,
            "maxNumReplicas": 3,
            "stableWindow": "6s",
        }
    )
    async with callers(workspace, 6, "", pause=0.1) as statuses:
        grown = await workspace.until(lambda md: ready_replicas(md) == 3, within=60)
    assert ready_replicas(grown) == 3
    assert statuses == {200}


@pytest.mark.long
async def test_a_burst_gets_all_its_replicas_at_once_and_keeps_them_for_a_window(workspace):
    await workspace.quickstart(
        serverlessConfig={
            "target": 5,
            "minNumReplicas": 1,
            "maxNumReplicas": 6,
            "stableWindow": "10s",
        }
    )
    await workspace.until_ready("Serving")
    # Watched idle for a while: without that, the stable window would hold nothing but the burst.
    await workspace.until(lambda md: seconds_since(ready(md)["lastTransitionTime"]) > 5)
    seen = [1]

    async def watch() -> None:
        while True:
            (found,) = (await workspace.client.list(DEPLOYMENTS, workspace.name)).items
            if found["spec"]["replicas"] != seen[-1]:
                seen.append(found["spec"]["replicas"])
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        burst = [workspace.call(query="?seconds=5") for _ in range(12)]
        assert {status for status, _ in await asyncio.gather(*burst)} == {200}
    finally:
        watching.cancel()
    assert seen[-1] == 4, "twelve by 70 % of five"
    assert seen == sorted(seen), "nothing is removed when the burst is over"
    told = (workspace.stack.folder / "operator.log").read_text()
    scaled = [each for each in told.splitlines() if f"workspace={workspace.name} " in each]
    assert any("reason=Panic" in each for each in scaled), scaled
