"""Requests for deployments that sleep, through a real Envoy."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import aiohttp
import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    envoy_of,
    gateway_settings,
    model_server,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.balancing import PREFIX_HEADER
from beamlit_operator.gateway.names import AGENT_CLUSTER, CLUSTER_HEADER, WAY_HEADER
from beamlit_operator.kube import DEPLOYMENTS, ENDPOINT_SLICES, MODEL_DEPLOYMENTS, ApiError


async def ask(gateway: Gateway, path: str = "/demo/models/iris") -> asyncio.Task:  # type: ignore[type-arg]
    """Calls in the background, and waits until the request is held."""
    before = gateway.held()
    task = asyncio.create_task(gateway.get(path))
    await until(lambda: gateway.held() > before or task.done(), what="the request is held")
    return task


async def sleeping(gateway: Gateway, **fields: object) -> str:
    """A deployment without pods that Envoy knows of; answers its revision."""
    name = await gateway.cluster.deploy("iris", **fields)
    await until(lambda: gateway.exists(f"{name}-1"), what="the gateway knows the deployment")
    # A canary of this Envoy: its route table is there once this answers.
    await gateway.cluster.deploy("off", enabled=False)

    async def known() -> bool:
        _, body = await gateway.get("/demo/models/off")
        return body["error"]["reason"] == "Deactivated"

    await until(known, what="Envoy knows the deployment")
    return f"{name}-1"


async def test_twenty_concurrent_callers_wake_once_and_are_all_answered(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    callers = [asyncio.create_task(gateway.get("/demo/models/iris/v1")) for _ in range(20)]
    await until(lambda: gateway.held() == 20, what="all are held")
    await until(lambda: gateway.cluster.scales == 1, what="it is woken")
    await gateway.cluster.ready(revision, server)
    answers = await asyncio.gather(*callers)
    assert {status for status, _ in answers} == {200}
    assert {body["target"] for _, body in answers} == {"/v1"}
    assert gateway.held() == 0
    assert gateway.cluster.scales == 1


async def test_a_workload_that_has_replicas_is_left_to_the_autoscaler(
    gateway: Gateway, server: ModelServer, kube: FakeKube
) -> None:
    revision = await sleeping(gateway)
    await kube.put(
        DEPLOYMENTS, {"metadata": {"namespace": "demo", "name": revision}, "spec": {"replicas": 3}}
    )
    caller = await ask(gateway)
    await until(lambda: kube.calls[("get", "deployments/scale")] > 0, what="the scale was read")
    await gateway.cluster.ready(revision, server)
    assert (await caller)[0] == 200
    assert gateway.cluster.scales == 0


async def test_a_forged_destination_is_ignored_cold_and_warm(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    async with model_server("victim") as victim:
        forged = {
            "destination": f"{victim.host}:{victim.port}",
            "x-envoy-original-dst-host": f"{victim.host}:{victim.port}",
            CLUSTER_HEADER: "other/deployment/revision",
            WAY_HEADER: AGENT_CLUSTER,
            PREFIX_HEADER: "0",
        }
        cold = asyncio.create_task(gateway.get("/demo/models/iris", headers=forged))
        await until(lambda: gateway.held() == 1, what="the request is held")
        await gateway.cluster.ready(revision, server)
        for answer in (await cold, await gateway.get("/demo/models/iris", headers=forged)):
            assert answer[0] == 200
            assert answer[1]["server"] == "model"
            assert answer[1]["headers"][CLUSTER_HEADER] == f"demo/iris-production/{revision}"
            assert WAY_HEADER not in answer[1]["headers"]
        assert victim.requests == []


async def test_a_large_upload_is_held_and_arrives_whole(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    size = 50 * 1024 * 1024
    sent = 0

    async def body():  # type: ignore[no-untyped-def]
        nonlocal sent
        chunk = b"x" * 65536
        while sent < size:
            sent += len(chunk)
            yield chunk

    async def upload() -> dict[str, object]:
        url = f"{gateway.url}/demo/models/iris"
        async with gateway.http.post(url, data=body()) as response:
            assert response.status == 200
            return await response.json()

    caller = asyncio.create_task(upload())
    await until(lambda: gateway.held() == 1, what="the upload is held")
    # Held by flow control: the bytes stay with the caller, not in Envoy.
    assert sent < size
    await gateway.cluster.ready(revision, server)
    assert (await caller)["bytes"] == size


async def test_a_failed_start_answers_every_caller_with_the_pods_reason(
    gateway: Gateway,
) -> None:
    await sleeping(gateway)
    callers = [await ask(gateway) for _ in range(3)]
    await gateway.cluster.deploy(
        "iris",
        replicas=1,
        problem=("StartFailed", "container model: CrashLoopBackOff: no module named torch"),
        since="2025-01-01T00:01:00Z",
    )
    began = time.monotonic()
    for status, body in await asyncio.gather(*callers):
        assert status == 503
        assert body["error"]["reason"] == "StartFailed"
        assert "no module named torch" in body["error"]["message"]
    assert time.monotonic() - began < 15
    # The next one is told at once, when to come again too, and nothing is started.
    async with gateway.http.get(f"{gateway.url}/demo/models/iris") as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) >= 1
    assert gateway.cluster.scales == 1


async def test_a_scale_that_is_refused_for_good_is_said_at_once(
    gateway: Gateway, kube: FakeKube
) -> None:
    await sleeping(gateway)
    kube.refuse_scale = ApiError(403, "Forbidden", "beamlit-gateway may not patch deployments")
    status, body = await gateway.get("/demo/models/iris")
    assert (status, body["error"]["reason"]) == (503, "WakeRefused")
    assert "may not patch" in body["error"]["message"]


async def test_a_scale_that_is_refused_for_now_is_tried_again(
    gateway: Gateway, server: ModelServer, kube: FakeKube
) -> None:
    revision = await sleeping(gateway)
    kube.refuse_scale = ApiError(409, "Conflict", "changed meanwhile")
    caller = await ask(gateway)
    await until(lambda: gateway.cluster.scales > 1, what="it is tried again")
    kube.refuse_scale = None
    await gateway.cluster.ready(revision, server)
    assert (await caller)[0] == 200


async def test_a_caller_that_hangs_up_is_forgotten(gateway: Gateway) -> None:
    await sleeping(gateway)
    caller = await ask(gateway)
    caller.cancel()
    await until(lambda: gateway.held() == 0, what="the caller is forgotten")


async def test_a_caller_that_hangs_up_cancels_the_work_of_a_woken_pod(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    caller = await ask(gateway, "/demo/models/iris?wait=1")
    await gateway.cluster.ready(revision, server)
    await until(lambda: len(server.requests) == 1, what="the request arrived")
    caller.cancel()
    await until(lambda: server.cancelled == 1, what="the pod's work is cancelled")


async def test_a_start_that_takes_too_long_is_a_504(kube: FakeKube) -> None:
    async with running_gateway(kube, gateway_settings(start_deadline=0.3)) as gateway:
        await sleeping(gateway)
        status, body = await gateway.get("/demo/models/iris")
    assert (status, body["error"]["reason"]) == (504, "StartTimeout")


async def test_more_callers_than_places_get_a_429(kube: FakeKube) -> None:
    async with running_gateway(kube, gateway_settings(max_held_per_deployment=2)) as gateway:
        await sleeping(gateway)
        held = [await ask(gateway) for _ in range(2)]
        async with gateway.http.get(f"{gateway.url}/demo/models/iris") as response:
            assert response.status == 429
            assert response.headers["retry-after"] == "1"
            assert (await response.json())["error"]["reason"] == "TooManyHeld"
        for task in held:
            task.cancel()


async def test_traffic_that_moves_while_callers_wait_takes_them_along(
    gateway: Gateway, server: ModelServer
) -> None:
    await sleeping(gateway)
    caller = await ask(gateway)
    await gateway.cluster.deploy("iris", revisions={"iris-production-2": 100})
    await until(lambda: gateway.cluster.scales == 2, what="the new revision is woken")
    await gateway.cluster.ready("iris-production-2", server)
    assert (await caller)[0] == 200


async def test_a_pod_that_was_lost_leads_back_to_the_cold_listener(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    await gateway.cluster.ready(revision, server)
    await gateway.routed()
    await gateway.cluster.ready(revision)
    # Until Envoy has heard of it, the pod still answers.
    while (caller := await ask(gateway)).done():
        pass
    await until(lambda: gateway.cluster.scales == 1, what="it is woken")
    await gateway.cluster.ready(revision, server)
    assert (await caller)[0] == 200


async def test_a_websocket_to_a_sleeping_deployment_is_held_too(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)

    async def talk() -> str:
        async with gateway.http.ws_connect(f"{gateway.url}/demo/models/iris") as connection:
            await connection.send_str("hello")
            return await connection.receive_str()

    caller = asyncio.create_task(talk())
    await until(lambda: gateway.held() == 1, what="the handshake is held")
    await gateway.cluster.ready(revision, server)
    assert await caller == "model: hello"


async def test_with_the_api_server_away_what_runs_is_served_and_what_sleeps_waits(
    gateway: Gateway, server: ModelServer, kube: FakeKube
) -> None:
    revision = await sleeping(gateway)
    await gateway.cluster.deploy("rose")
    await gateway.cluster.ready("rose-production-1", server)
    await gateway.routed("/demo/models/rose")
    await kube.set_away(True)
    assert (await gateway.get("/demo/models/rose"))[0] == 200
    caller = await ask(gateway)
    assert (await gateway.get("/demo/models/rose"))[0] == 200
    await kube.set_away(False)
    await until(lambda: gateway.cluster.scales == 1, what="it is woken")
    await gateway.cluster.ready(revision, server)
    assert (await caller)[0] == 200


async def test_load_names_what_is_in_flight_and_what_is_held(
    gateway: Gateway, server: ModelServer
) -> None:
    revision = await sleeping(gateway)
    url = f"http://{gateway.settings.admin}/load"

    async def load() -> dict[str, float]:
        async with gateway.http.get(url) as response:
            report = await response.json()
        assert report["gateway"] == "test"
        return report["deployments"].get("demo/iris-production", {})

    assert await load() == {}
    callers = [await ask(gateway, "/demo/models/iris?wait=1") for _ in range(3)]

    async def all_held() -> bool:
        return await load() == {"concurrency": 0.0, "requestsTotal": 3, "held": 3}

    await until(all_held, what="three are held")
    await gateway.cluster.ready(revision, server)

    async def all_running() -> bool:
        now = await load()
        return (now["concurrency"], now["held"]) == (3.0, 0)

    await until(all_running, what="three run")
    server.release.set()
    await asyncio.gather(*callers)

    async def idle() -> bool:
        now = await load()
        return (now["concurrency"], now["held"]) == (0.0, 0) and now["requestsTotal"] >= 3

    await until(idle, what="none runs")


IRIS = (
    '{deployment="iris-production",environment="production",model="iris",'
    'revision="iris-production-1",workspace="demo"}'
)


async def test_metrics_and_health_are_served(gateway: Gateway) -> None:
    root = f"http://{gateway.settings.admin}"
    for path in ("/healthz", "/readyz"):
        async with gateway.http.get(root + path) as response:
            assert response.status == 200
    await sleeping(gateway)
    caller = await ask(gateway)
    lines = {
        f"beamlit_gateway_requests_held{IRIS} 1.0",
        f"beamlit_gateway_wakes_total{IRIS} 1.0",
    }

    async def counted() -> bool:
        async with gateway.http.get(f"{root}/metrics") as response:
            return lines <= set((await response.text()).splitlines())

    await until(counted, what="the request and the wake are counted")
    caller.cancel()


async def test_nothing_is_kept_of_a_deployment_that_is_gone(
    gateway: Gateway, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamlit_operator.gateway.agent.RETIREMENT", 0.3)
    revision = await sleeping(gateway)
    caller = await ask(gateway)
    await gateway.cluster.ready(revision, server)
    assert (await caller)[0] == 200
    await until(lambda: any(gateway.agent.book.revisions()), what="Envoy reports the load")
    await gateway.cluster.kube.remove(ENDPOINT_SLICES, "demo", f"{revision}-a")
    await gateway.cluster.kube.remove(MODEL_DEPLOYMENTS, "demo", "iris-production")

    async def forgotten() -> bool:
        async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
            counted = "iris-production" in await response.text()
        return not counted and not any(gateway.agent.book.revisions())

    await until(forgotten, what="its metrics and its load are dropped")


@pytest.mark.parametrize("path", ["/demo/models/iris"])
async def test_an_agent_that_restarts_leaves_envoy_serving(
    kube: FakeKube, server: ModelServer, path: str
) -> None:
    from tests.integration.gateway.conftest import Cluster, envoy_of

    from beamlit_operator.gateway.agent import Agent

    settings = gateway_settings()
    cluster = Cluster(kube)
    await cluster.deploy("iris")
    await cluster.ready("iris-production-1", server)
    await cluster.deploy("rose")
    first, second = Agent(kube, settings), Agent(kube, settings)
    async with aiohttp.ClientSession() as http, envoy_of(first, settings):
        async with first.running():
            await until(lambda: not first.not_ready(), what="the first agent is ready")
            gateway = Gateway(settings, cluster, first, http)
            assert (await gateway.get(path))[0] == 200
        assert (await gateway.get(path))[0] == 200
        async with second.running():
            await until(lambda: not second.not_ready(), what="the second agent is ready")
            gateway.agent = second
            assert (await gateway.get(path))[0] == 200
            sent = second.metrics.registry.get_sample_value(
                "beamlit_gateway_xds_resources_total", {"type": "cluster"}
            )
            assert not sent, "what Envoy has already was sent again"
            caller = await ask(gateway, "/demo/models/rose")
            await cluster.ready("rose-production-1", server)
            assert (await caller)[0] == 200


async def test_envoy_is_started_again_when_it_dies(kube: FakeKube, server: ModelServer) -> None:

    from tests.integration.gateway.conftest import Cluster, envoy_of

    from beamlit_operator.gateway.agent import Agent

    settings = gateway_settings()
    cluster = Cluster(kube)
    await cluster.deploy("iris")
    await cluster.ready("iris-production-1", server)
    agent = Agent(kube, settings)
    async with (
        aiohttp.ClientSession() as http,
        agent.running(),
        envoy_of(agent, settings) as envoy,
    ):
        gateway = Gateway(settings, cluster, agent, http)
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        first = envoy.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: bool(agent.not_ready()), what="the gateway is not ready")
        await until(lambda: envoy.pid not in (None, first), what="another Envoy runs")
        await until(lambda: not agent.not_ready(), what="the gateway is ready again")
        assert (await gateway.get("/demo/models/iris"))[0] == 200


async def test_a_request_that_is_held_survives_a_restart_of_the_agent(
    kube: FakeKube, server: ModelServer
) -> None:
    settings = gateway_settings()
    cluster = Cluster(kube)
    await cluster.deploy("iris")
    first, second = Agent(kube, settings), Agent(kube, settings)
    async with aiohttp.ClientSession() as http, envoy_of(first, settings):
        gateway = Gateway(settings, cluster, first, http)
        async with first.running():
            await until(lambda: not first.not_ready(), what="the first agent is ready")
            caller = await ask(gateway)
        async with second.running():
            await until(lambda: second.cold.held() != {}, what="the second agent holds it")
            await cluster.ready("iris-production-1", server)
            assert (await caller)[0] == 200


async def test_without_an_agent_a_cold_request_gets_a_503_in_our_shape(kube: FakeKube) -> None:
    settings = gateway_settings(agent_patience=0.0)
    cluster = Cluster(kube)
    await cluster.deploy("iris")
    agent = Agent(kube, settings)
    async with aiohttp.ClientSession() as http, envoy_of(agent, settings):
        gateway = Gateway(settings, cluster, agent, http)
        async with agent.running():
            await until(lambda: not agent.not_ready(), what="the agent is ready")
        status, body = await gateway.get("/demo/models/iris")
    assert (status, body["error"]["code"]) == (503, 503)
    assert body["error"]["reason"] == "GatewayError"
