"""Envoy's statistics get people's names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from tests.support.gatewayobjects import model_deployment

from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import DeploymentKey, Endpoint, RevisionKey
from beamlit_operator.gateway.replies import Reply
from beamlit_operator.gateway.settings import Address, GatewaySettings
from beamlit_operator.gateway.statistics import Counted, EnvoyStatistics, rendered

ENVOY = """
# TYPE envoy_beamlit_bytes_in counter
envoy_beamlit_bytes_in{cluster="demo/iris/iris-1"} 10
envoy_beamlit_bytes_in{cluster=""} 3
envoy_beamlit_bytes_out{cluster="demo/iris/iris-1"} 20
# TYPE envoy_beamlit_requests counter
envoy_beamlit_requests{cluster="",code="404",flags="-",route="UnknownModel"} 4
envoy_beamlit_requests{cluster="",code="401",flags="-",route="UnknownModel"} 8
envoy_beamlit_requests{cluster="",code="403",flags="-",route=""} 6
envoy_beamlit_requests{cluster="",code="400",flags="DPE",route=""} 2
envoy_beamlit_requests{cluster="",code="431",flags="-",route=""} 1
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="0",flags="DC",route=""} 3
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="200",flags="-",route=""} 5
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="200",flags="DC",route=""} 1
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="502",flags="UC",route=""} 1
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="503",flags="-",route=""} 7
envoy_beamlit_requests{cluster="demo/iris/iris-1",code="503",flags="UF,URX",route=""} 1
envoy_beamlit_requests{cluster="demo/gone/gone-1",code="200",flags="-",route=""} 9
envoy_beamlit_duration_bucket{cluster="demo/iris/iris-1",le="1"} 4
envoy_beamlit_duration_bucket{cluster="demo/iris/iris-1",le="2500"} 5
envoy_beamlit_duration_bucket{cluster="demo/iris/iris-1",le="+Inf"} 6
envoy_beamlit_duration_sum{cluster="demo/iris/iris-1"} 1500.5
envoy_beamlit_duration_count{cluster="demo/iris/iris-1"} 6
envoy_server_live{} 1
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    body = model_deployment("iris", model="flower", environment="dev", traffic={"iris-1": 100})
    catalog.put_deployment("demo", "iris", body)
    return catalog


@pytest.fixture
def metrics(catalog: Catalog) -> GatewayMetrics:
    def describe(key: DeploymentKey) -> Endpoint | None:
        found = catalog.get(key)
        return Endpoint(found.model, found.environment) if found else None

    return GatewayMetrics(describe)


async def samples(text: str, catalog: Catalog, metrics: GatewayMetrics) -> Samples:
    counted = Counted()
    for line in text.splitlines():
        counted.take(line)

    def exists(revision: RevisionKey) -> bool:
        return catalog.get(revision.deployment_key) is not None

    shown = b"".join([part async for part in rendered(counted, metrics, exists=exists)])
    return {
        (sample.name.removeprefix("beamlit_gateway_"), frozenset(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(shown.decode())
        for sample in family.samples
    }


async def test_every_series_is_named_as_people_know_it(
    catalog: Catalog, metrics: GatewayMetrics
) -> None:
    metrics.refused(Reply(503, "StartFailed", "it did not start"))
    metrics.refused(Reply(404, "UnknownModel", "gone"))
    found = await samples(ENVOY, catalog, metrics)
    iris = {
        "workspace": "demo",
        "model": "flower",
        "environment": "dev",
        "deployment": "iris",
        "revision": "iris-1",
    }

    def about(**more: str) -> frozenset[tuple[str, str]]:
        return frozenset({**iris, **more}.items())

    def error(reason: str, code: str) -> tuple[str, frozenset[tuple[str, str]]]:
        return "errors_total", frozenset({"reason": reason, "code": code}.items())

    assert found == {
        ("requests_total", about(code="200")): 6,
        ("requests_total", about(code="499")): 3,
        ("requests_total", about(code="502")): 1,
        ("requests_total", about(code="503")): 8,
        ("request_bytes_total", about()): 10,
        ("response_bytes_total", about()): 20,
        error("BadRequest", "400"): 2,
        error("Forbidden", "403"): 6,
        error("HeadersTooLarge", "431"): 1,
        error("StartFailed", "503"): 1,
        error("Unavailable", "503"): 1,
        error("Unauthenticated", "401"): 8,
        error("UnknownModel", "404"): 5,
        error("UpstreamReset", "502"): 1,
        ("request_duration_seconds_bucket", about(le="0.001")): 4,
        ("request_duration_seconds_bucket", about(le="2.5")): 5,
        ("request_duration_seconds_bucket", about(le="+Inf")): 6,
        ("request_duration_seconds_sum", about()): 1.5005,
        ("request_duration_seconds_count", about()): 6,
    }


async def test_nothing_is_shown_of_a_deployment_that_is_gone(
    catalog: Catalog, metrics: GatewayMetrics
) -> None:
    assert await samples(ENVOY, catalog, metrics)
    catalog.put_deployment("demo", "iris", None)
    metrics.forget(next(iter([DeploymentKey("demo", "iris")])))  # type: ignore[arg-type]
    left = await samples(ENVOY, catalog, metrics)
    assert {name for name, _ in left} == {"errors_total"}


@asynccontextmanager
async def slow_envoy(settings: GatewaySettings, release: asyncio.Event) -> AsyncIterator[list[str]]:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query_string)
        await release.wait()
        return web.Response(text=ENVOY)

    app = web.Application()
    app.router.add_get("/stats/prometheus", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, settings.envoy_admin.host, settings.envoy_admin.port)
    await site.start()
    try:
        yield asked
    finally:
        await runner.cleanup()


async def test_scrapes_at_the_same_time_share_one_fetch_and_none_cancels_it(
    unused_tcp_port: int,
) -> None:
    settings = GatewaySettings(gateway_id="x", envoy_admin=Address("127.0.0.1", unused_tcp_port))
    statistics, release = EnvoyStatistics(settings), asyncio.Event()
    async with slow_envoy(settings, release) as asked:
        reads = [asyncio.create_task(statistics.read()) for _ in range(5)]
        async with asyncio.timeout(60):
            while not asked:
                await asyncio.sleep(0.005)
        reads[0].cancel()
        release.set()
        answers = await asyncio.gather(*reads[1:])
        assert len(asked) == 1
        assert all(answer.bytes_in for answer in answers)
        assert "usedonly" in asked[0]
        await statistics.read()
        assert len(asked) == 2


async def test_without_envoy_the_agents_own_figures_are_served(unused_tcp_port: int) -> None:
    settings = GatewaySettings(gateway_id="x")
    settings = replace(settings, envoy_admin=Address("127.0.0.1", unused_tcp_port))
    assert await EnvoyStatistics(settings).read() == Counted()
