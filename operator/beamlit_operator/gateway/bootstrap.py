"""The configuration Envoy starts with: who the agent is, and nothing that ever changes. Pure."""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway import gate, names, telemetry
from beamlit_operator.gateway.agentpipe import pipe_cluster, pipe_listener
from beamlit_operator.gateway.clusters import (
    BUFFER_LIMIT,
    CONNECT_TIMEOUT,
    SIGNS_OF_LIFE,
    UNLIMITED,
    cold_locality,
    upstream,
)
from beamlit_operator.gateway.listeners import socket_address
from beamlit_operator.gateway.protos import (
    Cluster,
    Message,
    message_to_dict,
)
from beamlit_operator.gateway.settings import Address, GatewaySettings

_AGENT: dict[str, Any] = {
    "envoy_grpc": {
        "cluster_name": names.AGENT_CLUSTER,
        # A restarted agent is found again within a second; the default waits up to 30.
        "retry_policy": {
            "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
        },
    }
}


_KEPT = "_rq_active"
_NOT_ACTIVE = "|".join(f"[^{kept}]{_KEPT[i + 1 :]}" for i, kept in enumerate(_KEPT))
"""What does not end in that: RE2 has no negative look-ahead."""


def bootstrap(settings: GatewaySettings) -> dict[str, Any]:
    """The bootstrap document, ready to be written as JSON."""
    ads: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": settings.gateway_id, "cluster": "beamlit-gateway"},
        "admin": {"address": socket_address(settings.envoy_admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [_AGENT],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "cluster_manager": {
            "load_stats_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": names.AGENT_CLUSTER}}],
            }
        },
        "static_resources": {
            "clusters": [_json(each) for each in _static_clusters(settings)],
            "listeners": [_json(pipe_listener(settings))],
        },
        "stats_config": {
            "histogram_bucket_settings": telemetry.histogram_buckets(),
            # Thousands of clusters with a hundred statistics each are most of Envoy's memory. What
            # is needed by revision comes in load reports and from the access log, which count apart
            # from statistics of clusters; but bounded loads compare a pod's requests in progress
            # with those of its cluster.
            "stats_matcher": {
                "exclusion_list": {
                    "patterns": [{"safe_regex": {"regex": f"cluster\\.[^.]+/.*({_NOT_ACTIVE})"}}],
                }
            },
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                },
                {
                    "name": _HEAP,
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".fixed_heap.v3.FixedHeapConfig",
                        "max_heap_size_bytes": settings.max_envoy_heap,
                    },
                },
            ],
            "actions": [
                _when_heap_is_above(0.80, "envoy.overload_actions.shrink_heap"),
                _when_heap_is_above(0.85, "envoy.overload_actions.stop_accepting_requests"),
            ],
            # Requests that were let in while there was room can have bodies still.
            "loadshed_points": [
                _when_heap_is_above(1.0, f"envoy.load_shed_points.{point}")
                for point in (
                    "http1_server_abort_dispatch",
                    "http2_server_go_away_and_close_on_dispatch",
                )
            ],
        },
        "bootstrap_extensions": [
            {
                "name": "internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener"
                    ".v3.InternalListener",
                    # The pipe from the main to the cold listener; 1 MiB unless said.
                    "buffer_size_kb": BUFFER_LIMIT["value"] // 1024,
                },
            }
        ],
    }


_HEAP = "envoy.resource_monitors.fixed_heap"


def _when_heap_is_above(share: float, action: str) -> dict[str, Any]:
    return {"name": action, "triggers": [{"name": _HEAP, "threshold": {"value": share}}]}


def _static_clusters(settings: GatewaySettings) -> list[Message]:
    collector = [_collector_cluster(settings)] if telemetry.needs_collector(settings) else []
    return [
        _agent_cluster(settings),
        pipe_cluster(),
        _pod_cluster(names.POD_CLUSTER),
        _pod_cluster(names.POD_CLUSTER_H2C, h2c=True),
        _cold_cluster(names.COLD_CLUSTER),
        _cold_cluster(names.COLD_CLUSTER_H2C, h2c=True),
        *collector,
        *gate.clusters(settings),
    ]


def _collector_cluster(settings: GatewaySettings) -> Message:
    """Where spans go; nowhere, if no collector is named."""
    endpoints = []
    if settings.otlp_endpoint:
        address = socket_address(Address.parse(settings.otlp_endpoint))
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return Cluster(
        name=names.COLLECTOR_CLUSTER,
        type="STRICT_DNS",
        connect_timeout={"seconds": 1},
        typed_extension_protocol_options=upstream(h2c=True),
        load_assignment={"cluster_name": names.COLLECTOR_CLUSTER, "endpoints": endpoints},
    )


def _agent_cluster(settings: GatewaySettings) -> Message:
    return Cluster(
        name=names.AGENT_CLUSTER,
        type="STATIC",
        connect_timeout={"seconds": 1},
        # One stream for each held request.
        circuit_breakers=UNLIMITED,
        typed_extension_protocol_options=upstream(h2c=True),
        load_assignment={
            "cluster_name": names.AGENT_CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket_address(settings.xds)}}]}
            ],
        },
    )


def _pod_cluster(name: str, *, h2c: bool = False) -> Message:
    """Sends a woken request to the pod the agent named."""
    return Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=CONNECT_TIMEOUT,
        upstream_connection_options=SIGNS_OF_LIFE,
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        circuit_breakers=UNLIMITED,
        original_dst_lb_config={
            "metadata_key": {
                "key": names.AUTHORIZATION_METADATA,
                "path": [{"key": names.DESTINATION_KEY}],
            }
        },
        typed_extension_protocol_options=upstream(h2c=h2c),
    )


def _cold_cluster(name: str, *, h2c: bool = False) -> Message:
    return Cluster(
        name=name,
        type="STATIC",
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=UNLIMITED,
        typed_extension_protocol_options=upstream(h2c=h2c),
        load_assignment={"cluster_name": name, "endpoints": [cold_locality()]},
    )


def _json(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = message_to_dict(message, preserving_proto_field_name=True)
    return found
