"""Clusters and endpoints: where the requests of one revision can go. Pure.

One cluster for each revision, with two priorities. Priority 0 holds its ready pods; priority 1 this
Envoy's own cold listener. Envoy leaves a priority only when none of its hosts is usable (panic
threshold 0), so a revision without pods leads to the cold listener with no change of configuration.

A revision whose pods take only so many requests at a time has two clusters, because Envoy limits
every host of a cluster alike and the cold listener must hold any number: the pods with the limit,
and an aggregate of those pods and, where there are none, the shared cluster of the cold listener.
What waits at the cold listener then goes through the cluster of the pods too, not past its limit.

===========  =============================  ======================================================
limit        clusters                       endpoints
===========  =============================  ======================================================
none         ``ws/md/revision``             priority 0 its pods, priority 1 the cold listener
set          ``ws/md/revision`` (aggregate
             of the next, then the cold
             listener), ``.../pods``        its pods
===========  =============================  ======================================================

A pod that cannot be reached is left out for a few seconds (outlier detection). Only what Envoy sees
of itself counts, connections that fail and resets, never an answer. A model server that says 503 is
busy or wrong, and sending its callers elsewhere would hide that or spread it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.balancing import (
    Balancing,
    policy,
    upstream_filters,
)
from beamlit_operator.gateway.catalog import Deployment, Pod
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.protos import (
    AggregateCluster,
    Cluster,
    ClusterLoadAssignment,
    HttpProtocolOptions,
    Message,
    packed,
)

CONNECT_TIMEOUT: dict[str, Any] = {"seconds": 2}
"""A pod's node may be gone without a word; another pod is tried after this."""

_MANY: dict[str, Any] = {
    # Envoy's default of 1024 would refuse callers where we want them held.
    "max_connections": {"value": 1_000_000},
    "max_pending_requests": {"value": 1_000_000},
    "max_requests": {"value": 1_000_000},
    "max_retries": {"value": 10_000},
}

UNLIMITED: dict[str, Any] = {"thresholds": [_MANY]}

BUFFER_LIMIT = {"value": 32_768}
"""Bytes kept for each connection, on either side, before flow control stops who sends: what bounds
the memory of a held upload. Envoy's own 1 MiB came to 2.1 MB for each; its guide for edge proxies
says 32 KiB (envoyproxy.io, "Configuring Envoy as an edge proxy")."""

SIGNS_OF_LIFE: dict[str, Any] = {
    "tcp_keepalive": {
        "keepalive_time": {"value": 15},
        "keepalive_interval": {"value": 5},
        "keepalive_probes": {"value": 3},
    }
}
"""A pod whose node went without a word never answers, and requests have no timeout: 30 s after the
last sign of life the connection is given up. Not by TCP_USER_TIMEOUT, which would also end uploads
to a server that is too busy to read."""

HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_EJECTION: dict[str, Any] = {
    # Failures that Envoy sees apart from what a server answers; only the former eject.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": {"value": 3},
    "enforcing_consecutive_local_origin_failure": {"value": 100},
    "enforcing_local_origin_success_rate": {"value": 0},
    "enforcing_consecutive_5xx": {"value": 0},
    "enforcing_consecutive_gateway_failure": {"value": 0},
    "enforcing_success_rate": {"value": 0},
    # For 3,000 idle revisions all this came to 16 MB and 0.6 % of a core.
    "interval": {"seconds": 1},
    # The API tells of a pod that is gone within seconds; until then this is long enough, and a pod
    # that was only restarting is back soon.
    "base_ejection_time": {"seconds": 3},
    "max_ejection_time": {"seconds": 15},
    # Never more than half: with few pods left, trying is better than refusing. Should the last one
    # be out all the same, the request goes to the cold listener, and by the agent's answer to it.
    "max_ejection_percent": {"value": 50},
}


