"""Single probe attempts against real servers on loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from tests.support.ports import free_port

from beamlit_operator.devcluster.kubelet.probes import ProbeError, Target, attempt
from beamlit_operator.devcluster.kubelet.probing import Prober, Verdict

Attempt = Any


def target(port: int = 0, **environment: str) -> Target:
    return Target("127.0.0.1", {"web": port}, environment, Path("/"), lambda text: text)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


@pytest.fixture
async def server() -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        code = int(request.match_info["code"])
        return web.Response(status=code, headers={"Location": "/status/500"})

    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    application = web.Application()
    application.router.add_get("/status/{code}", answer)
    application.router.add_get("/hang", hang)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("code", "passes"), [(200, True), (302, True), (404, False), (503, False)])
async def test_an_http_probe_passes_below_400_and_follows_no_redirect(
    server: int, session: aiohttp.ClientSession, code: int, passes: bool
) -> None:
    probe = {"httpGet": {"path": f"/status/{code}", "port": "web"}}
    if passes:
        await attempt(probe, target(server), session, timeout=60)
    else:
        with pytest.raises(ProbeError, match=f"HTTP probe failed with statuscode: {code}"):
            await attempt(probe, target(server), session, timeout=60)


async def test_a_server_that_hangs_fails_the_attempt_in_time(
    server: int, session: aiohttp.ClientSession
) -> None:
    probe = {"httpGet": {"path": "/hang", "port": server}}
    with pytest.raises(ProbeError, match="timed out"):
        await attempt(probe, target(), session, timeout=0.1)


async def test_a_tcp_probe_wants_somebody_who_listens(
    server: int, session: aiohttp.ClientSession, unused_port: int
) -> None:
    await attempt({"tcpSocket": {"port": server}}, target(), session, timeout=60)
    with pytest.raises(ProbeError, match="refused"):
        await attempt({"tcpSocket": {"port": unused_port}}, target(), session, timeout=60)


@pytest.fixture
def unused_port() -> int:
    return free_port()


async def test_an_exec_probe_goes_by_the_exit_code(session: aiohttp.ClientSession) -> None:
    code = "import os, sys; print('sick'); sys.exit(int(os.environ['CODE']))"
    probe = {"exec": {"command": [sys.executable, "-c", code]}}
    await attempt(probe, target(CODE="0"), session, timeout=60)
    with pytest.raises(ProbeError, match="sick"):
        await attempt(probe, target(CODE="1"), session, timeout=60)


async def test_a_port_name_that_does_not_exist_is_named(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ProbeError, match="couldn't find port: admin"):
        await attempt({"tcpSocket": {"port": "admin"}}, target(), session, timeout=1)


@pytest.mark.parametrize(("answer", "passes"), [(b"\x08\x01", True), (b"\x08\x02", False)])
async def test_a_grpc_probe_asks_the_health_service(
    session: aiohttp.ClientSession, answer: bytes, passes: bool
) -> None:
    asked: list[bytes] = []

    async def check(request: bytes, _: Any) -> bytes:
        asked.append(request)
        return answer

    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        probe = {"grpc": {"port": port, "service": "model"}}
        if passes:
            await attempt(probe, target(), session, timeout=60)
        else:
            with pytest.raises(ProbeError, match="unhealthy"):
                await attempt(probe, target(), session, timeout=60)
    finally:
        await server.stop(0)
    assert asked == [b"\n\x05model"]


async def first_ready(prober: Prober, seen: list[Verdict]) -> None:
    async for verdict in prober.verdicts():
        seen.append(verdict)
        if verdict.ready:
            return


async def test_a_server_that_comes_up_between_two_periods_is_noticed_at_once(
    session: aiohttp.ClientSession, unused_port: int
) -> None:
    spec = {"readinessProbe": {"tcpSocket": {"port": unused_port}, "periodSeconds": 30}}
    seen: list[Verdict] = []
    watching = asyncio.create_task(first_ready(Prober(spec, target(), session), seen))
    while not seen:
        await asyncio.sleep(0.001)
    assert (seen[0].started, seen[0].ready) == (True, False)
    loop = asyncio.get_running_loop()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", unused_port)
    began = loop.time()
    await asyncio.wait_for(watching, 30)
    assert loop.time() - began < 15
    assert all(verdict.event is None for verdict in seen)
    server.close()
    await server.wait_closed()
