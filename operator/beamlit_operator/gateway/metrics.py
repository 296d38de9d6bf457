"""What the agent itself counts, for Prometheus. What Envoy counts is in :mod:`statistics`."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from beamlit_operator import __version__
from beamlit_operator.gateway.names import DeploymentKey, Endpoint, RevisionKey
from beamlit_operator.gateway.protos import Message
from beamlit_operator.gateway.replies import Reply
from beamlit_operator.gateway.resources import ResourceType

LABELS = ("workspace", "model", "environment", "deployment", "revision")
"""Of every series that is about a revision."""

# From a warm cache to a large model's load, in seconds. Few: every deployment has them all.
_START_BUCKETS = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# From an event loop's turn to a large model's load.
_PHASE_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30, 120, 300)


Describe = Callable[[DeploymentKey], Endpoint | None]


class AtScrape(NamedTuple):
    """What is read when Prometheus asks."""

    in_flight: Mapping[RevisionKey, float]
    held: Mapping[RevisionKey, int]
    replica_seconds: Mapping[RevisionKey, float]


class Vitals(NamedTuple):
    """How the gateway itself is, read when Prometheus asks."""

    ready: bool
    connected: bool
    """Whether an Envoy is connected to the agent."""
    unanswered: float
    """Seconds for which Envoy has owed an answer to what it was sent."""
    silent: Mapping[str, float]
    """Seconds for which each watch has heard nothing."""


class GatewayMetrics:
    """One registry for each agent, so that several can live in one process.

    Labels name only deployments that exist: what callers ask for in vain never becomes one.
    """

    def __init__(self, describe: Describe = lambda _: None) -> None:
        """``describe`` gives the model and environment of a deployment that exists."""
        self.registry = CollectorRegistry()
        build = Gauge(
            "beamlit_gateway_build_info",
            "1, with the version.",
            ("version",),
            registry=self.registry,
        )
        build.labels(__version__).set(1)
        self._describe = describe
        self._known: dict[DeploymentKey, Endpoint] = {}
        self.errors: Tally[tuple[str, str]] = Tally()
        """Requests the agent answered with an error, by reason and code."""
        self._cold_starts = Counter(
            "beamlit_gateway_cold_starts_total",
            "Starts that requests waited for, by how they ended.",
            (*LABELS, "outcome"),
            registry=self.registry,
        )
        self._cold_start_seconds = Histogram(
            "beamlit_gateway_cold_start_seconds",
            "From the first request to a ready pod.",
            LABELS,
            buckets=_START_BUCKETS,
            registry=self.registry,
        )
        self._phase_seconds = Histogram(
            "beamlit_gateway_cold_start_phase_seconds",
            "Parts of a cold start. wake: request in to scale call sent; start: to a pod ready; "
            "release: to the request let go.",
            (*LABELS, "phase"),
            buckets=_PHASE_BUCKETS,
            registry=self.registry,
        )
        self._wakes = Counter(
            "beamlit_gateway_wakes_total",
            "Times a deployment was scaled up from zero.",
            LABELS,
            registry=self.registry,
        )
        self._xds_resources = Counter(
            "beamlit_gateway_xds_resources_total",
            "Resources sent to Envoy or removed from it.",
            ("type",),
            registry=self.registry,
        )
        self._xds_bytes = Counter(
            "beamlit_gateway_xds_bytes_total",
            "Bytes of configuration sent to Envoy.",
            ("type",),
            registry=self.registry,
        )
        self._xds_refused = Counter(
            "beamlit_gateway_xds_refused_total",
            "Configuration updates that Envoy refused; the last good one stays.",
            ("type",),
            registry=self.registry,
        )
        self._reviews = Counter(
            "beamlit_gateway_reviews_total",
            "Callers the agent was asked about, by what they showed (token, key) and the verdict. "
            "Requests that Envoy decides from memory are not among them.",
            ("kind", "verdict"),
            registry=self.registry,
        )
        self._reviews_remembered = Counter(
            "beamlit_gateway_review_cache_hits_total",
            "What the agent knew without asking the API server: who calls (caller), or what they "
            "may (right).",
            ("what",),
            registry=self.registry,
        )
        self._review_calls = Counter(
            "beamlit_gateway_review_calls_total",
            "Reviews the API server was asked for, by kind and outcome.",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self.envoy_starts = Counter(
            "beamlit_gateway_envoy_starts_total",
            "Times the agent started Envoy.",
            registry=self.registry,
        )

    def labels_of(self, revision: RevisionKey) -> tuple[str, ...]:
        """The values of :data:`LABELS`."""
        key = revision.deployment_key
        found = self._describe(key)
        if found is not None:
            self._known[key] = found
        else:
            found = self._known.get(key, Endpoint("", ""))
        return (key.workspace, *found, key.name, revision.revision)

    def watch(self, read: Callable[[], AtScrape]) -> None:
        """Adds what is read at the time of a scrape."""
        self.registry.register(_Scraped(read, self.labels_of))

    def watch_health(self, read: Callable[[], Vitals]) -> None:
        """Adds how the gateway itself is."""
        self.registry.register(_Health(read))

    def cold_start_ended(self, revision: RevisionKey, outcome: str, *, seconds: float) -> None:
        """A start that requests waited for is over, ``seconds`` after the first request."""
        values = self.labels_of(revision)
        self._cold_starts.labels(*values, outcome).inc()
        if outcome == "ready":
            self._cold_start_seconds.labels(*values).observe(seconds)

    def cold_start_phase(self, revision: RevisionKey, phase: str, *, seconds: float) -> None:
        """One part of a cold start took so long."""
        self._phase_seconds.labels(*self.labels_of(revision), phase).observe(max(seconds, 0.0))

    def woke(self, revision: RevisionKey) -> None:
        """A revision was scaled up from zero."""
        self._wakes.labels(*self.labels_of(revision)).inc()

    def refused(self, reply: Reply) -> None:
        """The agent answered a request with an error."""
        self.errors[(reply.reason, str(reply.status))] += 1

    def reviewed(self, kind: str, verdict: str) -> None:
        """The agent was asked about a caller."""
        self._reviews.labels(kind, verdict).inc()

    def review_remembered(self, what: str) -> None:
        """...and knew something of the answer."""
        self._reviews_remembered.labels(what).inc()

    def review_called(self, kind: str, outcome: str) -> None:
        """...or asked the API server."""
        self._review_calls.labels(kind, outcome).inc()

    def forget(self, deployment: DeploymentKey) -> None:
        """Drops the series of a deployment that is gone: else they grow with all that ever were."""
        self._known.pop(deployment, None)
        gone = {"workspace": deployment.workspace, "deployment": deployment.name}
        self._remove(gone)

    def forget_revision(self, revision: RevisionKey) -> None:
        """Drops the series of a revision that no route leads to any more."""
        key = revision.deployment_key
        gone = {"workspace": key.workspace, "deployment": key.name, "revision": revision.revision}
        self._remove(gone)

    def _remove(self, labels: dict[str, str]) -> None:
        by_revision = (
            self._cold_starts,
            self._cold_start_seconds,
            self._phase_seconds,
            self._wakes,
        )
        for metric in by_revision:
            metric.remove_by_labels(labels)

    def xds_sent(self, response: Message) -> None:
        """Counts one response of the ADS server."""
        type_ = ResourceType(response.type_url).name.lower()
        self._xds_resources.labels(type_).inc(
            len(response.resources) + len(response.removed_resources)
        )
        self._xds_bytes.labels(type_).inc(response.ByteSize())

    def xds_refused(self, type_: ResourceType) -> None:
        """Counts one update that Envoy refused."""
        self._xds_refused.labels(type_.name.lower()).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _Scraped(Collector):
    def __init__(
        self, read: Callable[[], AtScrape], labels_of: Callable[[RevisionKey], tuple[str, ...]]
    ) -> None:
        self._read = read
        self._labels_of = labels_of

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        families = self._families()
        for family, values in zip(families, now, strict=True):
            for revision, value in sorted(values.items()):
                family.add_metric(self._labels_of(revision), value)
        return families

    def _families(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        return [
            GaugeMetricFamily(
                "beamlit_gateway_requests_in_flight",
                "Requests at the pods of a revision, as Envoy last reported.",
                labels=LABELS,
            ),
            GaugeMetricFamily(
                "beamlit_gateway_requests_held",
                "Requests that wait for a revision to start.",
                labels=LABELS,
            ),
            CounterMetricFamily(
                "beamlit_gateway_replica_seconds",
                "Seconds of ready replicas as this gateway saw them. Every gateway sees the same "
                "ones: take the maximum over gateways, never the sum.",
                labels=LABELS,
            ),
        ]


class _Health(Collector):
    def __init__(self, read: Callable[[], Vitals]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        families = ready, connected, unanswered, silent = self._families()
        ready.add_metric([], now.ready)
        connected.add_metric([], now.connected)
        unanswered.add_metric([], now.unanswered)
        for resource, seconds in sorted(now.silent.items()):
            silent.add_metric([resource], seconds)
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("beamlit_gateway_ready", "1 while callers are served."),
            GaugeMetricFamily(
                "beamlit_gateway_envoy_connected", "1 while an Envoy is connected to the agent."
            ),
            GaugeMetricFamily(
                "beamlit_gateway_configuration_unanswered_seconds",
                "For how long Envoy has owed an answer to configuration it was sent.",
            ),
            GaugeMetricFamily(
                "beamlit_gateway_watch_silent_seconds",
                "For how long a watch of the API server has heard nothing; infinite before its "
                "first listing.",
                labels=["resource"],
            ),
        ]
