"""How many requests a pod gets at a time, what waits, and what is refused, through a real Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    envoy_of,
    fresh_address,
    gateway_settings,
    model_server,
    until,
)
from tests.integration.gateway.test_cold import sleeping
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.agent import Agent

PATH = "/demo/models/iris"


async def envoy_has(gateway: Gateway, *servers: ModelServer) -> None:
    """Waits until Envoy has these pods, whatever they would answer."""

    async def there() -> bool:
        async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/clusters") as response:
            text = await response.text()
        return all(f"::{server.host}:{server.port}::" in text for server in servers)

    await until(there, what="Envoy has the pods")


def call(gateway: Gateway) -> asyncio.Task[tuple[int, dict[str, Any]]]:
    return asyncio.create_task(gateway.get(f"{PATH}?wait=1"))


async def test_a_pod_gets_no_more_than_its_limit_and_the_rest_waits_up_to_its_own(
    gateway: Gateway,
) -> None:
    revision = await sleeping(gateway, endpoint={"maxConcurrency": 1, "maxQueued": 2})
    async with model_server("a") as a, model_server("b") as b:
        await gateway.cluster.ready(revision, a, b)
        await envoy_has(gateway, a, b)
        busy = [call(gateway), call(gateway)]
        await until(lambda: a.running == b.running == 1, what="no pod is idle while another waits")
        more = [call(gateway) for _ in range(5)]
        await until(lambda: sum(task.done() for task in more) == 3, what="two wait, three may not")
        assert {task.result()[0] for task in more if task.done()} == {429}
        waiting = [task for task in more if not task.done()]
        async with gateway.http.get(f"{gateway.url}{PATH}") as response:
            assert response.status == 429
            assert response.headers["retry-after"] == "1"
            error = (await response.json())["error"]
        assert error["reason"] == "Overloaded"
        assert "maxConcurrency" in error["message"]
        assert "maxQueued" in error["message"]

        async def concurrency() -> bool:
            url = f"http://{gateway.settings.admin}/load"
            async with gateway.http.get(url) as response:
                load = (await response.json())["deployments"].get("demo/iris-production", {})
            return (load.get("concurrency"), load.get("held")) == (2.0, 0)

        await until(concurrency, what="the autoscaler sees both pods at their limit")
        a.release.set()
        b.release.set()
        answers = await asyncio.gather(*busy, *waiting)
        assert [status for status, _ in answers] == [200] * 4
        assert (a.peak, b.peak) == (1, 1)


async def test_requests_held_for_a_start_keep_the_limit_too(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway, endpoint={"maxConcurrency": 2, "maxQueued": 50})
    callers = [call(gateway) for _ in range(20)]
    await until(lambda: gateway.held() == 20, what="all are held, whatever the limit")
    await gateway.cluster.ready(revision, server)
    await until(lambda: server.running == 2, what="two of them are at work")
    server.release.set()
    assert {status for status, _ in await asyncio.gather(*callers)} == {200}
    assert server.peak == 2
    assert gateway.cluster.scales == 1


async def test_a_pod_that_joins_takes_new_requests_while_others_wait(gateway: Gateway) -> None:
    revision = await sleeping(gateway, endpoint={"maxConcurrency": 1, "maxQueued": 5})
    async with model_server("old") as old, model_server("new") as new:
        await gateway.cluster.ready(revision, old)
        await envoy_has(gateway, old)
        first = call(gateway)
        await until(lambda: old.running == 1, what="the first is at work")
        second = call(gateway)
        new.release.set()
        await gateway.cluster.ready(revision, old, new)
        await envoy_has(gateway, new)
        assert (await gateway.get(PATH))[1]["server"] == "new"
        assert not second.done()
        old.release.set()
        assert {status for status, _ in await asyncio.gather(first, second)} == {200}


async def test_a_limit_that_is_set_changed_and_removed_under_load_loses_no_request(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    await gateway.cluster.ready(revision, server)
    await gateway.routed()
    statuses: Counter[int] = Counter()
    going = True

    async def load() -> None:
        while going:
            statuses[(await gateway.get(PATH))[0]] += 1

    callers = [asyncio.create_task(load()) for _ in range(4)]
    for endpoint in ({"maxConcurrency": 2}, {"maxConcurrency": 3}, None, {"maxConcurrency": 1}):
        await gateway.cluster.deploy("iris", endpoint=endpoint)
        goal = statuses.total() + 60
        await until(lambda goal=goal: statuses.total() > goal, what="load goes on")
    going = False
    await asyncio.gather(*callers)
    assert set(statuses) == {200}


async def test_a_pod_that_cannot_be_reached_is_left_out_and_a_busy_one_is_not(
    gateway: Gateway, server: ModelServer
) -> None:
    """A server that answers 503 itself is in service; one that refuses connections is not."""
    unwell = 0

    async def say_503(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal unwell
        unwell += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    gone = ModelServer(fresh_address(), server.port, "gone")
    busy = ModelServer(fresh_address(), server.port, "busy")

    async def health() -> str:
        async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/clusters") as response:
            return await response.text()

    revision = await sleeping(gateway)
    async with await asyncio.start_server(say_503, busy.host, busy.port):
        await gateway.cluster.ready(revision, server, gone, busy)
        await envoy_has(gateway, server, gone, busy)

        async def left_out() -> bool:
            status, _ = await _status(gateway)
            assert status in (200, 503)
            ejected = f"::{gone.host}:{gone.port}::health_flags::/failed_outlier_check"
            return ejected in await health()

        await until(left_out, what="the pod that is gone is left out")
        while unwell < 20:
            await _status(gateway)
        assert f"::{busy.host}:{busy.port}::health_flags::healthy" in await health()


@pytest.mark.parametrize("endpoint", [None, {"maxConcurrency": 4}], ids=["no limit", "a limit"])
async def test_the_only_pod_is_reached_as_soon_as_it_listens_again(
    gateway: Gateway, endpoint: dict[str, int] | None
) -> None:
    revision = await sleeping(gateway, endpoint=endpoint)
    async with model_server("first") as first:
        await gateway.cluster.ready(revision, first)
        await gateway.routed()
    # It is gone, the API does not know yet, and callers go on.
    assert (await gateway.get(PATH))[0] == 503
    again = ModelServer(first.host, first.port, "again")
    async with model_server("again", at=again):
        assert (await gateway.get(PATH))[0] == 200


async def test_a_limit_and_what_waits_for_it_outlive_the_agent(
    kube: FakeKube, server: ModelServer
) -> None:
    settings = gateway_settings()
    cluster = Cluster(kube)
    await cluster.deploy("iris", endpoint={"maxConcurrency": 1, "maxQueued": 10})
    first, second = Agent(kube, settings), Agent(kube, settings)
    async with aiohttp.ClientSession() as http, envoy_of(first, settings):
        gateway = Gateway(settings, cluster, first, http)
        async with first.running():
            await until(lambda: not first.not_ready(), what="the first agent is ready")
            callers = [call(gateway) for _ in range(3)]
            await until(lambda: gateway.held() == 3, what="all are held")
        async with second.running():
            gateway.agent = second
            await until(lambda: gateway.held() == 3, what="the second agent holds them")
            await cluster.ready("iris-production-1", server)
            await until(lambda: server.running == 1, what="the first is at work")
            server.release.set()
            assert {status for status, _ in await asyncio.gather(*callers)} == {200}
            assert server.peak == 1
        # And without any agent.
        assert (await gateway.get(PATH))[0] == 200


async def _status(gateway: Gateway) -> tuple[int, bytes]:
    async with gateway.http.get(f"{gateway.url}{PATH}") as response:
        return response.status, await response.read()
