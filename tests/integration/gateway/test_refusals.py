"""What Envoy really refuses: said, and nobody else's problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    gateway_settings,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway import clusters, routes
from beamlit_operator.gateway.protos import Message
from beamlit_operator.kube import MODEL_DEPLOYMENTS

LOGICAL_NONSENSE = 6
"""``CLUSTER_PROVIDED``, which a cluster of type EDS has not: Envoy refuses the cluster."""


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters and routes of deployments with ``poison`` in their revision's name are refused."""
    cluster: Callable[..., Message] = clusters._pods
    serve: Callable[..., list[Message]] = routes.serve

    def bad_cluster(name: str, *arguments: Any, **more: Any) -> Message:
        message = cluster(name, *arguments, **more)
        if "poisonous" in name:
            message.lb_policy = LOGICAL_NONSENSE
        return message

    def bad_route(match: Any, deployment: Any, **more: Any) -> list[Message]:
        messages = serve(match, deployment, **more)
        if any("misrouted" in r.key.revision for r in deployment.revisions):
            for message in messages:
                # Both rewrites at once: Envoy refuses the whole route table for it.
                message.route.prefix_rewrite = "/"
                message.route.regex_rewrite.pattern.regex = "["
        return messages

    monkeypatch.setattr(clusters, "_pods", bad_cluster)
    monkeypatch.setattr(routes, "serve", bad_route)


async def load_report(gateway: Gateway) -> dict[str, Any]:
    async with gateway.http.get(f"http://{gateway.settings.admin}/load") as response:
        return dict(await response.json())


async def test_a_refused_cluster_is_told_by_deployment_until_it_is_mended(
    poisoned: None, gateway: Gateway, server: ModelServer
) -> None:
    for name in ("a", "b", "c"):
        revision = f"{name}-production-1" if name != "b" else "b-production-poisonous"
        await gateway.cluster.deploy(name, revisions={revision: 100})
        await gateway.cluster.ready(revision, server)

    async def told() -> bool:
        return list((await load_report(gateway))["refused"]) == ["demo/b-production"]

    await until(told, what="the refusal is told")
    message = (await load_report(gateway))["refused"]["demo/b-production"]
    assert message.startswith("Envoy refused cluster demo/b-production/b-production-poisonous: ")
    assert not gateway.agent.not_ready()
    await gateway.routed("/demo/models/a")
    await gateway.routed("/demo/models/c")
    await gateway.cluster.deploy("d")
    await gateway.cluster.ready("d-production-1", server)
    await gateway.routed("/demo/models/d")
    async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
        assert 'xds_refused_total{type="cluster"}' in await response.text()

    await gateway.cluster.deploy("b", revisions={"b-production-2": 100})
    await gateway.cluster.ready("b-production-2", server)
    await gateway.routed("/demo/models/b")

    async def mended() -> bool:
        return not (await load_report(gateway))["refused"]

    # The poisonous one goes when the requests on their way to it would be over.
    gateway.agent._drop(gateway.agent._translator.retired)
    await until(mended, what="nothing is refused")


async def test_a_refused_route_keeps_nobody_elses_from_coming_and_going(
    poisoned: None, gateway: Gateway, server: ModelServer
) -> None:
    await gateway.cluster.deploy("b")
    await gateway.cluster.ready("b-production-1", server)
    await gateway.routed("/demo/models/b")
    await gateway.cluster.deploy("b", revisions={"b-production-misrouted": 100})
    await gateway.cluster.deploy("a")
    await gateway.cluster.ready("a-production-1", server)
    await gateway.routed("/demo/models/a")

    async def told() -> bool:
        return list((await load_report(gateway))["refused"]) == ["demo/b-production"]

    await until(told, what="the refusal is told")
    # Its last good routes stay, and so does where they lead.
    gateway.agent._drop(gateway.agent._translator.retired)
    assert (await gateway.get("/demo/models/b"))[0] == 200
    await gateway.cluster.kube.remove(MODEL_DEPLOYMENTS, "demo", "a-production")
    await gateway.routed("/demo/models/a", status=404)
    await gateway.cluster.deploy("b", revisions={"b-production-1": 100})

    async def mended() -> bool:
        return not (await load_report(gateway))["refused"]

    await until(mended, what="nothing is refused")
    assert (await gateway.get("/demo/models/b"))[0] == 200


async def test_a_gateway_that_starts_with_poison_serves_all_the_others(
    poisoned: None, kube: FakeKube, server: ModelServer
) -> None:
    cluster = Cluster(kube)
    poison = {3: "m3-production-poisonous", 5: "m5-production-misrouted"}
    for number in range(8):
        revision = poison.get(number, f"m{number}-production-1")
        await cluster.deploy(f"m{number}", revisions={revision: 100})
        await cluster.ready(revision, server)
    async with running_gateway(kube, gateway_settings()) as gateway:
        for number in set(range(8)) - poison.keys():
            await gateway.routed(f"/demo/models/m{number}")
        assert set((await load_report(gateway))["refused"]) == {
            "demo/m3-production",
            "demo/m5-production",
        }
