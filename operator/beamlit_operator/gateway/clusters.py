"""Clusters and endpoints: where the requests of one revision can go. Pure.

One cluster for each revision, with two priorities. Priority 0 holds its ready pods; priority 1 this
Envoy's own cold listener. Envoy leaves a priority only when none of its hosts is usable (panic
threshold 0), so a revision without pods leads to the cold listener with no change of configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.catalog import Pod
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.protos import (
    Cluster,
    ClusterLoadAssignment,
    HttpProtocolOptions,
    Message,
    packed,
)

CONNECT_TIMEOUT: dict[str, Any] = {"seconds": 2}
"""A pod's node may be gone without a word; another pod is tried after this."""

UNLIMITED: dict[str, Any] = {
    # Envoy's default of 1024 would refuse callers where we want them held.
    "thresholds": [
        {
            "max_connections": {"value": 1_000_000},
            "max_pending_requests": {"value": 1_000_000},
            "max_requests": {"value": 1_000_000},
            "max_retries": {"value": 10_000},
        }
    ]
}

BUFFER_LIMIT = {"value": 32_768}
"""Bytes kept for each connection, on either side, before flow control stops who sends: what bounds
the memory of a held upload. Envoy's own 1 MiB came to 2.1 MB for each; its guide for edge proxies
says 32 KiB (envoyproxy.io, "Configuring Envoy as an edge proxy")."""

HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def upstream_http1() -> dict[str, Any]:
    """Model servers speak HTTP/1.1 unless they say otherwise."""
    return {
        HTTP_PROTOCOL_OPTIONS: packed(
            HttpProtocolOptions(
                explicit_http_config={"http_protocol_options": {}},
                # Below the keep-alive of common servers (uvicorn: 5 s), which else close the
                # connection just when the next request is sent on it.
                common_http_protocol_options={"idle_timeout": {"seconds": 4}},
            )
        )
    }


_OPTIONS = upstream_http1()


def revision_cluster(revision: RevisionKey) -> Message:
    """The cluster of a revision. It never changes, so it is sent once."""
    return Cluster(
        name=revision.cluster,
        type="EDS",
        eds_cluster_config={"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        connect_timeout=CONNECT_TIMEOUT,
        lb_policy="LEAST_REQUEST",
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        circuit_breakers=UNLIMITED,
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        typed_extension_protocol_options=_OPTIONS,
    )


def revision_endpoints(revision: RevisionKey, pods: Iterable[Pod]) -> Message:
    """The endpoints of a revision: its ready pods, then the cold listener."""
    return ClusterLoadAssignment(
        cluster_name=revision.cluster,
        endpoints=[
            {
                "priority": 0,
                "locality": {"sub_zone": names.POD_LOCALITY},
                "lb_endpoints": [_tcp(pod) for pod in pods],
            },
            {
                "priority": 1,
                "locality": {"sub_zone": names.COLD_LOCALITY},
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {
                                "envoy_internal_address": {
                                    "server_listener_name": names.COLD_LISTENER
                                }
                            }
                        }
                    }
                ],
            },
        ],
    )


def _tcp(pod: Pod) -> dict[str, Any]:
    return {
        "endpoint": {"address": {"socket_address": {"address": pod.host, "port_value": pod.port}}}
    }
