"""Matcher trees of a route table, serialised: how a route is found without trying one by one. Pure.

Every function takes and gives serialised messages (:mod:`.wire`). The parts of a tree are its
``OnMatch`` values: a list of routes, of which the first that matches is taken, or another tree.
"""

from __future__ import annotations

from collections.abc import Iterable

from beamlit_operator.gateway.protos import (
    FilterStateInput,
    Matcher,
    Message,
    RequestHeaderInput,
    RouteList,
    packed,
)
from beamlit_operator.gateway.wire import Field, MapField, serialized

_TREE = Field(Matcher, "matcher_tree")
_OTHERWISE = Field(Matcher, "on_no_match")
_NESTED = Field(Matcher.OnMatch, "matcher")
_BY_PREFIX = Field(Matcher.MatcherTree, "prefix_match_map")
_BY_VALUE = Field(Matcher.MatcherTree, "exact_match_map")

branch = MapField(Matcher.MatcherTree.MatchMap, "map")
"""One branch of a tree, by its prefix or value: to be joined with the others."""


def routes(found: Iterable[Message]) -> bytes:
    """The first of these routes that matches."""
    action = {"name": "routes", "typed_config": packed(RouteList(routes=found))}
    return serialized(Matcher.OnMatch(action=action))


def nested(tree: bytes) -> bytes:
    """What another tree finds."""
    return _NESTED(tree)


def by_path(branches: bytes, *, otherwise: bytes) -> bytes:
    """The branch with the longest prefix of the path. A tree may not be without branches."""
    return _tree(_header(":path"), _BY_PREFIX(branches), otherwise)


def by_method(branches: bytes, *, otherwise: bytes) -> bytes:
    """The branch of the request's method."""
    return _tree(_header(":method"), _BY_VALUE(branches), otherwise)


def by_state(key: str, branches: bytes, *, otherwise: bytes) -> bytes:
    """The branch of what a filter left in the filter state under this key."""
    return _tree(FilterStateInput(key=key), _BY_VALUE(branches), otherwise)


def _header(name: str) -> Message:
    return RequestHeaderInput(header_name=name)


def _tree(source: Message, branches: bytes, otherwise: bytes) -> bytes:
    look_at = Matcher.MatcherTree(input={"name": "input", "typed_config": packed(source)})
    return _TREE(serialized(look_at) + branches) + _OTHERWISE(otherwise)
