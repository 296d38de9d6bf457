"""The two listeners: where callers come in, and where requests wait for a start. Pure."""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway import gate, names, telemetry
from beamlit_operator.gateway.balancing import prefix_filter
from beamlit_operator.gateway.clusters import BUFFER_LIMIT
from beamlit_operator.gateway.encryption import transport_socket
from beamlit_operator.gateway.localreplies import UNANSWERED, cold_replies, main_replies
from beamlit_operator.gateway.openai import body_filters
from beamlit_operator.gateway.protos import (
    ExtAuthz,
    ExtensionWithMatcher,
    HeaderMutation,
    HttpConnectionManager,
    Listener,
    Message,
    RequestHeaderInput,
    RequestIds,
    Router,
    SkipFilter,
    TransportSocket,
    packed,
)
from beamlit_operator.gateway.settings import Address, GatewaySettings
from beamlit_operator.gateway.splitting import revision_check

STREAM_WINDOW = 262_144
"""Bytes that an HTTP/2 caller may send ahead on one stream: the rest of a held upload stays with
the caller. 5 MB/s over a path of 50 ms; Envoy's own 16 MiB would hold whole uploads in memory."""

AUTHORIZATION_MARGIN = 30.0
"""The agent answers every held request by the start deadline; Envoy waits this much longer."""


def duration(seconds: float) -> dict[str, int]:
    """Seconds as a protobuf Duration."""
    whole = int(seconds)
    return {"seconds": whole, "nanos": round((seconds - whole) * 1e9)}


def socket_address(address: Address) -> dict[str, Any]:
    """A TCP address as Envoy writes it."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def main_listener(settings: GatewaySettings) -> Message:
    """Where callers come in: HTTP/1.1 or HTTP/2 without TLS, WebSocket."""
    address = socket_address(settings.listen)
    return _listener(names.MAIN_LISTENER, _main_manager(settings), address=address)


def tls_listener(settings: GatewaySettings, at: Address) -> Message:
    """Where they come in with TLS, to the same routes and counted with the others."""
    listener = _listener(names.TLS_LISTENER, _main_manager(settings), address=socket_address(at))
    listener.filter_chains[0].transport_socket.CopyFrom(
        TransportSocket(**transport_socket(settings))
    )
    return listener


def _main_manager(settings: GatewaySettings) -> Message:
    return HttpConnectionManager(
        stat_prefix=names.MAIN_LISTENER,
        rds={
            "route_config_name": names.ROUTES,
            "config_source": {"ads": {}, "resource_api_version": "V3"},
        },
        # The caller's address is put in X-Forwarded-For. Everybody is a stranger, wherever the call
        # comes from (no address is in this range): their x-envoy-* headers steer nothing here.
        use_remote_address={"value": True},
        internal_address_config={
            "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": {"value": 32}}]
        },
        # A caller's request id goes through, cut to a sane length; who sent none gets one.
        early_header_mutation_extensions=telemetry.request_id_mutation(),
        preserve_external_request_id=True,
        request_id_extension={
            "typed_config": packed(RequestIds(pack_trace_reason={"value": False}))
        },
        always_set_request_id_in_response=True,
        local_reply_config=main_replies(settings),
        # Floods of headers, and requests that never end to begin.
        max_request_headers_kb={"value": settings.max_headers_kb},
        request_headers_timeout=duration(settings.headers_timeout),
        common_http_protocol_options={
            "max_headers_count": {"value": settings.max_headers},
            "idle_timeout": duration(settings.connection_idle_timeout),
        },
        access_log=telemetry.access_logs(settings),
        **telemetry.tracing(settings),
        **_common(
            settings,
            filters=[
                *gate.first_filter(settings),
                *telemetry.cold_facts(settings),
                _retry_after_reset(),
                *body_filters(),
                *gate.second_filter(settings),
                # After the route of a body's `model` was found.
                revision_check(),
                prefix_filter(),
            ],
        ),
    )


def cold_listener(settings: GatewaySettings) -> Message:
    """Where requests of a sleeping deployment wait for the agent's answer.

    External authorization pauses the stream before the body is read: bytes back up through both
    listeners to the caller, whatever the size of the body.
    """
    manager = HttpConnectionManager(
        stat_prefix=names.COLD_LISTENER,
        route_config={
            "name": names.COLD_LISTENER,
            "request_headers_to_remove": [names.WAY_HEADER],
            "virtual_hosts": [
                {
                    "name": "woken",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster_header": names.WAY_HEADER, "timeout": {}},
                        }
                    ],
                }
            ],
        },
        # The request went through the main listener: leave its headers alone.
        use_remote_address={"value": False},
        skip_xff_append=True,
        generate_request_id={"value": False},
        preserve_external_request_id=True,
        local_reply_config=cold_replies(),
        **_common(settings, filters=[_authorization(settings)]),
    )
    return _listener(names.COLD_LISTENER, manager, internal_listener={})


def _listener(name: str, manager: Message, **fields: Any) -> Message:
    return Listener(
        name=name,
        per_connection_buffer_limit_bytes=BUFFER_LIMIT,
        filter_chains=[
            {"filters": [{"name": "http", "typed_config": packed(manager)}]},
        ],
        **fields,
    )


def _common(
    settings: GatewaySettings, *, filters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    router = Router(suppress_envoy_headers=True)
    return {
        "codec_type": "AUTO",
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": {"value": False},
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": duration(settings.stream_idle_timeout),
        "request_timeout": {},
        "http_protocol_options": {"enable_trailers": True},
        "http2_protocol_options": {
            "allow_connect": True,
            "initial_stream_window_size": {"value": STREAM_WINDOW},
        },
        "http_filters": [
            *(filters or ()),
            {"name": "router", "typed_config": packed(router)},
        ],
    }


def _retry_after_reset() -> dict[str, Any]:
    """A request that may be repeated (RFC 9110, 9.2.2) is sent to another pod when its pod dies
    before it answers. Others are not: the model server may have acted on them.

    Asked for by the header the router reads (and removes), because the routes' own retry policy
    cannot tell methods apart and doubling every route would.
    """
    header = {
        "header": {"key": "x-envoy-retry-on", "value": "reset"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    skip = {"action": {"name": "skip", "typed_config": packed(SkipFilter())}}
    method = {
        "name": "method",
        "typed_config": packed(RequestHeaderInput(header_name=":method")),
    }
    return {
        "name": "retry_after_reset",
        "typed_config": packed(
            ExtensionWithMatcher(
                extension_config={
                    "name": "header_mutation",
                    "typed_config": packed(
                        HeaderMutation(mutations={"request_mutations": [{"append": header}]})
                    ),
                },
                xds_matcher={
                    "matcher_tree": {
                        "input": method,
                        "exact_match_map": {
                            "map": {name: skip for name in ("POST", "PATCH", "CONNECT")}
                        },
                    }
                },
            )
        ),
    }


def _authorization(settings: GatewaySettings) -> dict[str, Any]:
    return {
        "name": "wake",
        "typed_config": packed(
            ExtAuthz(
                transport_api_version="V3",
                grpc_service={
                    "envoy_grpc": {"cluster_name": names.AGENT_PIPE},
                    "timeout": duration(settings.start_deadline + AUTHORIZATION_MARGIN),
                },
                failure_mode_allow=False,
                status_on_error={"code": UNANSWERED},
                # The agent's answer names the way to the pod.
                clear_route_cache=True,
            )
        ),
    }
