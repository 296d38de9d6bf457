"""What the agent counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from beamlit_operator.gateway.names import DeploymentKey
from beamlit_operator.gateway.protos import Message
from beamlit_operator.gateway.resources import ResourceType

_DEPLOYMENT = ("workspace", "deployment")

# From a warm cache to a large model's load, in seconds.
_START_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class GatewayMetrics:
    """One registry for each agent, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "beamlit_gateway_requests_in_flight",
            "Requests at the pods of a deployment, as Envoy last reported.",
            _DEPLOYMENT,
            registry=self.registry,
        )
        self.requests = Counter(
            "beamlit_gateway_requests_total",
            "Requests sent to a deployment, as Envoy reports them.",
            _DEPLOYMENT,
            registry=self.registry,
        )
        self.held = Gauge(
            "beamlit_gateway_requests_held",
            "Requests that wait for a deployment to start.",
            _DEPLOYMENT,
            registry=self.registry,
        )
        self.cold_starts = Counter(
            "beamlit_gateway_cold_starts_total",
            "Starts that requests waited for, by how they ended.",
            (*_DEPLOYMENT, "outcome"),
            registry=self.registry,
        )
        self.cold_start_seconds = Histogram(
            "beamlit_gateway_cold_start_seconds",
            "From the first request to a ready pod.",
            _DEPLOYMENT,
            buckets=_START_BUCKETS,
            registry=self.registry,
        )
        self.wakes = Counter(
            "beamlit_gateway_wakes_total",
            "Times a deployment was scaled up from zero.",
            _DEPLOYMENT,
            registry=self.registry,
        )
        self.wake_seconds = Histogram(
            "beamlit_gateway_wake_decision_seconds",
            "From a request at the agent to the scale call sent.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
            registry=self.registry,
        )
        self.refusals = Counter(
            "beamlit_gateway_refusals_total",
            "Requests the agent answered with an error, by reason.",
            ("reason",),
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
        self.envoy_starts = Counter(
            "beamlit_gateway_envoy_starts_total",
            "Times the agent started Envoy.",
            registry=self.registry,
        )

    def forget(self, deployment: DeploymentKey) -> None:
        """Drops the series of a deployment that is gone: else they grow with all that ever were."""
        by_deployment = (
            self.in_flight,
            self.requests,
            self.held,
            self.cold_starts,
            self.cold_start_seconds,
            self.wakes,
        )
        for metric in by_deployment:
            metric.remove_by_labels(dict(zip(_DEPLOYMENT, deployment, strict=True)))

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
