"""What breaks around a gateway: its Envoy while callers wait, and the disk that it logs to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    envoy_of,
    gateway_settings,
    running_gateway,
    until,
)
from tests.integration.gateway.test_cold import ask, sleeping
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.agent import Agent


async def test_an_envoy_that_is_killed_while_it_holds_requests_costs_those_alone(
    kube: FakeKube, server: ModelServer
) -> None:
    settings = gateway_settings()
    cluster = Cluster(kube)
    agent = Agent(kube, settings)
    async with (
        aiohttp.ClientSession() as http,
        agent.running(),
        envoy_of(agent, settings) as envoy,
    ):
        gateway = Gateway(settings, cluster, agent, http)
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        revision = await sleeping(gateway)
        held = [await ask(gateway), await ask(gateway)]
        first = envoy.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        # The connection ends at once, and so nobody takes silence for an answer.
        for each in await asyncio.gather(*held, return_exceptions=True):
            assert isinstance(each, aiohttp.ClientError), each
        await until(lambda: gateway.held() == 0, what="nobody is waited for")
        await until(lambda: envoy.pid not in (None, first), what="another Envoy runs")
        await until(lambda: not agent.not_ready(), what="the gateway is ready again")
        # The start that they asked for goes on, and whoever comes next waits for the same one.
        again = await ask(gateway)
        await gateway.cluster.ready(revision, server)
        assert (await again)[0] == 200
        assert gateway.cluster.scales == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
async def test_a_disk_that_is_full_costs_lines_of_the_access_log_and_no_request(
    kube: FakeKube, server: ModelServer
) -> None:
    async with running_gateway(kube, gateway_settings(access_log="/dev/full")) as gateway:
        revision = await sleeping(gateway)
        caller = await ask(gateway)
        await gateway.cluster.ready(revision, server)
        assert (await caller)[0] == 200

        async def lost() -> bool:
            assert (await gateway.get("/demo/models/iris"))[0] == 200
            url = f"http://{gateway.settings.envoy_admin}/stats?filter=filesystem.write_failed"
            async with gateway.http.get(url) as response:
                return int((await response.text()).rpartition(":")[2]) > 0

        await until(lost, what="Envoy could not write its lines")
        assert (await gateway.get("/demo/models/iris"))[0] == 200
        assert not gateway.agent.not_ready()
