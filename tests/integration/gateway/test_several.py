"""Two gateways side by side: one goes, and no caller notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    gateway_settings,
    running_gateway,
    until,
)
from tests.integration.gateway.test_program import Program, _objects, api_server
from tests.support.fakekube import FakeKube

from beamlit_operator.autoscaling import DeploymentKey, GatewayLoads
from beamlit_operator.autoscaling.loads import LoadMerger
from beamlit_operator.gateway.process import EnvoyAdmin

IRIS = DeploymentKey("demo/iris-production")


class Caller:
    """Prefers the first gateway that is ready, as what stands before gateways does; a refused
    connection is tried at the next one, as nobody has seen the request."""

    def __init__(self, programs: list[Program]) -> None:
        self.programs = programs
        self.ready = list(programs)
        self.seen: Counter[str] = Counter()
        self.going = True

    async def watch(self, http: aiohttp.ClientSession) -> None:
        """Looks at readiness four times a second."""
        while self.going:
            self.ready = [p for p in self.programs if await self._is_ready(http, p)]
            await asyncio.sleep(0.25)

    async def _is_ready(self, http: aiohttp.ClientSession, program: Program) -> bool:
        try:
            async with http.get(f"http://127.0.0.1:{program.admin}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def call(self, http: aiohttp.ClientSession) -> None:
        while self.going:
            for program in self.ready or self.programs:
                url = f"http://127.0.0.1:{program.listen}/demo/models/iris"
                try:
                    async with http.get(url) as response:
                        await response.read()
                except aiohttp.ClientConnectorError:
                    continue
                name = self.programs.index(program)
                self.seen[f"{name}: {response.status}"] += 1
                break
            else:
                self.seen["nowhere"] += 1


async def test_a_gateway_that_ends_under_load_loses_no_request(
    tmp_path: Path, server: ModelServer
) -> None:
    async with (
        api_server(*_objects(server)) as api,
        aiohttp.ClientSession() as http,
        contextlib.AsyncExitStack() as running,
    ):
        programs = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            programs.append(Program(tmp_path / name, api))
        first, _ = [
            await running.enter_async_context(program.running("--drain-delay", "1.5"))
            for program in programs
        ]
        for program in programs:
            await program.ready(http)
        caller = Caller(programs)
        calls = [asyncio.create_task(caller.call(http)) for _ in range(8)]
        watch = asyncio.create_task(caller.watch(http))
        await until(lambda: caller.seen["0: 200"] > 100, what="the first one serves", deadline=60)
        first.terminate()
        assert await asyncio.wait_for(first.wait(), 60) == 0
        served = caller.seen["1: 200"]
        await until(
            lambda: caller.seen["1: 200"] > served + 100, what="the second one serves", deadline=60
        )
        caller.going = False
        await asyncio.gather(*calls, watch)
        assert set(caller.seen) == {"0: 200", "1: 200"}


async def test_a_gateway_is_ready_only_while_envoy_has_its_configuration(
    gateway: Gateway, server: ModelServer
) -> None:
    async def answers(path: str) -> int:
        async with gateway.http.get(f"http://{gateway.settings.admin}{path}") as response:
            return response.status

    async def envoy_process() -> int:
        async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/server_info") as found:
            arguments = (await found.json())["command_line_options"]
        return pid_of(str(arguments["config_path"]))

    assert await answers("/readyz") == 200
    await gateway.cluster.deploy("iris")
    await gateway.cluster.ready("iris-production-1", server)
    await gateway.routed()
    os.kill(await envoy_process(), signal.SIGKILL)
    await until(lambda: gateway.agent.not_ready() != "", what="it is not ready without Envoy")
    assert await answers("/healthz") == 200
    # The agent starts another one, which is told everything before callers may come.
    await until(lambda: not gateway.agent.not_ready(), what="it is ready again")
    await gateway.routed()


def pid_of(config: str) -> int:
    """The process that was started with this configuration."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and config in (entry / "cmdline").read_text().split("\0"):
                return int(entry.name)
    raise AssertionError(f"no process was started with {config}")


@pytest.fixture
async def two(kube: FakeKube) -> AsyncIterator[tuple[Gateway, Gateway]]:
    settings = [replace(gateway_settings(), gateway_id=name) for name in ("a", "b")]
    async with running_gateway(kube, settings[0]) as a, running_gateway(kube, settings[1]) as b:
        yield a, b


async def test_the_autoscaler_sees_the_sum_of_both(
    two: tuple[Gateway, Gateway], kube: FakeKube, server: ModelServer
) -> None:
    await Cluster(kube).deploy("iris")
    await Cluster(kube).ready("iris-production-1", server)
    for gateway in two:
        await gateway.routed()
    async with contextlib.AsyncExitStack() as stack:
        for gateway, count in zip(two, (2, 3), strict=True):
            for _ in range(count):
                url = f"{gateway.url}/demo/models/iris?wait=1"
                stack.push_async_callback(
                    _finish, server, asyncio.create_task(_status(gateway.http, url))
                )
        urls = [f"http://{gateway.settings.admin}/load" for gateway in two]
        loads, merger = GatewayLoads(urls, two[0].http), LoadMerger()

        async def merged() -> bool:
            for address, load in (await loads()).items():
                merger.record(address, load, now_seconds=0.0)
            found = merger.samples(now_seconds=0.0).get(IRIS)
            return found is not None and found.concurrency == 5

        await until(merged, what="five are in progress, at both together")


async def test_what_is_held_when_the_gateway_ends_may_come_again(
    gateway: Gateway, server: ModelServer
) -> None:
    await gateway.cluster.deploy("iris")
    await until(lambda: gateway.exists("iris-production-1"), what="it is known")
    url = f"{gateway.url}/demo/models/iris"
    held: list[asyncio.Task[int]] = []

    async def is_held() -> bool:
        if not held or held[-1].done():
            held.append(asyncio.create_task(_status(gateway.http, url)))
        return gateway.held() > 0

    await until(is_held, what="a request is held")
    admin = EnvoyAdmin(gateway.settings)
    assert not await admin.drain(0.5, delay=0.0)
    gateway.agent.cold.drain()
    assert await held[-1] == 503
    assert await admin.quiet(10.0)
    # Connections are still taken while Envoy is there, and nobody waits any more.
    async with gateway.http.get(url) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert (await response.json())["error"]["reason"] == "Draining"
    # What runs is served to the end.
    await gateway.cluster.ready("iris-production-1", server)
    await gateway.routed()


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status


async def _finish(server: ModelServer, task: asyncio.Task[int]) -> None:
    server.release.set()
    assert await task == 200
