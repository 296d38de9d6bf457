"""How Envoy asks the agent about held requests, so that an agent may restart meanwhile. Pure.

Asked directly, an agent that is away is an error at once, and the held request can only be tried
again so often; a large upload not at all, for Envoy does not keep all of it. So the question goes
through a listener inside Envoy that accepts it and then connects to the agent, again and again.
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.clusters import UNLIMITED, upstream
from beamlit_operator.gateway.protos import (
    Cluster,
    Listener,
    Message,
    TcpProxy,
    packed,
)
from beamlit_operator.gateway.settings import GatewaySettings

_MEAN_PAUSE = 0.25
_BACKOFF: dict[str, Any] = {
    "base_interval": {"nanos": 100_000_000},
    "max_interval": {"nanos": 500_000_000},
}


def pipe_listener(settings: GatewaySettings) -> Message:
    """Accepts what is for the agent, whether it is there or not."""
    proxy = TcpProxy(
        stat_prefix=names.AGENT_PIPE,
        cluster=names.AGENT_CLUSTER,
        max_connect_attempts={"value": 1 + int(settings.agent_patience / _MEAN_PAUSE)},
        backoff_options=_BACKOFF,
    )
    return Listener(
        name=names.AGENT_PIPE,
        internal_listener={},
        filter_chains=[{"filters": [{"name": "tcp", "typed_config": packed(proxy)}]}],
    )


def pipe_cluster() -> Message:
    """The near end of the pipe."""
    address = {"envoy_internal_address": {"server_listener_name": names.AGENT_PIPE}}
    return Cluster(
        name=names.AGENT_PIPE,
        type="STATIC",
        connect_timeout={"seconds": 1},
        # One stream for each held request.
        circuit_breakers=UNLIMITED,
        typed_extension_protocol_options=upstream(h2c=True),
        load_assignment={
            "cluster_name": names.AGENT_PIPE,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    )
