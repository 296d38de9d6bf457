"""What a gateway can be told, and why each setting is as it is."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from beamlit_operator.gateway.issuers import Issuer


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on or connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``host:port``, ``[v6]:port`` or ``:port`` (all addresses).

        Raises:
            ValueError: not an address; the message says how to write one.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is not an address: write HOST:PORT, such as 0.0.0.0:8080")
        return cls(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104


def default_gateway_id() -> str:
    """Names this gateway among others: the pod's name in a cluster."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """All times in seconds."""

    listen: Address = Address("127.0.0.1", 8080)
    """Where callers come in. Loopback: nothing is exposed unless somebody says so."""

    admin: Address = Address("127.0.0.1", 8081)
    """The agent's own HTTP: health, readiness, metrics, load."""

    xds: Address = Address("127.0.0.1", 18000)
    """Where Envoy asks the agent. In a pod both share the network namespace, so loopback is
    private to the pod."""

    envoy_admin: Address = Address("127.0.0.1", 19000)
    """Envoy's own administration interface, never to be exposed: it can end Envoy."""

    gateway_id: str = field(default_factory=default_gateway_id)
    """Names this gateway in load reports, so that the autoscaler can add up several."""

    domain: str = "beamlit.local"
    """The domain under which deployments answer by host name."""

    cluster_domain: str = "cluster.local"
    """The domain of the cluster's own DNS, for callers that use a Service's full name."""

    start_deadline: float = 300.0
    """How long a request may wait for a deployment to start. Large models load for minutes."""

    max_held: int = 10_000
    """Requests held in total."""

    agent_patience: float = 5.0
    """How long a request of a sleeping deployment waits for an agent that is away, at each of its
    attempts: longer than an agent takes to start on a busy machine."""

    max_held_bytes: int = 2**30
    """Envoy's memory for held requests: one costs some 110 KiB, and at most 520 KiB more for its
    body (`room.held_bytes`)."""

    max_held_per_deployment: int = 1_000
    """Requests held for one deployment, so that one cannot take all places."""

    first_backoff: float = 5.0
    """After a failed start no new one is tried for this long; doubles with each failure."""

    last_backoff: float = 300.0
    """The longest such pause, as long as the kubelet's own for a crashing container."""

    idle_timeout: float = 3600.0
    """A stream on which nothing moved for this long is ended. There is no limit on the length of a
    request. Never below the start deadline, or held requests would be cut."""

    drain_time: float = 30.0
    """At SIGTERM, how long requests in flight may take to finish. What is held then gets a 503."""

    drain_delay: float = 5.0
    """At SIGTERM, how long callers are still served in any case. So long it may take until nobody
    sends callers here any more: a Service's endpoints follow readiness with a delay."""

    debounce: float = 0.005
    """Changes that arrive within this time go to Envoy together."""

    load_interval: float = 1.0
    """How often Envoy reports load; the autoscaler looks every two seconds."""

    openai_body_limit: int = 8 << 20
    """Bytes of a body that is routed by its ``model``, which Envoy has to hold whole before it can
    read it. Room for a long conversation with some pictures in it; beyond is 413. Requests of other
    routes are never held, and have no limit."""

    body_idle_timeout: int = 60
    """Seconds within which something more of such a body has to come. A caller who stops half-way
    holds memory."""

    headers_timeout: int = 15
    """Seconds from the first byte of a request to the end of its headers: who sends them slower
    does it on purpose."""

    max_headers: int = 100
    """Header fields of one request."""

    max_headers_kb: int = 64
    """KiB of one request's headers: eight times what servers commonly take, for callers with long
    tokens and many cookies."""

    connection_idle_timeout: int = 600
    """Seconds a connection without a request stays open. Above what callers and load balancers keep
    theirs for (commonly 60 to 350), so that they are the ones who close it."""

    max_envoy_heap: int = 4 << 30
    """Bytes of memory that Envoy may have in use. Beyond 85 % of it, new requests are answered 503
    until there is room again; beyond all of it, connections that send more are cut: better than
    being killed with all that are served. 5,000 deployments take 0.4 GB; the rest is room for held
    requests and bodies that are read. Keep it below the container's limit."""

    max_connections: int = 50_000
    """Connections from callers at once, so that a flood ends in refusals and not in memory."""

    access_log: str = "off"
    """Where Envoy writes a JSON line for each request: ``off``, ``stdout`` or a file's path. Off on
    a laptop, where it would bury what people look for; in a cluster stdout is where logs belong."""

    tracing: bool = False
    """Whether callers that sent no ``traceparent`` get one, and spans are made. What a caller sent
    goes through in any case. Off: it takes a tenth more CPU for each small request."""

    otlp_endpoint: str = ""
    """HOST:PORT of a collector that takes spans by OTLP over gRPC; empty: spans go nowhere."""

    trace_sampling: float = 100.0
    """Of requests without a ``traceparent``, the percentage whose spans are sent."""

    tls_listen: Address | None = None
    """Where callers come in with TLS, beside `listen`; nowhere if unset."""

    tls_certificate: str = ""
    """Envoy's path to the certificate chain (PEM). Its folder is watched: a new one counts at
    once."""

    tls_key: str = ""
    """Envoy's path to the key, in the same folder."""

    authentication: bool = False
    """Whether callers need a token and a right (docs/authentication.md). Off: for one person's
    machine, or where something in front of the gateway does it."""

    authentication_listen: Address = Address("127.0.0.1", 18001)
    """Where Envoy asks the agent who calls. Loopback, as `xds`."""

    audiences: tuple[str, ...] = ("beamlit",)
    """Who tokens of ServiceAccounts have to be for. Not the API server: a token that a caller hands
    to a gateway should be good for the gateway only."""

    issuers: tuple[Issuer, ...] = ()
    """OpenID Connect issuers whose tokens count beside the cluster's own."""

    decision_ttl: float = 20.0
    """Seconds that Envoy goes by a decision before it asks again. With the agent's memory (10) and
    the API server's own (10), a revocation takes 40 at most, and a second or five more for those
    that come while one asks."""

    decision_stale: float = 300.0
    """Seconds that a decision counts while the agent, or the API server behind it, is away: longer
    than either takes to restart."""

    concurrency: int = 0
    """Envoy's worker threads; 0 is one for each processor."""

    runtime_dir: Path | None = None
    """Where the files that Envoy reads are written; a fresh directory if unset. With TLS it has to
    be the same for the agent and for Envoy."""

    @property
    def stream_idle_timeout(self) -> float:
        """The idle timeout, kept above the time a request may be held. 0 is none."""
        return max(self.idle_timeout, self.start_deadline + 60.0) if self.idle_timeout else 0.0
