"""How the operator tells how it is: metrics, and health by the rules of :mod:`health`.

`/livez` (and `/healthz`, its older name) fails where a restart helps, `/readyz` until everything
was read. `/metrics` is Prometheus' text format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from beamlit_operator import __version__
from beamlit_operator.controllers.health import Vitals, not_alive, not_ready
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.queue import Done, WorkQueue


class Surroundings(NamedTuple):
    """What is told of the cluster around, read at a scrape."""

    silent: Mapping[str, float]
    """Seconds for which each watch has heard nothing, by what it follows."""
    not_ready: Mapping[tuple[str, str], int]
    """Objects that are not Ready, by kind and reason."""
    unknown_fields: Mapping[tuple[str, str], int]
    """Fields that only the cluster's definition of a kind has (``newer``) or lacks (``older``)."""
    certificate: float | None = None
    """When the webhook's certificate ends, in seconds since 1970."""
    runtime_problems: Mapping[str, int] = MappingProxyType({})
    """Rows of runtimes that cannot be used, by their ConfigMap."""
    clock: float | None = None
    """Seconds by which the clock here is ahead of the API server's."""


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Gauge(
            "beamlit_build_info", "1, with the version.", ["version"], registry=self.registry
        ).labels(__version__).set(1)
        self.changes = Counter(
            "beamlit_spec_changes",
            "Changes of what people ask for, which the admission webhook is asked about.",
            ["kind"],
            registry=self.registry,
        )
        self._errands = Counter(
            "beamlit_cache_pods",
            "Pods that fetched ahead or tidied, by what they came to.",
            ["errand", "result"],
            registry=self.registry,
        )
        self._reconciles = Counter(
            "beamlit_reconciles", "Reconciles.", ["kind", "result"], registry=self.registry
        )
        self._seconds = Histogram(
            "beamlit_reconcile_seconds",
            "Duration of a reconcile.",
            ["kind"],
            registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )
        self._waited = Histogram(
            "beamlit_queue_wait_seconds",
            "How long a key waited for a worker.",
            registry=self.registry,
            buckets=(0.001, 0.01, 0.1, 1, 10, 60, 300),
        )

    def watch(
        self, queue: WorkQueue[Key], *, writes: Callable[[], int], leading: Callable[[], bool]
    ) -> None:
        """Adds what is read at the time of a scrape."""

        def gauge(name: str, doc: str, read: Callable[[], float]) -> None:
            Gauge(name, doc, registry=self.registry).set_function(read)

        gauge("beamlit_queue_depth", "Keys that wait for a worker.", lambda: len(queue))
        gauge("beamlit_queue_working", "Keys that are being worked on.", lambda: queue.working)
        gauge("beamlit_queue_oldest_seconds", "Wait of the oldest key.", lambda: queue.oldest)
        gauge("beamlit_api_writes", "Write requests made to the API server.", writes)
        gauge("beamlit_leader", "1 while this process leads.", leading)

    def watch_surroundings(self, read: Callable[[], Surroundings]) -> None:
        """Adds what is told of the cluster around."""
        self.registry.register(_Around(read))

    def errand(self, errand: str, result: str) -> None:
        """Counts one pod of a cache that has ended."""
        self._errands.labels(errand, result).inc()

    def done(self, done: Done[Key]) -> None:
        """Counts one finished reconcile."""
        kind = str(done.key.kind)
        self._reconciles.labels(kind, "error" if done.error else "ok").inc()
        self._seconds.labels(kind).observe(done.worked)
        self._waited.observe(done.waited)


class _Around(Collector):
    def __init__(self, read: Callable[[], Surroundings]) -> None:
        self._read = read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now = self._read()
        families = silent, waiting, fields, certificate, clock, rows = self._families()
        for resource, seconds in sorted(now.silent.items()):
            silent.add_metric([resource], seconds)
        for labels, count in sorted(now.not_ready.items()):
            waiting.add_metric(labels, count)
        for labels, count in sorted(now.unknown_fields.items()):
            fields.add_metric(labels, count)
        if now.certificate is not None:
            certificate.add_metric([], now.certificate)
        if now.clock is not None:
            clock.add_metric([], now.clock)
        for name, count in sorted(now.runtime_problems.items()):
            rows.add_metric([name], count)
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(
                "beamlit_watch_silent_seconds",
                "For how long a watch of the API server has heard nothing; infinite before its "
                "first listing.",
                labels=["resource"],
            ),
            GaugeMetricFamily(
                "beamlit_objects_not_ready",
                "Objects of ours that are not Ready, by the reason.",
                labels=["kind", "reason"],
            ),
            GaugeMetricFamily(
                "beamlit_definition_differences",
                "Fields of a kind that the cluster's definition lacks (older) or only it has "
                "(newer); the kind counts as one more field if it is not served at all.",
                labels=["kind", "cluster_is"],
            ),
            GaugeMetricFamily(
                "beamlit_webhook_certificate_end_seconds",
                "When the webhook's certificate ends, in seconds since 1970.",
            ),
            GaugeMetricFamily(
                "beamlit_clock_ahead_seconds",
                "Seconds by which this clock is ahead of the API server's.",
            ),
            GaugeMetricFamily(
                "beamlit_runtime_rows_unusable",
                "Rows of a ConfigMap with runtimes that cannot be used.",
                labels=["config_map"],
            ),
        ]


def application(
    metrics: Metrics, *, vitals: Callable[[], Vitals], role: Callable[[], str]
) -> web.Application:
    """The small HTTP server; ``role`` says in words whether this operator leads."""

    async def livez(_: web.Request) -> web.Response:
        why = not_alive(vitals())
        return web.Response(status=500 if why else 200, text=f"{why or 'ok'}\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = not_ready(vitals())
        text = missing or f"ok, {role()}"
        return web.Response(status=503 if missing else 200, text=f"{text}\n")

    async def scrape(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/healthz", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", scrape),
        ]
    )
    return app
