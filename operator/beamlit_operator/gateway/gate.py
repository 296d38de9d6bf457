"""What Envoy has in front of all routes when callers are authenticated. Pure.

::

    main listener:  gate (Lua) ─► ... ─► body filters ─► gate_body (Lua) ─► ... ─► router
                      │ at a miss only                     │
                      └──────────► review listener ◄───────┘
                                   jwt_authn: signature, time, audience ─► agent: who, and may they?

The gate remembers decisions by token and deployment for seconds, so a warm request costs a look
into a table of its own thread. The review listener is inside this Envoy: what is no token, or one
with a bad signature, ends there and never reaches the agent, whose reviews are :mod:`.reviews`.

Metadata of a route says what it leads to; what says nothing is for those only who may invoke
everything in the workspace (:data:`ANYBODY` is the exception). Under the name of the first filter
where a route is found by path or host, of the second where a body's ``model`` led to it.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from beamlit_operator.api.apikey import PREFIX
from beamlit_operator.gateway import names
from beamlit_operator.gateway.catalog import Deployment
from beamlit_operator.gateway.clusters import UNLIMITED, upstream
from beamlit_operator.gateway.issuers import CLUSTER
from beamlit_operator.gateway.protos import (
    Cluster,
    FilterConfig,
    HttpConnectionManager,
    JwtAuthentication,
    Listener,
    LocalRateLimit,
    Lua,
    LuaPerRoute,
    Message,
    Router,
    packed,
)
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.settings import GatewaySettings

GATE, GATE_BODY = "gate", "gate_body"

TOKEN_HEADER = "x-beamlit-token"  # noqa: S105
CLAIMS_HEADER = "x-beamlit-claims"
"""Inside Envoy only: what jwt_authn read in a token that it found good."""

LONGEST_TOKEN = 16 * 1024
"""Bytes of a token that is looked at. Tokens with hundreds of groups have some 10 KB."""

LONGEST_ASKED = 600
"""Bytes of what is asked for that are told apart: more than any address of a deployment has."""

REMEMBERED = 4096
"""Tokens that a worker thread remembers; as many again fade out."""

DECISIONS = 256
"""Decisions that are remembered of one token."""

QUESTIONS = 128
"""Questions of one caller that a worker thread has open, or had answered with no in this second."""

KEY_REVIEWS = 500
"""Reviews of API keys a second that reach an agent: one that is guessed at costs it 0.2 ms, so a
flood of guesses takes a tenth of its time at most."""

REVIEWS_AT_ONCE = 1024
"""Reviews under way, of either kind; more are answered 503."""

KEYS_AGE = 10
"""Seconds after which Envoy asks the agent for the issuers' keys again."""

_PATIENCE = 5.0
_MEANWHILE = 5


def first_filter(settings: GatewaySettings) -> list[dict[str, Any]]:
    """The gate before anything of the body is read."""
    return [_filter(GATE, settings)] if settings.authentication else []


def second_filter(settings: GatewaySettings) -> list[dict[str, Any]]:
    """The gate where the body said what is asked for. Off but where :func:`reading` turns it on."""
    if not settings.authentication:
        return []
    return [{**_filter(GATE_BODY, settings, after_body=True), "disabled": True}]


def reading(settings: GatewaySettings) -> dict[str, Message]:
    """What a route that has bodies read says to turn the second gate on."""
    if not settings.authentication:
        return {}
    asked = LuaPerRoute(name=GATE_BODY)
    return {GATE_BODY: packed(FilterConfig(config=packed(asked)))}


def _filter(name: str, settings: GatewaySettings, *, after_body: bool = False) -> dict[str, Any]:
    script = Lua(
        source_codes={name: {"inline_string": _script(settings, after_body=after_body)}},
        default_source_code={"inline_string": _script(settings, after_body=after_body)},
        clear_route_cache={"value": False},
    )
    return {"name": name, "typed_config": packed(script)}


