"""Waiting for the last requests, against an administration interface of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientTimeout, web

from beamlit_operator.gateway import process
from beamlit_operator.gateway.process import EnvoyAdmin
from beamlit_operator.gateway.settings import Address, GatewaySettings


class Envoy:
    """Answers how many requests are in flight; None is no answer."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)

    async def stats(self, _: web.Request) -> web.Response:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.Event().wait()
        return web.Response(text=f"http.main.downstream_rq_active: {answer}\n")


@asynccontextmanager
async def admin(envoy: Envoy, port: int) -> AsyncIterator[EnvoyAdmin]:
    app = web.Application()
    app.router.add_get("/stats", envoy.stats)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield EnvoyAdmin(GatewaySettings(envoy_admin=Address("127.0.0.1", port)))
    finally:
        await runner.cleanup()


async def test_an_envoy_too_busy_to_answer_is_not_taken_for_one_without_requests(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_TIMEOUT", ClientTimeout(total=0.5))
    envoy = Envoy(None, 1, 0)
    async with admin(envoy, unused_tcp_port) as asked:
        assert await asked.quiet(30)
    assert envoy.answers == [0]


async def test_requests_that_do_not_end_are_waited_for_no_longer_than_said(
    unused_tcp_port: int,
) -> None:
    async with admin(Envoy(1), unused_tcp_port) as asked:
        assert not await asked.quiet(0.3)


async def test_an_envoy_that_is_gone_has_no_request(unused_tcp_port: int) -> None:
    settings = GatewaySettings(envoy_admin=Address("127.0.0.1", unused_tcp_port))
    assert await EnvoyAdmin(settings).quiet(30)
