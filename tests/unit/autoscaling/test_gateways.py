"""Asking gateways for their load over HTTP, and what their silence does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from beamlit_operator.autoscaling import GatewayLoads
from beamlit_operator.autoscaling.loads import DeploymentKey

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def gateway(answer: Answer) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/load", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def reporting(name: str) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        load = {"concurrency": 1.0, "requestsTotal": 3, "held": 0}
        return web.json_response({"gateway": name, "deployments": {"team/iris": load}})

    return answer


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_every_gateway_that_answers_is_reported(session: aiohttp.ClientSession) -> None:
    async with gateway(reporting("a")) as one, gateway(reporting("b")) as other:
        urls = [f"http://127.0.0.1:{one}/load", f"http://localhost:{other}/load"]
        loads = await GatewayLoads(urls, session)()
    assert {load.gateway for load in loads.values()} == {"a", "b"}
    assert all(
        load.deployments[DeploymentKey("team/iris")].requests_total == 3 for load in loads.values()
    )


async def test_a_gateway_with_two_addresses_counts_once(session: aiohttp.ClientSession) -> None:
    async with gateway(reporting("a")) as port:
        urls = [f"http://127.0.0.1:{port}/load", f"http://127.0.0.1:{port}/load?again"]
        assert len(await GatewayLoads(urls, session)()) == 1


async def test_a_gateway_that_hangs_delays_nothing(session: aiohttp.ClientSession) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with gateway(hang) as hanging, gateway(reporting("b")) as healthy:
        urls = [f"http://127.0.0.1:{port}/load" for port in (hanging, healthy)]
        loads = await GatewayLoads(urls, session)()
    assert [load.gateway for load in loads.values()] == ["b"]


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"gateway": "g", "deployments": 7}'])
async def test_nonsense_is_no_report(session: aiohttp.ClientSession, body: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with gateway(answer) as port:
        assert await GatewayLoads([f"http://127.0.0.1:{port}/load"], session)() == {}


async def test_a_name_that_does_not_resolve_is_silence(session: aiohttp.ClientSession) -> None:
    assert await GatewayLoads(["http://gateway.invalid:1/load"], session)() == {}