def _script(settings: GatewaySettings, *, after_body: bool) -> str:
    before, _, after = FORBIDDEN.body.partition(_CALLER)
    constants: dict[str, object] = {
        "AFTER_BODY": after_body,
        "LOGGED": settings.access_log != "off",
        "TTL": settings.decision_ttl,
        # Who was just given a right does not want to wait.
        "REFUSED_TTL": settings.decision_ttl / 4,
        "STALE": settings.decision_stale,
        "MEANWHILE": _MEANWHILE,
        "PATIENCE_MS": round(_PATIENCE * 1000),
        "LONGEST": LONGEST_TOKEN,
        "LONGEST_ASKED": LONGEST_ASKED,
        "REMEMBERED": REMEMBERED,
        "DECISIONS": DECISIONS,
        "QUESTIONS": QUESTIONS,
        "KEY_PREFIX": PREFIX,
        "REVIEWERS": names.REVIEW_CLUSTER,
        "UNAUTHENTICATED": UNAUTHENTICATED.body,
        "FORBIDDEN_BEFORE": before,
        "FORBIDDEN_AFTER": after,
        "UNAVAILABLE": UNDECIDED.body,
        "RETRY_AFTER": UNDECIDED.headers["retry-after"],
    }
    suffixes = (f".svc.{settings.cluster_domain}", ".svc", f".{settings.domain}")
    listed = ", ".join(_literal(suffix) for suffix in suffixes)
    head = [f"local {name} = {_literal(value)}" for name, value in constants.items()]
    return "\n".join([*head, f"local SUFFIXES = {{{listed}}}", _source()])


def _literal(value: object) -> str:
    """In Lua, whose strings are written as JSON's as long as they are ASCII without ``\\u`` or
    ``\\/``."""
    return json.dumps(value)


@cache
def _source() -> str:
    return files("beamlit_operator.gateway").joinpath("gate.lua").read_text("utf-8")


_CALLER = "<caller>"

UNAUTHENTICATED = Reply(
    401,
    ErrorReason.UNAUTHENTICATED,
    "a valid token is needed: send `X-Beamlit-Authorization: Bearer <token>`, "
    "or the same in `Authorization`",
)

FORBIDDEN = Reply(
    403,
    ErrorReason.FORBIDDEN,
    f"{_CALLER} may not call this endpoint, or there is none: the right to create "
    "modeldeployments/invoke (beamlit.com) in the workspace is needed",
)

UNDECIDED = Reply(
    503,
    ErrorReason.UNDECIDED,
    "who calls, or whether they may, cannot be found out at the moment; try again shortly",
    2.0,
)


def led(routes: list[Message], deployment: Deployment, *, by: str = GATE) -> list[Message]:
    """The routes of a deployment, with a note whose they are, for the filter ``by``."""
    if deployment.guarded:
        about: dict[str, Any] = {"d": str(deployment.key)}
        if deployment.public:
            about["public"] = True
        for route in routes:
            noted(route, about, by=by)
    return routes


def by_host(routes: list[Message]) -> list[Message]:
    """The routes of a virtual host, with a note that its name led to them."""
    for route in routes:
        if GATE in route.metadata.filter_metadata:
            noted(route, {"h": True})
    return routes


ANYBODY = {"any": True}
"""For who is authenticated, whatever they may: the answer is the same for what does not exist."""

NOTHING = {"none": True}
"""The same, where the host is no name that a deployment could have."""

LATER = {"any": True, "later": True}
"""The same, and the body says the rest."""

OPEN_LATER = {**LATER, "open": True}
"""There are public deployments, so the body has to be read of who is not authenticated too."""


def noted(route: Message, about: dict[str, Any], *, by: str = GATE) -> Message:
    """The route, with this said of it."""
    route.metadata.filter_metadata[by].update(about)
    return route


