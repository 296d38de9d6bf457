"""What is counted, logged and traced of a request, through a real Envoy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.gateway.conftest import (
    Gateway,
    ModelServer,
    gateway_settings,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube
from tests.support.logs import json_lines

from beamlit_operator.gateway.telemetry import FIELDS
from beamlit_operator.kube import MODEL_DEPLOYMENTS

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def counted(gateway: Gateway) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, then by the values of their labels but the first five."""
    async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
        assert response.status == 200
        text = await response.text()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("beamlit_gateway_")
            found.setdefault(name, {})[tuple(sample.labels.values())] = sample.value
    return found


IRIS = ("demo", "iris", "production", "iris-production", "iris-production-1")


async def test_requests_are_counted_by_revision_and_code_and_errors_by_reason(
    gateway: Gateway, server: ModelServer
) -> None:
    await gateway.cluster.deploy("iris")
    await gateway.cluster.ready("iris-production-1", server)
    await gateway.routed()
    before = (await counted(gateway))["requests_total"][(*IRIS, "200")]
    for _ in range(3):
        async with gateway.http.post(f"{gateway.url}/demo/models/iris", data=b"12345") as response:
            assert response.status == 200
    for path in ("/demo/models/rose", "/strange/models/tulip", "/"):
        assert (await gateway.get(path))[0] == 404

    async def all_counted() -> bool:
        now = await counted(gateway)
        return (
            now["requests_total"].get((*IRIS, "200")) == before + 3
            and now["request_bytes_total"].get(IRIS) == 15
            and now["response_bytes_total"].get(IRIS, 0) > 15
            and now.get("request_duration_seconds_count", {}).get(IRIS) == before + 3
            and now["errors_total"].get(("UnknownWorkspace", "404"), 0) >= 1
        )

    await until(all_counted, what="requests and errors are counted")
    async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
        text = await response.text()
    # Names that callers make up are in no label.
    assert "rose" not in text
    assert "strange" not in text
    await gateway.cluster.kube.remove(MODEL_DEPLOYMENTS, "demo", "iris-production")

    async def gone() -> bool:
        return not (await counted(gateway)).get("requests_total")

    await until(gone, what="the series of a deleted deployment are gone")


