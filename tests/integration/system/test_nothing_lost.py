"""Whatever is scaled, replaced, frozen or killed: no request is lost by us."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.traffic import steady

from beamlit_operator.kube import DEPLOYMENTS

from .conftest import ready


async def revision_of(workspace) -> str:
    (row,) = (await workspace.get())["status"]["revisions"]
    return row["name"]


async def scale(workspace, replicas: int) -> None:
    await workspace.client.merge_patch(
        DEPLOYMENTS,
        await revision_of(workspace),
        {"spec": {"replicas": replicas}},
        workspace.name,
        subresource="scale",
        field_manager="test",
    )


def endpoint(workspace, query: str = "") -> str:
    return f"{workspace.stack.gateway}/{workspace.name}/models/tiny/predict{query}"


@contextmanager
def frozen(pid: int):
    """The process stands still, as on a machine that hangs: it refuses nothing and says nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_requests_of_seconds_survive_their_pods_being_scaled_away(workspace, under_way):
    await workspace.quickstart(serverlessConfig={"minNumReplicas": 0, "maxNumReplicas": 2})
    await workspace.until_ready("Idle")
    await scale(workspace, 2)
    await workspace.until(lambda md: md["status"]["readyReplicas"] == 2)
    query = f"?seconds=5&{under_way.begins}"
    for turn, replicas in enumerate((1, 0), start=1):
        calls = [asyncio.create_task(workspace.call(query=query)) for _ in range(6)]
        await under_way.begun(6 * turn)
        assert not any(call.done() for call in calls)
        await scale(workspace, replicas)
        async with steady(workspace.http, lambda: endpoint(workspace), callers=2) as tally:
            answers = await asyncio.gather(*calls)
        assert [status for status, _ in answers] == [200] * 6
        assert tally.wrong == []


async def test_a_restart_of_the_pods_under_load_loses_nothing(workspace):
    await workspace.quickstart(serverlessConfig={"minNumReplicas": 1})
    await workspace.until_ready("Serving")
    before = {pod["metadata"]["uid"] for pod in await workspace.pods()}
    async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
        await asyncio.to_thread(
            workspace.stack.kubectl,
            *("rollout", "restart", "deployment", await revision_of(workspace)),
            *("-n", workspace.name),
        )
        async with asyncio.timeout(60):
            while before & {pod["metadata"]["uid"] for pod in await workspace.pods()}:
                await asyncio.sleep(0.1)
    assert tally.wrong == []
    assert tally.total > 20


async def second_of_their_start_is_over(workspace) -> None:
    """Waits. Kubernetes' times have whole seconds: who ends in the one of its start is not told
    from who was never ready."""
    started = [datetime.fromisoformat(p["status"]["startTime"]) for p in await workspace.pods()]
    while datetime.now(UTC) < max(started) + timedelta(seconds=1):
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_a_pod_killed_in_the_middle_of_a_request(workspace, under_way, method, status):
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    pid = (await workspace.call())[1]["pid"]
    url = endpoint(workspace, f"?seconds=3&{under_way.begins}")
    call = asyncio.create_task(workspace.http.request(method, url))
    await under_way.begun()
    await second_of_their_start_is_over(workspace)
    os.kill(pid, signal.SIGKILL)
    async with await call as response:
        body = await response.json()
        assert response.status == status, body
    if status == 502:
        assert body["error"]["reason"] == "UpstreamReset"
    else:
        assert body["pid"] != pid
    async with asyncio.timeout(60):
        # Until then a connection to it may be open, and what is sent on it is in its middle too.
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.02)
    again = await workspace.call(known=False)
    assert again[0] == 200, again


async def test_with_the_api_server_away_what_is_warm_is_served_and_what_sleeps_waits(workspace):
    await workspace.quickstart()
    await workspace.model("other")
    await workspace.deployment("other")
    await workspace.until_ready("Idle", "other")
    assert (await workspace.call())[0] == 200
    with frozen(workspace.stack.pid("cluster")):
        async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
            sleeping = asyncio.create_task(workspace.call(model="other"))
            await asyncio.sleep(2)
            assert not sleeping.done()
        assert tally.wrong == []
        assert tally.slowest < 5
    assert (await sleeping)[0] == 200
    await workspace.until_ready("Serving", "other")


async def test_an_operator_that_stands_still_keeps_nobody_from_waking_and_being_served(workspace):
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    with frozen(workspace.stack.pid("operator")):
        assert (await workspace.call())[0] == 200
        async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
            await asyncio.sleep(3)
        assert tally.wrong == []
        assert tally.total > 20
    serving = await workspace.until_ready("Serving")
    assert ready(serving)["status"] == "True"
