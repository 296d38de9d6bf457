"""Which revision of a deployment a request goes to. Pure.

=============================  ==================  ===============================================
``x-beamlit-revision``         listed revisions    the request goes to
=============================  ==================  ===============================================
names one of them              several             that one, whatever its weight
names none of them             any                 404 ``UnknownRevision``
names the only one             one                 that one
is missing or empty            one with traffic    that one
is missing or empty            several with        one of them by weight: by chance, or by the
                               traffic             hash of what ``rollout.sticky`` names
=============================  ==================  ===============================================

*Listed* are those of ``status.revisions``. A deployment has routes of its own for the header only
while several are listed. All others are covered by one filter (:func:`revision_check`): it compares
the header, where there is one, with the cluster that the routes chose.

Envoy takes the hash modulo the sum of the weights and walks through the clusters in their order.
The stable revision comes last, so a canary has the hashes from 0 up to its weight: raising the
weight moves callers to it, and none away from it.

A caller without the sticky cookie is placed by its request id and gets that id as the cookie, whose
hash is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api.rollout import HEADER_NAME
from beamlit_operator.gateway import names
from beamlit_operator.gateway.protos import (
    Expression,
    ExtensionWithMatcher,
    Message,
    Rbac,
    RequestHeaderInput,
    SkipFilter,
    packed,
)

CHECK = "unknown_revision"
"""The name of the check, by which its refusals are found (:mod:`.localreplies`)."""

_NAME = re.compile(HEADER_NAME)


@dataclass(frozen=True, slots=True)
class Sticky:
    """What keeps a caller with the revision it got: the value of a header, or of a cookie."""

    header: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """A listed revision, and its part of the requests. ``stable`` is the one callers move away
    from."""

    name: str
    cluster: str
    weight: int
    stable: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """One route of several for the same path: what it matches beside it, where it leads, and what
    answers get."""

    match: dict[str, Any]
    action: dict[str, Any]
    answer: dict[str, Any]


def parse_sticky(rollout: object) -> Sticky | None:
    """Reads ``spec.rollout.sticky``, leniently: what the schema would refuse counts as not said."""
    found = rollout.get("sticky") if isinstance(rollout, dict) else None
    if not isinstance(found, dict):
        return None
    header, cookie = (_token(found.get(key)) for key in ("header", "cookie"))
    return Sticky(header.lower(), "" if header else cookie) if header or cookie else None


def _token(value: object) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def branches(shares: Sequence[Share], sticky: Sticky | None) -> Iterator[Branch]:
    """The routes to these revisions, of which the first that matches is taken."""
    several = len(shares) > 1
    if several:
        for share in shares:
            asked = {"name": names.REVISION_HEADER, "string_match": {"exact": share.name}}
            yield Branch({"headers": [asked]}, {"cluster": share.cluster}, _answered_by(share))
    weighted = sorted((s for s in shares if s.weight), key=lambda s: (s.stable, s.name))
    if len(weighted) == 1:
        only = weighted[0]
        yield Branch({}, {"cluster": only.cluster}, _answered_by(only) if several else {})
        return
    if sticky is not None and sticky.cookie:
        brought = {"name": "cookie", "string_match": {"safe_regex": {"regex": _has(sticky.cookie)}}}
        yield Branch({"headers": [brought]}, _by_weight(weighted, sticky), {})
        # A caller's own id must not bring attributes of a cookie with it.
        plain = {"name": "x-request-id", "string_match": {"safe_regex": {"regex": r"[\w.+/=-]+"}}}
        set_cookie = _added(_set_cookie(sticky.cookie))
        yield Branch({"headers": [plain]}, _by_weight(weighted, sticky), set_cookie)
    yield Branch({}, _by_weight(weighted, sticky), {})


def _has(cookie: str) -> str:
    return rf"(.*;)?\s*{re.escape(cookie)}=[^;\s].*"


def _by_weight(shares: Sequence[Share], sticky: Sticky | None) -> dict[str, Any]:
    clusters = [
        {"name": s.cluster, "weight": {"value": s.weight}, **_answered_by(s)} for s in shares
    ]
    if sticky is None:
        return {"weighted_clusters": {"clusters": clusters}}
    return {
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": {"value": True}},
        "hash_policy": _placed_by(sticky),
    }


def _placed_by(sticky: Sticky) -> list[dict[str, Any]]:
    """The hash that chooses the revision. Without the header there is none, and chance decides."""
    if sticky.header:
        return [{"header": {"header_name": sticky.header}}]
    return [
        {"cookie": {"name": sticky.cookie}, "terminal": True},
        {"header": {"header_name": "x-request-id"}},
    ]


def _answered_by(share: Share) -> dict[str, Any]:
    # The cold listener says so itself of a request that went to another revision than it came for.
    return _added((names.REVISION_HEADER, share.name, "ADD_IF_ABSENT"))


def _set_cookie(name: str) -> tuple[str, str, str]:
    value = f"{name}=%REQ(X-REQUEST-ID)%; Path=/; HttpOnly; SameSite=Lax"
    return "set-cookie", value, "APPEND_IF_EXISTS_OR_ADD"


def _added(header: tuple[str, str, str]) -> dict[str, Any]:
    key, value, how = header
    added = {"header": {"key": key, "value": value}, "append_action": how}
    return {"response_headers_to_add": [added]}


def revision_check() -> dict[str, Any]:
    """The filter that refuses a request whose header names another revision than the one it would
    go to. Requests without the header pass it by."""
    refusal = {
        "permissions": [{"any": True}],
        "principals": [{"any": True}],
        "condition": _leads_elsewhere(),
        "cel_config": {"enable_string_concat": True},
    }
    check = Rbac(rules={"action": "DENY", "policies": {CHECK: refusal}})
    header = {
        "name": "header",
        "typed_config": packed(RequestHeaderInput(header_name=names.REVISION_HEADER)),
    }
    says_something = {"safe_regex": {"google_re2": {}, "regex": ".+"}}
    asked = {"single_predicate": {"input": header, "value_match": says_something}}
    skip = {"action": {"name": "skip", "typed_config": packed(SkipFilter())}}
    return {
        "name": CHECK,
        "typed_config": packed(
            ExtensionWithMatcher(
                extension_config={"name": CHECK, "typed_config": packed(check)},
                xds_matcher={
                    "matcher_list": {
                        "matchers": [{"predicate": {"not_matcher": asked}, "on_match": skip}]
                    }
                },
            )
        ),
    }


def _leads_elsewhere() -> Message:
    """``!xds.cluster_name.endsWith("/" + request.headers["x-beamlit-revision"])``, parsed. Errors,
    as that of a route which leads to no cluster, count as false."""
    cluster = _select(_name("xds"), "cluster_name")
    header = _call("_[_]", _select(_name("request"), "headers"), _text(names.REVISION_HEADER))
    ending = _call("_+_", _text("/"), header)
    ends = Expression(call_expr={"function": "endsWith", "target": cluster, "args": [ending]})
    return _call("!_", ends)


def _name(name: str) -> Message:
    return Expression(ident_expr={"name": name})


def _text(value: str) -> Message:
    return Expression(const_expr={"string_value": value})


def _select(operand: Message, field: str) -> Message:
    return Expression(select_expr={"operand": operand, "field": field})


def _call(function: str, *args: Message) -> Message:
    return Expression(call_expr={"function": function, "args": args})
