"""What held requests cost, and what becomes of those whose fresh pod breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    envoy_of,
    free_port,
    fresh_address,
    gateway_settings,
    until,
)
from tests.integration.gateway.test_cold import sleeping
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.room import held_bytes

UPLOADS, SIZE = 100, 2**20


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def test_held_uploads_stay_with_their_callers(kube: FakeKube, server: ModelServer) -> None:
    settings = gateway_settings()
    agent = Agent(kube, settings)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        agent.running(),
        envoy_of(agent, settings) as envoy,
    ):
        gateway = Gateway(settings, Cluster(kube), agent, http)
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        revision = await sleeping(gateway)
        assert envoy.pid is not None
        before = resident_bytes(envoy.pid)
        url = f"{gateway.url}/demo/models/iris"

        async def upload() -> int:
            async with http.post(url, data=b"x" * SIZE) as response:
                return int((await response.json())["bytes"])

        callers = [asyncio.create_task(upload()) for _ in range(UPLOADS)]
        await until(lambda: gateway.held() == UPLOADS, what="all are held")
        await _settled(envoy.pid)
        each = (resident_bytes(envoy.pid) - before) / UPLOADS
        # With Envoy's own limits it was twice their size.
        assert each < held_bytes(SIZE), f"{each / 1024:.0f} KiB each"
        await gateway.cluster.ready(revision, server)
        assert set(await asyncio.gather(*callers)) == {SIZE}


async def _settled(pid: int) -> None:
    """Waits until Envoy takes in no more."""
    last, same = 0, 0
    while same < 10:
        await asyncio.sleep(0.05)
        now = resident_bytes(pid)
        last, same = now, same + 1 if now == last else 0


@dataclass
class Moody:
    """A pod that breaks the first connection off and then answers."""

    host: str
    port: int
    seen: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.seen += 1
        if self.seen > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def moody_server() -> AsyncIterator[Moody]:
    moody = Moody(fresh_address(), free_port())
    running = await asyncio.start_server(moody.serve, moody.host, moody.port)
    async with running:
        yield moody


@pytest.mark.parametrize(("method", "status", "seen"), [("GET", 200, 2), ("POST", 502, 1)])
async def test_a_woken_pod_that_breaks_off_is_asked_again_only_if_that_is_harmless(
    gateway: Gateway, method: str, status: int, seen: int
) -> None:
    revision = await sleeping(gateway)
    async with moody_server() as moody:
        url = f"{gateway.url}/demo/models/iris"
        caller = asyncio.create_task(gateway.http.request(method, url))
        await until(lambda: gateway.held() == 1, what="the request is held")
        await gateway.cluster.ready(revision, moody)  # type: ignore[arg-type]
        answer = await caller
        assert answer.status == status
        assert moody.seen == seen
        if status == 502:
            error = (await answer.json())["error"]
            assert (error["code"], error["reason"]) == (502, "UpstreamReset")


async def test_the_kernel_watches_for_pods_whose_node_is_gone(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    await gateway.cluster.ready(revision, server)
    url = f"{gateway.url}/demo/models/iris?wait"
    caller = asyncio.create_task(gateway.http.get(url))
    await until(lambda: bool(server.requests), what="the request is with its pod")
    # Of the two ends, Envoy's is the one whose remote address is the server's.
    await until(lambda: _timers_to(server) == {"keepalive"}, what="its timer is set")
    server.release.set()
    assert (await caller).status == 200


def _timers_to(server: ModelServer) -> set[str]:
    """Which timers run on connections to a server: proc(5), ``tr`` of /proc/net/tcp."""
    address = bytes(map(int, server.host.split(".")))[::-1].hex().upper()
    remote = f"{address}:{server.port:04X}"
    names = {"00": "none", "01": "retransmit", "02": "keepalive"}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == remote and fields[3] == "01":
            found.add(names.get(fields[5].partition(":")[0], fields[5]))
    return found


async def test_a_large_upload_to_a_pod_that_is_gone_is_told_to_come_again(gateway: Gateway) -> None:
    revision = await sleeping(gateway)
    gone = Moody(fresh_address(), free_port())
    await gateway.cluster.ready(revision, gone)  # type: ignore[arg-type]
    # Larger than what Envoy keeps to send again.
    url = f"{gateway.url}/demo/models/iris"
    async with gateway.http.post(url, data=io.BytesIO(b"x" * 4 * 2**20)) as response:
        error = (await response.json())["error"]
        assert (response.status, error["reason"]) == (503, "Unavailable")
        assert int(response.headers["retry-after"]) >= 1


async def test_an_upload_that_comes_while_the_agent_is_away_waits_for_it(
    kube: FakeKube, server: ModelServer
) -> None:
    settings = gateway_settings()
    cluster = Cluster(kube)
    await cluster.deploy("iris")
    first, second = Agent(kube, settings), Agent(kube, settings)
    async with aiohttp.ClientSession() as http, envoy_of(first, settings):
        async with first.running():
            await until(lambda: not first.not_ready(), what="the first agent is ready")
        url = f"http://{settings.listen}/demo/models/iris"
        # Larger than what Envoy keeps to send again.
        caller = asyncio.create_task(http.post(url, data=io.BytesIO(b"x" * 4 * 2**20)))
        stat = f"http://{settings.envoy_admin}/stats?filter=http.cold.downstream_rq_active$"

        async def waits() -> bool:
            async with http.get(stat) as response:
                return (await response.text()).strip().endswith(": 1")

        await until(waits, what="the upload is at the cold listener")
        async with second.running():
            await until(lambda: second.cold.held() != {}, what="the second agent holds it")
            await cluster.ready("iris-production-1", server)
            async with await caller as response:
                assert response.status == 200
                assert (await response.json())["bytes"] == 4 * 2**20