def upstream(
    *, h2c: bool = False, streams: int = 0, filters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """How pods are spoken to.

    Args:
        h2c: HTTP/2 without TLS; HTTP/1.1 otherwise.
        streams: the most requests on one connection of HTTP/2; 0 for as many as the server takes.
        filters: what is done to a request after its pod was chosen.
    """
    # Below the keep-alive of common servers (uvicorn: 5 s), which else close the connection just
    # when the next request is sent on it. HTTP/2 servers say so before they close.
    idle: dict[str, Any] = {} if h2c else {"idle_timeout": {"seconds": 4}}
    http2 = {"max_concurrent_streams": {"value": streams}} if streams else {}
    spoken: dict[str, Any] = (
        {"http2_protocol_options": http2}
        if h2c
        else {"http_protocol_options": {"enable_trailers": True}}
    )
    options = HttpProtocolOptions(
        explicit_http_config=spoken,
        common_http_protocol_options=idle,
        http_filters=filters or [],
    )
    return {HTTP_PROTOCOL_OPTIONS: packed(options)}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the clusters of a revision depend on, beside its pods."""

    h2c: bool
    balancing: Balancing

    def names(self, key: RevisionKey) -> tuple[str, ...]:
        """The names of its clusters; the last one's endpoints are its pods."""
        return (key.cluster, key.pods_cluster) if self.balancing.limited else (key.cluster,)

    def clusters(self, key: RevisionKey) -> Mapping[str, Message]:
        """The clusters of a revision, by name."""
        if not self.balancing.limited:
            return {key.cluster: _pods(key.cluster, self, limits=UNLIMITED)}
        limits = {
            "thresholds": [{**_MANY, "max_pending_requests": {"value": self.balancing.max_queued}}],
            # One request at a time on each connection, so that connections are requests.
            "per_host_thresholds": [{"max_connections": {"value": self.balancing.max_concurrency}}],
        }
        return {
            key.cluster: _or_cold(key, self),
            key.pods_cluster: _pods(key.pods_cluster, self, limits=limits),
        }

    def endpoints(self, key: RevisionKey, pods: Iterable[Pod]) -> Mapping[str, Message]:
        """The endpoints of a revision, by the name of the cluster they are for."""
        name = self.names(key)[-1]
        localities = [
            {
                "priority": 0,
                "locality": {"sub_zone": names.POD_LOCALITY},
                "lb_endpoints": [_tcp(pod) for pod in pods],
            }
        ]
        if not self.balancing.limited:
            localities.append({"priority": 1, **cold_locality()})
        return {name: ClusterLoadAssignment(cluster_name=name, endpoints=localities)}


def shapes(deployment: Deployment) -> dict[RevisionKey, Shape]:
    """The revisions of a deployment, and what their clusters are like."""
    return {
        revision.key: Shape(revision.h2c, deployment.balancing) for revision in deployment.revisions
    }


def way_to_pods(deployment: Deployment, key: RevisionKey) -> str:
    """The cluster by which the cold listener sends a woken request to a pod of this revision: the
    revision's own where a limit is to be kept, else the one that goes where the agent says."""
    if deployment.balancing.limited:
        return key.pods_cluster
    revision = deployment.revision(key)
    h2c = revision is not None and revision.h2c
    return names.POD_CLUSTER_H2C if h2c else names.POD_CLUSTER


def cold_locality() -> dict[str, Any]:
    """This Envoy's own cold listener as a place to send requests to."""
    listener = {"server_listener_name": names.COLD_LISTENER}
    return {
        "locality": {"sub_zone": names.COLD_LOCALITY},
        "lb_endpoints": [{"endpoint": {"address": {"envoy_internal_address": listener}}}],
    }


def _pods(name: str, shape: Shape, *, limits: dict[str, Any]) -> Message:
    return Cluster(
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        connect_timeout=CONNECT_TIMEOUT,
        common_lb_config={
            "healthy_panic_threshold": {"value": 0},
        },
        circuit_breakers=limits,
        outlier_detection=_EJECTION,
        upstream_connection_options=SIGNS_OF_LIFE,
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        typed_extension_protocol_options=upstream(
            h2c=shape.h2c,
            streams=1 if shape.balancing.limited else 0,
            filters=upstream_filters(shape.balancing),
        ),
        **policy(shape.balancing),
    )


def _or_cold(key: RevisionKey, shape: Shape) -> Message:
    cold = names.COLD_CLUSTER_H2C if shape.h2c else names.COLD_CLUSTER
    return Cluster(
        name=key.cluster,
        cluster_type={
            "name": "envoy.clusters.aggregate",
            "typed_config": packed(AggregateCluster(clusters=[key.pods_cluster, cold])),
        },
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=CONNECT_TIMEOUT,
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        circuit_breakers=UNLIMITED,
        # Of the protocol options only the filters count: hosts are spoken to as their own clusters
        # say.
        typed_extension_protocol_options=upstream(
            h2c=shape.h2c, filters=upstream_filters(shape.balancing)
        ),
    )


def _tcp(pod: Pod) -> dict[str, Any]:
    return {
        "endpoint": {"address": {"socket_address": {"address": pod.host, "port_value": pod.port}}}
    }
