"""Everything moves at once, and no caller notices."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    ModelServer,
    envoy_of,
    gateway_settings,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.ads import AdsStream
from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.resources import ResourceType
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.kube import DEPLOYMENTS, Json

DEPLOYED = 6
STEPS = 120
ENDPOINTS: list[Json | None] = [
    None,
    {"maxConcurrency": 3, "maxQueued": 100},
    {"loadBalancing": "PromptPrefix"},
]
"""Each makes other clusters."""


@dataclass
class World:
    """Deployments that fall asleep, wake and move on to new revisions."""

    cluster: Cluster
    server: ModelServer
    awake: set[str] = field(default_factory=set)
    revision: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(DEPLOYED), 0))
    starting: set[asyncio.Task[None]] = field(default_factory=set)

    def name(self, number: int) -> str:
        return f"m{number}-r{self.revision[number]}"

    async def start(self, revision: str) -> None:
        deployment = f"{revision.rpartition('-')[0]}-production"
        await self.cluster.ready(revision, self.server, name=deployment)
        self.awake.add(revision)

    def scaled(self, _workspace: str, revision: str, _replicas: int) -> None:
        """A wake: the pod is ready a little later."""
        task = asyncio.create_task(self.start(revision))
        self.starting.add(task)
        task.add_done_callback(self.starting.discard)

    async def sleep(self, number: int) -> None:
        revision = self.name(number)
        if revision in self.awake:
            self.awake.discard(revision)
            await self.cluster.kube.put(
                DEPLOYMENTS,
                {"metadata": {"namespace": "demo", "name": revision}, "spec": {"replicas": 0}},
            )
            await self.cluster.ready(revision, name=f"m{number}-production")

    async def switch(self, number: int, *, started: bool, endpoint: Json | None) -> None:
        self.revision[number] += 1
        if started:
            await self.start(self.name(number))
        await self.cluster.deploy(
            f"m{number}", revisions={self.name(number): 100}, endpoint=endpoint
        )


async def test_sleeps_wakes_rollouts_and_agent_restarts_lose_no_request(
    kube: FakeKube, server: ModelServer
) -> None:
    choose = random.Random(7)
    settings = gateway_settings()
    world = World(Cluster(kube), server)
    kube.on_scale = world.scaled
    for number in world.revision:
        await world.cluster.deploy(f"m{number}", revisions={world.name(number): 100})
    answers: Counter[str] = Counter()
    going = True

    async def call(http: aiohttp.ClientSession) -> None:
        while going:
            url = f"http://{settings.listen}/demo/models/m{choose.randrange(DEPLOYED)}"
            body = b"x" * choose.choice([1, 1000, 100_000])
            async with http.request(choose.choice(["GET", "POST"]), url, data=body) as response:
                answers[f"{response.status} {'' if response.ok else await response.text()}"] += 1

    async with (
        aiohttp.ClientSession() as http,
        contextlib.AsyncExitStack() as running,
    ):
        agent, stop_agent = await _start(kube, settings)
        await running.enter_async_context(envoy_of(agent, settings))
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        callers = [asyncio.create_task(call(http)) for _ in range(8)]
        for step in range(STEPS):
            seen = answers.total()
            await until(lambda seen=seen: answers.total() > seen + 3, what="callers are answered")
            number = choose.randrange(DEPLOYED)
            if step % 40 == 20:
                await stop_agent.aclose()
                agent, stop_agent = await _start(kube, settings)
            elif choose.random() < 0.5:
                await world.sleep(number)
            else:
                endpoint = choose.choice(ENDPOINTS)
                await world.switch(number, started=choose.random() < 0.5, endpoint=endpoint)
        going = False
        await asyncio.gather(*callers)
        await stop_agent.aclose()
    assert set(answers) == {"200 "}


@pytest.mark.parametrize("anew", [False, True], ids=["a new cluster", "one that is made anew"])
async def test_an_agent_that_ends_while_a_cluster_warms_loses_no_request_to_the_next(
    kube: FakeKube, server: ModelServer, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    settings = gateway_settings()
    world = World(Cluster(kube), server)
    for number in (0, 1):
        await world.start(world.name(number))
        await world.switch(number, started=True, endpoint=None)
    answers: Counter[int] = Counter()
    going, mute = True, asyncio.Event()
    respond = AdsStream._respond

    def without_endpoints(stream: AdsStream, type_: ResourceType, names: set[str]) -> object:
        if mute.is_set() and type_ is ResourceType.ENDPOINTS:
            return None
        return respond(stream, type_, names)

    monkeypatch.setattr(AdsStream, "_respond", without_endpoints)

    async def call(http: aiohttp.ClientSession, number: int) -> None:
        while going:
            async with http.get(f"http://{settings.listen}/demo/models/m{number}") as response:
                answers[response.status] += 1

    async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as running:
        agent, stop_agent = await _start(kube, settings)
        await running.enter_async_context(envoy_of(agent, settings))
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        callers = [asyncio.create_task(call(http, number)) for number in (0, 1, 1, 1)]
        mute.set()
        if anew:
            await world.cluster.deploy(
                "m0", revisions={world.name(0): 100}, endpoint={"loadBalancing": "PromptPrefix"}
            )
        else:
            await world.switch(0, started=True, endpoint=None)

        async def warms() -> bool:
            async with http.get(f"http://{settings.envoy_admin}/stats?filter=warming_cl") as found:
                return "warming_clusters: 1" in await found.text()

        await until(warms, what="Envoy has a cluster without endpoints")
        await stop_agent.aclose()
        mute.clear()
        await world.switch(1, started=True, endpoint=None)
        agent, stop_agent = await _start(kube, settings)
        # Not only because Envoy gave up waiting for endpoints, which it does after 15 seconds.
        await until(lambda: not agent.not_ready(), what="the gateway is ready again", deadline=12)
        seen = answers.total()
        await until(lambda: answers.total() > seen + 50, what="callers are answered")
        going = False
        await asyncio.gather(*callers)
        await stop_agent.aclose()
    assert set(answers) == {200}


async def _start(
    kube: FakeKube, settings: GatewaySettings
) -> tuple[Agent, contextlib.AsyncExitStack]:
    stack = contextlib.AsyncExitStack()
    agent = await stack.enter_async_context(Agent(kube, settings).running())
    return agent, stack
