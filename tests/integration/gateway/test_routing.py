"""Which request goes where, through a real Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.integration.gateway.conftest import (
    Gateway,
    ModelServer,
    fresh_address,
    model_server,
    until,
)
from yarl import URL


@pytest.mark.parametrize(
    ("asked", "received"),
    [
        ("/demo/models/iris", "/"),
        ("/demo/models/iris/", "/"),
        ("/demo/models/iris?a=b", "/?a=b"),
        ("/demo/models/iris/v2/models/x/infer", "/v2/models/x/infer"),
        ("/demo/models/iris/v2?environment=production", "/v2?environment=production"),
        ("/demo/models/iris//a%2Fb/../c", "//a%2Fb/../c"),
    ],
)
async def test_a_request_by_path_reaches_the_pod_without_its_prefix_and_else_as_sent(
    gateway: Gateway, server: ModelServer, asked: str, received: str
) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    async with gateway.http.get(URL(f"{gateway.url}{asked}", encoded=True)) as response:
        assert response.status == 200
        assert (await response.json())["target"] == received
    assert gateway.cluster.scales == 0


async def test_a_deployment_answers_by_its_host_and_by_its_service_names(
    gateway: Gateway, server: ModelServer
) -> None:
    name = await gateway.cluster.deploy("iris", environment="staging", name="my-iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed("/demo/models/iris?environment=staging")
    for host in (
        "iris-staging.demo.models.test",
        "Iris-Staging.demo.models.test:8080",
        "my-iris.demo",
        "my-iris.demo.svc",
        "my-iris.demo.svc.cluster.local",
    ):
        status, body = await gateway.get("/v2/health", headers={"host": host})
        assert (status, body.get("target")) == (200, "/v2/health"), host


async def test_every_kind_of_wrong_address_gets_a_404_that_says_which(gateway: Gateway) -> None:
    await gateway.cluster.deploy("iris")
    await gateway.cluster.deploy("mnist", environment="staging")
    await gateway.cluster.deploy("off", enabled=False)
    await gateway.routed("/demo/models/off", status=404)

    async def unknown(path: str) -> bool:
        return (await gateway.get(path))[1]["error"]["reason"] == "Deactivated"

    await until(lambda: unknown("/demo/models/off"), what="the route table is there")
    for path, reason, mentions in [
        ("/nowhere/models/iris", "UnknownWorkspace", "workspace"),
        ("/demo/models/rose", "UnknownModel", "'demo'"),
        ("/demo/models/irises/v2", "UnknownModel", "/demo/models/irises/v2"),
        ("/demo/models/iris?environment=dev", "UnknownEnvironment", "production"),
        ("/demo/models/mnist", "UnknownEnvironment", "staging"),
        ("/demo/models/off", "Deactivated", "'off'"),
        ("/", "NotFound", "/<workspace>/models/<model>"),
        ("/demo", "NotFound", "/<workspace>/models/<model>"),
    ]:
        async with gateway.http.get(f"{gateway.url}{path}") as response:
            assert response.status == 404, path
            assert response.content_type == "application/json"
            error = (await response.json())["error"]
        assert (error["code"], error["reason"]) == (404, reason), path
        assert mentions in error["message"]
    assert gateway.cluster.scales == 0


async def test_a_deployment_without_a_revision_answers_503_with_its_condition(
    gateway: Gateway,
) -> None:
    await gateway.cluster.deploy(
        "iris", revisions={}, problem=("SecretNotFound", "secret s3 is missing")
    )
    await gateway.routed(status=503)
    status, body = await gateway.get("/demo/models/iris")
    assert (status, body["error"]["reason"]) == (503, "SecretNotFound")
    assert "secret s3 is missing" in body["error"]["message"]


async def test_traffic_is_split_by_the_revisions_shares(gateway: Gateway) -> None:
    name = await gateway.cluster.deploy("iris", revisions={"iris-old": 80, "iris-new": 20})
    async with model_server("old") as old, model_server("new") as new:
        await gateway.cluster.ready("iris-old", old, name=name)
        await gateway.cluster.ready("iris-new", new, name=name)
        await gateway.routed()
        answers = Counter(
            [(await gateway.get("/demo/models/iris"))[1]["server"] for _ in range(300)]
        )
    assert 20 < answers["new"] < 110
    assert answers["old"] + answers["new"] == 300


async def test_switching_to_a_new_revision_under_load_loses_no_request(gateway: Gateway) -> None:
    name = await gateway.cluster.deploy("iris", revisions={"iris-0": 100})
    statuses: Counter[int] = Counter()
    async with model_server("0") as server:
        await gateway.cluster.ready("iris-0", server, name=name)
        await gateway.routed()
        slow = gateway.get("/demo/models/iris?wait=1")
        pending = asyncio.create_task(slow)
        await until(lambda: len(server.requests) > 1, what="the slow request arrived")
        going = True

        async def load() -> None:
            while going:
                statuses[(await gateway.get("/demo/models/iris"))[0]] += 1

        callers = [asyncio.create_task(load()) for _ in range(4)]
        for turn in range(1, 9):
            await gateway.cluster.ready(f"iris-{turn}", server, name=name)
            await gateway.cluster.deploy("iris", revisions={f"iris-{turn}": 100})
            seen = sum(statuses.values())
            await until(lambda seen=seen: sum(statuses.values()) > seen + 20, what="load goes on")
        server.release.set()
        assert (await pending)[0] == 200
        going = False
        await asyncio.gather(*callers)
    assert set(statuses) == {200}


async def test_pods_that_go_before_their_endpoints_do_lose_no_request(gateway: Gateway) -> None:
    name = await gateway.cluster.deploy("iris")
    statuses: Counter[int] = Counter()
    going = True

    async def load() -> None:
        while going:
            statuses[(await gateway.get("/demo/models/iris"))[0]] += 1

    async def answered(count: int) -> None:
        goal = sum(statuses.values()) + count
        await until(lambda: sum(statuses.values()) >= goal, what="load goes on")

    callers = []
    async with model_server("0") as first:
        await gateway.cluster.ready(f"{name}-1", first)
        await gateway.routed()
        callers = [asyncio.create_task(load()) for _ in range(4)]
        for _ in range(3):
            async with model_server("leaving") as leaving:
                await gateway.cluster.ready(f"{name}-1", first, leaving)
                await until(lambda: len(leaving.requests) > 5, what="both serve")
            # It listens no more, and the API does not know yet.
            await answered(50)
            await gateway.cluster.ready(f"{name}-1", first)
            await answered(10)
        going = False
        await asyncio.gather(*callers)
    assert set(statuses) == {200}


async def test_websockets_pass_through(gateway: Gateway, server: ModelServer) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    async with gateway.http.ws_connect(f"{gateway.url}/demo/models/iris/ws") as connection:
        await connection.send_str("hello")
        assert (await connection.receive_str()) == "model: hello"


async def test_request_id_and_trace_context_reach_the_pod_unchanged(
    gateway: Gateway, server: ModelServer
) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    sent = {
        "x-request-id": "11111111-2222-3333-4444-555555555555",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    _, body = await gateway.get("/demo/models/iris", headers=sent)
    received = body["headers"]
    assert {key: received[key] for key in sent} == sent


async def test_a_pod_that_refuses_is_passed_over(gateway: Gateway, server: ModelServer) -> None:
    name = await gateway.cluster.deploy("iris")
    gone = ModelServer(fresh_address(), 8080, "gone")
    await gateway.cluster.ready(f"{name}-1", server, gone)
    await gateway.routed()
    statuses = Counter([(await gateway.get("/demo/models/iris"))[0] for _ in range(40)])
    assert statuses == {200: 40}


async def test_a_pod_that_dies_mid_request_is_a_502_for_what_cannot_be_repeated(
    gateway: Gateway, server: ModelServer
) -> None:
    seen = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await reader.readline()
        writer.close()

    dying = ModelServer(fresh_address(), server.port, "dying")
    async with await asyncio.start_server(die, dying.host, dying.port):
        name = await gateway.cluster.deploy("iris")
        await gateway.cluster.ready(f"{name}-1", dying)

        async def post() -> tuple[int, dict[str, object]]:
            url = f"{gateway.url}/demo/models/iris"
            async with gateway.http.post(url, data=b"x") as response:
                return response.status, await response.json()

        async def reaches_it() -> bool:
            return (await post())[0] == 502

        await until(reaches_it, what="the pod is reached")
        before = seen
        status, body = await post()
        assert status == 502
        assert body["error"]["reason"] == "UpstreamReset"
        assert seen == before + 1
        # What may be repeated goes to another pod.
        await gateway.cluster.ready(f"{name}-1", dying, server)
        await gateway.routed()
        statuses = Counter([(await gateway.get("/demo/models/iris"))[0] for _ in range(20)])
        assert statuses == {200: 20}


async def test_http2_callers_are_served(gateway: Gateway, server: ModelServer) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    reader, writer = await asyncio.open_connection(
        gateway.settings.listen.host, gateway.settings.listen.port
    )
    # The client's preface and empty SETTINGS (RFC 9113, 3.4): a SETTINGS frame comes back.
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    frame = await asyncio.wait_for(reader.readexactly(9), 30)
    writer.close()
    assert frame[3] == 4


async def test_callers_cannot_steer_envoy_by_its_own_headers(
    gateway: Gateway, server: ModelServer
) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    steering = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-internal": "true"}
    _, body = await gateway.get("/demo/models/iris", headers=steering)
    assert [key for key in body["headers"] if key.startswith("x-envoy")] == []


async def test_envoy_takes_whatever_names_kubernetes_allows(gateway: Gateway) -> None:
    longest = "a" + "b" * 61 + "c"
    for number, (model, environment) in enumerate(
        [("a", "b-c"), ("a-b", "c"), (longest, longest), ("x.y", "production"), ("0", "0")]
    ):
        await gateway.cluster.deploy(model, environment=environment, name=f"md-{number}.x")
        await gateway.cluster.deploy(model, environment=environment, name=f"again-{number}")
    await gateway.cluster.deploy("off", enabled=False)

    async def taken() -> bool:
        return (await gateway.get("/demo/models/off"))[1]["error"]["reason"] == "Deactivated"

    await until(taken, what="Envoy has the table")
    assert gateway.agent.not_ready() == ""
    async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
        text = await response.text()
    assert "beamlit_gateway_xds_refused_total{" not in text
