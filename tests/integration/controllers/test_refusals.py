"""A gateway tells that its Envoy refuses something; the operator tells people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from tests.integration.controllers.conftest import TEAM, Lab
from tests.integration.controllers.test_operator import ALL

from beamlit_operator.kube import EVENTS, MODEL_DEPLOYMENTS, NAMESPACES, Json


@dataclass
class PretendedGateway:
    """Answers the autoscaler's question."""

    url: str
    refused: dict[str, str] = field(default_factory=dict)


@pytest.fixture
async def gateway(unused_tcp_port: int) -> AsyncIterator[PretendedGateway]:
    pretended = PretendedGateway(f"http://127.0.0.1:{unused_tcp_port}/load")

    async def load(_: web.Request) -> web.Response:
        return web.json_response({"gateway": "a", "deployments": {}, "refused": pretended.refused})

    app = web.Application()
    app.router.add_get("/load", load)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    yield pretended
    await runner.cleanup()


async def test_what_a_gateway_refuses_is_a_condition_and_an_event_until_it_is_taken(
    lab: Lab, gateway: PretendedGateway
) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "beamlit-system"}}
    await lab.client.apply(NAMESPACES, space, field_manager="user")
    await lab.apply(ALL)
    operator = await lab.start_operator(gateway_load=(gateway.url,))
    await lab.until_ready("Idle")

    async def programmed() -> Json:
        found = await lab.get(MODEL_DEPLOYMENTS, "iris") or {}
        conditions = found.get("status", {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == "Programmed"), {})

    async def refused() -> bool:
        return (await programmed()).get("reason") == "GatewayRefused"

    assert not await refused()
    words = "Envoy refused cluster team/iris/iris-1: no such thing"
    gateway.refused = {f"{TEAM}/iris": words, "gateway": "Envoy refused listener main: port taken"}
    await lab.until(refused, "the condition is there", show=MODEL_DEPLOYMENTS, name="iris")
    assert (await programmed())["message"] == words

    async def told_on_the_namespace() -> bool:
        found = await lab.client.list(EVENTS, "beamlit-system")
        return [
            (e["reason"], e["involvedObject"]["kind"], e["message"])
            for e in found.items
            if e["reason"] == "GatewayRefused"
        ] == [("GatewayRefused", "Namespace", "Envoy refused listener main: port taken")]

    await lab.until(told_on_the_namespace, "an Event stands on the gateways' namespace")

    async def told() -> bool:
        return (await lab.events("iris")).count("GatewayRefused") == 1

    await lab.until(told, "one Event stands on the deployment")
    # A restarted operator that has not heard the gateway yet leaves the condition alone.
    await lab.settle()
    await lab.stop_operator()
    operator = await lab.start_operator(gateway_load=(gateway.url,))
    await lab.settle()
    assert operator.writer.writes == 0
    assert await refused()
    gateway.refused = {}

    async def over() -> bool:
        return not await programmed()

    await lab.until(over, "the condition is gone", show=MODEL_DEPLOYMENTS, name="iris")