def review_listener(settings: GatewaySettings) -> Message:
    """Where the gates ask. No network address reaches it."""
    router = Router(suppress_envoy_headers=True)
    to_agent = {
        "cluster": names.REVIEW_AGENT,
        "timeout": {"seconds": int(_PATIENCE)},
        # An agent that starts again is away for a second or two: who asks is made to wait for it.
        # To ask twice does no harm.
        "retry_policy": {
            "retry_on": "connect-failure,reset",
            "num_retries": {"value": 20},
            "retry_back_off": {
                "base_interval": {"nanos": 100_000_000},
                "max_interval": {"nanos": 400_000_000},
            },
        },
    }
    flood = LocalRateLimit(
        stat_prefix="key_reviews",
        token_bucket={
            "max_tokens": KEY_REVIEWS,
            "tokens_per_fill": {"value": KEY_REVIEWS},
            "fill_interval": {"seconds": 1},
        },
        filter_enabled={"default_value": {"numerator": 100}},
        filter_enforced={"default_value": {"numerator": 100}},
        status={"code": 503},
    )
    unlimited = LocalRateLimit(stat_prefix="reviews")
    manager = HttpConnectionManager(
        stat_prefix=names.REVIEW_LISTENER,
        codec_type="AUTO",
        use_remote_address={"value": False},
        skip_xff_append=True,
        generate_request_id={"value": False},
        route_config={
            "name": names.REVIEW_LISTENER,
            "virtual_hosts": [
                {
                    "name": "reviews",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"path": "/key"},
                            "route": to_agent,
                            "typed_per_filter_config": {"flood": packed(flood)},
                        },
                        {
                            "match": {"path": "/known"},
                            "route": {**to_agent, "prefix_rewrite": "/key"},
                        },
                        {"match": {"path": "/token"}, "route": to_agent},
                    ],
                }
            ],
        },
        http_filters=[
            {"name": "flood", "typed_config": packed(unlimited)},
            {"name": "tokens", "typed_config": packed(_tokens(settings))},
            {"name": "router", "typed_config": packed(router)},
        ],
        common_http_protocol_options={"max_headers_count": {"value": 50}},
        max_request_headers_kb={"value": 96},
    )
    return Listener(
        name=names.REVIEW_LISTENER,
        internal_listener={},
        filter_chains=[{"filters": [{"name": "http", "typed_config": packed(manager)}]}],
    )


def _tokens(settings: GatewaySettings) -> Message:
    providers = {
        # Its issuer is told by the API server, and compared by the agent and by the API server.
        CLUSTER: _provider(CLUSTER, audiences=settings.audiences),
        **{
            f"oidc{i}": _provider(f"oidc{i}", audiences=each.audiences, issuer=each.issuer)
            for i, each in enumerate(settings.issuers)
        },
    }
    requirements = [{"provider_name": name} for name in providers]
    needed = (
        requirements[0]
        if len(requirements) == 1
        else {"requires_any": {"requirements": requirements}}
    )
    return JwtAuthentication(
        providers=providers, rules=[{"match": {"path": "/token"}, "requires": needed}]
    )


def _provider(name: str, *, audiences: tuple[str, ...], issuer: str = "") -> dict[str, Any]:
    return {
        "issuer": issuer,
        "audiences": list(audiences),
        "require_expiration": True,
        "clock_skew_seconds": 10,
        "from_headers": [{"name": TOKEN_HEADER}],
        # The agent has the API server look at it too.
        "forward": True,
        "forward_payload_header": CLAIMS_HEADER,
        "remote_jwks": {
            "http_uri": {
                "uri": f"http://agent/keys/{name}",
                "cluster": names.REVIEW_AGENT,
                "timeout": {"seconds": 5},
            },
            # Fetched when somebody shows a token: who comes first after a start waits for them.
            "cache_duration": {"seconds": KEYS_AGE},
        },
    }


def clusters(settings: GatewaySettings) -> list[Message]:
    """Static clusters: the near end of the review listener, and the agent behind it."""
    if not settings.authentication:
        return []
    near = {"envoy_internal_address": {"server_listener_name": names.REVIEW_LISTENER}}
    agent = settings.authentication_listen
    address = {"socket_address": {"address": agent.host, "port_value": agent.port}}
    busy = {"thresholds": [{"max_requests": {"value": REVIEWS_AT_ONCE}}]}
    return [
        Cluster(
            name=names.REVIEW_CLUSTER,
            type="STATIC",
            connect_timeout={"seconds": 1},
            circuit_breakers=busy,
            typed_extension_protocol_options=upstream(h2c=True),
            load_assignment=_assignment(names.REVIEW_CLUSTER, near),
        ),
        Cluster(
            name=names.REVIEW_AGENT,
            type="STATIC",
            connect_timeout={"seconds": 1},
            circuit_breakers=UNLIMITED,
            typed_extension_protocol_options=upstream(h2c=False),
            load_assignment=_assignment(names.REVIEW_AGENT, address),
        ),
    ]


def _assignment(name: str, address: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }
