"""What Envoy records of each request: statistics, the access log, the trace. Pure.

All of it happens in Envoy: not one request is looked at in Python. Statistics come from Envoy's
statistics access logger and not from its clusters' own: those count a 502 of ours as the 503 that
Envoy thought of first, vanish together with a cluster, and cost memory for each one.

The access log is one JSON line for each request, at its end. Paths stand without their query, which
may hold a secret, there and in spans.
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.names import Endpoint, RevisionKey
from beamlit_operator.gateway.protos import (
    EarlyHeaderMutation,
    FileAccessLog,
    HeaderToMetadata,
    Message,
    OpenTelemetry,
    ParentBasedSampler,
    StatsAccessLog,
    StdoutAccessLog,
    Struct,
    TraceRatio,
    packed,
)
from beamlit_operator.gateway.settings import GatewaySettings

OFF, STDOUT = "off", "stdout"

MAX_REQUEST_ID = 128
"""Characters of a caller's request id that are kept: it ends up in everybody's logs."""

STATS_PREFIX = "beamlit"

DURATION_BUCKETS = (
    *(1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
    *(10_000, 30_000, 60_000, 120_000, 300_000, 600_000),
)
"""Milliseconds: from a small model's answer to a long generation."""

FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "user_agent": "%REQ(USER-AGENT)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "reason": "%ROUTE_NAME%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "workspace": f"%METADATA(CLUSTER:{names.METADATA}:workspace)%",
    "model": f"%METADATA(CLUSTER:{names.METADATA}:model)%",
    "environment": f"%METADATA(CLUSTER:{names.METADATA}:environment)%",
    "deployment": f"%METADATA(CLUSTER:{names.METADATA}:deployment)%",
    "revision": f"%METADATA(CLUSTER:{names.METADATA}:revision)%",
    "caller": f"%DYNAMIC_METADATA({names.METADATA}:caller)%",
    "held_ms": f"%DYNAMIC_METADATA({names.METADATA}:held_ms)%",
    "woken_pod": f"%DYNAMIC_METADATA({names.METADATA}:pod)%",
}
"""The access log's fields, and what Envoy fills them with."""

_URL = "%REQ(X-FORWARDED-PROTO)%://%REQ(:AUTHORITY)%%PATH(NQ:ORIG_OR_PATH)%"


def access_logs(settings: GatewaySettings) -> list[dict[str, Any]]:
    """What happens at the end of each request: it is counted, and logged if somebody wants that."""
    loggers = [{"name": "statistics", "typed_config": packed(_statistics())}]
    if settings.access_log != OFF:
        loggers.append({"name": "log", "typed_config": packed(_log(settings.access_log))})
    return loggers


def _statistics() -> Any:
    cluster = {"name": "cluster", "value_format": "%UPSTREAM_CLUSTER%"}
    return StatsAccessLog(
        # Envoy warns that a newer field replaces this one; xds-protos does not know that one yet.
        stat_prefix=STATS_PREFIX,
        counters=[
            {
                "stat": {
                    "name": "requests",
                    "tags": [
                        cluster,
                        {"name": "code", "value_format": "%RESPONSE_CODE%"},
                        {"name": "flags", "value_format": "%RESPONSE_FLAGS%"},
                        # Our error routes are named by their reason; a caller chooses none of it.
                        {"name": "route", "value_format": "%ROUTE_NAME%"},
                    ],
                },
                "value_fixed": {"value": 1},
            },
            {
                "stat": {"name": "bytes_in", "tags": [cluster]},
                "value_format": "%BYTES_RECEIVED%",
            },
            {
                "stat": {"name": "bytes_out", "tags": [cluster]},
                "value_format": "%BYTES_SENT%",
            },
        ],
        histograms=[
            {
                "stat": {"name": "duration", "tags": [cluster]},
                "value_format": "%DURATION%",
                "unit": "Milliseconds",
            }
        ],
    )


def _log(where: str) -> Any:
    fields = Struct()
    fields.update(FIELDS)
    log_format = {"json_format": fields}
    if where == STDOUT:
        return StdoutAccessLog(log_format=log_format)
    return FileAccessLog(path=where, log_format=log_format)


def histogram_buckets() -> list[dict[str, Any]]:
    """For the bootstrap's ``stats_config``."""
    return [
        {
            "match": {"prefix": f"{STATS_PREFIX}.duration"},
            "buckets": list(DURATION_BUCKETS),
        }
    ]


def labelled(
    cluster: Message, revision: RevisionKey, *, endpoint: Endpoint, settings: GatewaySettings
) -> Message:
    """The cluster, with what the access log says of its requests as metadata."""
    if settings.access_log != OFF:
        facts = Struct()
        facts.update(
            {
                "workspace": revision.workspace,
                "model": endpoint.model,
                "environment": endpoint.environment,
                "deployment": revision.deployment,
                "revision": revision.revision,
            }
        )
        cluster.metadata.filter_metadata[names.METADATA].CopyFrom(facts)
    return cluster


def request_id_mutation() -> list[dict[str, Any]]:
    """Cuts a caller's request id, before Envoy makes one for who sent none."""
    header = {"key": "x-request-id", "value": f"%REQ(X-REQUEST-ID):{MAX_REQUEST_ID}%"}
    mutation = {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS"}}
    return [
        {
            "name": "request_id",
            "typed_config": packed(EarlyHeaderMutation(mutations=[mutation])),
        }
    ]


def cold_facts(settings: GatewaySettings) -> list[dict[str, Any]]:
    """The filter that takes what the agent says of a cold request into the access log."""
    if settings.access_log == OFF:
        return []

    def rule(header: str, key: str, kind: str) -> dict[str, Any]:
        taken = {"metadata_namespace": names.METADATA, "key": key, "type": kind}
        return {"header": header, "on_header_present": taken, "remove": True}

    rules = [
        rule(names.HELD_HEADER, "held_ms", "NUMBER"),
        rule(names.POD_HEADER, "pod", "STRING"),
    ]
    return [
        {
            "name": "cold_facts",
            "typed_config": packed(HeaderToMetadata(response_rules=rules)),
        }
    ]


def tracing(settings: GatewaySettings) -> dict[str, Any]:
    """Fields of the connection manager that make Envoy part of the trace (W3C trace context).

    A caller's decision to sample is kept. Without a collector the spans end in a cluster that has
    no host: made for their ids only.
    """
    if not settings.tracing and not settings.otlp_endpoint:
        return {}
    percentage = settings.trace_sampling if settings.otlp_endpoint else 0.0
    ratio = TraceRatio(
        sampling_percentage={"numerator": round(percentage * 10_000), "denominator": "MILLION"}
    )
    sampler = ParentBasedSampler(wrapped_sampler=_extension("ratio", ratio))
    collector = {"envoy_grpc": {"cluster_name": names.COLLECTOR_CLUSTER}, "timeout": {"seconds": 5}}
    tracer = OpenTelemetry(
        grpc_service=collector,
        service_name="beamlit-gateway",
        sampler=_extension("envoy.tracers.opentelemetry.samplers.parent_based", sampler),
    )
    return {
        "tracing": {
            "provider": _extension("opentelemetry", tracer),
            # In place of Envoy's own, which has the query.
            "custom_tags": [{"tag": "http.url", "value": _URL}],
        }
    }


def _extension(name: str, config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": packed(config)}


def needs_collector(settings: GatewaySettings) -> bool:
    """Whether the bootstrap must have the collector's cluster."""
    return bool(tracing(settings))