async def test_the_access_log_says_what_became_of_each_request(
    kube: FakeKube, server: ModelServer, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    async with running_gateway(kube, gateway_settings(access_log=str(log))) as gateway:
        await gateway.cluster.deploy("iris")
        await until(lambda: gateway.exists("iris-production-1"), what="it is known")

        async def call() -> dict[str, str]:
            url = f"{gateway.url}/demo/models/iris/v1/predict?token=secret"
            headers = {"x-request-id": "mine", "traceparent": TRACEPARENT, "tracestate": "a=b"}
            async with gateway.http.get(url, headers=headers) as response:
                if response.status != 200:
                    return {}
                assert response.headers["x-request-id"] == "mine"
                assert not [name for name in response.headers if "beamlit" in name.lower()]
                return dict((await response.json())["headers"])

        async def woken() -> bool:
            return bool(await asyncio.wait_for(call(), 60))

        async def served_when_ready() -> None:
            await until(lambda: gateway.held() > 0, what="the request is held")
            await gateway.cluster.ready("iris-production-1", server)

        ready = asyncio.create_task(served_when_ready())
        await until(woken, what="it is served")
        await ready
        seen = await call()
        assert (seen["x-request-id"], seen["traceparent"], seen["tracestate"]) == (
            "mine",
            TRACEPARENT,
            "a=b",
        )

        def lines() -> list[dict[str, Any]]:
            return json_lines(log)

        async def straight_to_the_pod() -> bool:
            await call()
            return any(str(line["upstream"]).startswith(server.host) for line in lines())

        await until(straight_to_the_pod, what="a warm request is logged")
        assert (await gateway.get("/demo/models/rose"))[0] == 404
        await until(
            lambda: any(line["reason"] == "UnknownModel" for line in lines()),
            what="the lines are written",
        )
    served = [line for line in lines() if line["code"] == 200]
    cold, warm = served[0], next(line for line in served if line["held_ms"] is None)
    unknown = next(line for line in lines() if line["reason"] == "UnknownModel")
    assert set(cold) == set(FIELDS)
    assert "secret" not in log.read_text()
    assert cold["held_ms"] > 0
    assert cold["woken_pod"] == warm["upstream"] == f"{server.host}:{server.port}"
    assert warm["held_ms"] is None
    for line in (cold, warm):
        assert (line["workspace"], line["model"], line["environment"]) == IRIS[:3]
        assert (line["deployment"], line["revision"]) == IRIS[3:]
        assert (line["request_id"], line["traceparent"]) == ("mine", TRACEPARENT)
        assert (line["method"], line["path"]) == ("GET", "/v1/predict")
        assert line["bytes_out"] > 0
    assert (unknown["code"], unknown["workspace"]) == (404, None)


@pytest.mark.parametrize("sent", [None, "", "x" * 500])
async def test_a_request_id_is_made_where_none_is_and_cut_where_it_is_long(
    gateway: Gateway, server: ModelServer, sent: str | None
) -> None:
    await gateway.cluster.deploy("iris")
    await gateway.cluster.ready("iris-production-1", server)
    await gateway.routed()
    headers = {} if sent is None else {"x-request-id": sent}
    async with gateway.http.get(f"{gateway.url}/demo/models/iris", headers=headers) as response:
        told = response.headers["x-request-id"]
        assert (await response.json())["headers"]["x-request-id"] == told
    if sent:
        assert told == "x" * 128
    else:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", told)


async def test_with_tracing_a_trace_is_begun_or_gone_on_with(
    kube: FakeKube, server: ModelServer
) -> None:
    async with running_gateway(kube, gateway_settings(tracing=True)) as gateway:
        await gateway.cluster.deploy("iris")
        await gateway.cluster.ready("iris-production-1", server)
        await gateway.routed()
        _, made = await gateway.get("/demo/models/iris")
        _, kept = await gateway.get(
            "/demo/models/iris", headers={"traceparent": TRACEPARENT, "tracestate": "a=b"}
        )
    assert isinstance(made["headers"], dict)
    assert isinstance(kept["headers"], dict)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", made["headers"]["traceparent"])
    version, trace, span, flags = kept["headers"]["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACEPARENT.split("-")[1], "01")
    assert span != TRACEPARENT.split("-")[2]
    assert kept["headers"]["tracestate"] == "a=b"


@asynccontextmanager
async def collector(port: int) -> AsyncIterator[list[bytes]]:
    """Takes spans by OTLP and keeps the messages as they came."""
    received: list[bytes] = []

    async def export(request: bytes, _context: object) -> bytes:
        received.append(request)
        return b""

    service = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield received
    finally:
        await server.stop(grace=0)


async def test_spans_go_to_a_collector(
    kube: FakeKube, server: ModelServer, unused_tcp_port: int
) -> None:
    endpoint = f"127.0.0.1:{unused_tcp_port}"
    async with (
        collector(unused_tcp_port) as received,
        running_gateway(kube, gateway_settings(otlp_endpoint=endpoint)) as gateway,
    ):
        await gateway.cluster.deploy("iris")
        await gateway.cluster.ready("iris-production-1", server)
        await gateway.routed()
        _, answer = await gateway.get("/demo/models/iris?token=hidden")
        assert isinstance(answer["headers"], dict)
        _, trace, _, flags = answer["headers"]["traceparent"].split("-")
        assert flags == "01"

        async def arrived() -> bool:
            # Envoy sends five spans together.
            await gateway.get("/demo/models/iris?token=hidden")
            return any(bytes.fromhex(trace) in message for message in received)

        await until(arrived, what="the span is at the collector")
        # Queries hold tokens at times.
        assert not any(b"hidden" in message for message in received)
        assert any(b"http.url" in message for message in received)
