"""Which revision a request goes to: the routes, walked through as Envoy does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.gateway.splitting import Branch, Share, Sticky, branches, parse_sticky

HEADER, COOKIE = Sticky(header="x-user"), Sticky(cookie="who")


def shares(stable: int, canary: int) -> list[Share]:
    return [
        Share("r1", "demo/iris/r1", stable, stable=True),
        Share("r2", "demo/iris/r2", canary),
    ]


def _matches(branch: Branch, headers: Mapping[str, str]) -> bool:
    for wanted in branch.match.get("headers", ()):
        value, how = headers.get(wanted["name"]), wanted["string_match"]
        if value is None:
            return False
        if "exact" in how and value != how["exact"]:
            return False
        if "safe_regex" in how and not re.fullmatch(how["safe_regex"]["regex"], value):
            return False
    return True


def taken(found: list[Share], sticky: Sticky | None, headers: Mapping[str, str]) -> Branch:
    return next(b for b in branches(found, sticky) if _matches(b, headers))


def leads_to(branch: Branch, number: int) -> str:
    """The cluster for this hash, or this random number, as Envoy walks through the weights."""
    if "cluster" in branch.action:
        return str(branch.action["cluster"])
    clusters: list[dict[str, Any]] = branch.action["weighted_clusters"]["clusters"]
    number %= sum(each["weight"]["value"] for each in clusters)
    for each in clusters:
        if number < each["weight"]["value"]:
            return str(each["name"])
        number -= each["weight"]["value"]
    raise AssertionError("beyond all weights")


@pytest.mark.parametrize("sticky", [None, HEADER, COOKIE])
@pytest.mark.parametrize(
    ("weights", "asked", "found"),
    [
        ((100, 0), "r1", {"demo/iris/r1"}),
        ((100, 0), "r2", {"demo/iris/r2"}),
        ((100, 0), "", {"demo/iris/r1"}),
        ((0, 100), "r1", {"demo/iris/r1"}),
        ((0, 100), "", {"demo/iris/r2"}),
        ((90, 10), "r2", {"demo/iris/r2"}),
        ((90, 10), "", {"demo/iris/r1", "demo/iris/r2"}),
        # The check that follows refuses it, wherever it leads.
        ((90, 10), "r3", {"demo/iris/r1", "demo/iris/r2"}),
        ((30, 10), "", {"demo/iris/r1", "demo/iris/r2"}),
    ],
)
def test_the_header_goes_before_weights(
    sticky: Sticky | None, weights: tuple[int, int], asked: str, found: set[str]
) -> None:
    headers = {"x-beamlit-revision": asked} if asked else {}
    branch = taken(shares(*weights), sticky, headers)
    assert {leads_to(branch, number) for number in range(100)} == found


def test_a_deployment_with_one_revision_has_one_route_without_anything_added() -> None:
    assert list(branches(shares(100, 0)[:1], COOKIE)) == [
        Branch({}, {"cluster": "demo/iris/r1"}, {})
    ]


@given(
    number=st.integers(0, 2**64 - 1),
    weights=st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted),
)
def test_raising_the_weight_moves_nobody_back_from_the_canary(
    number: int, weights: list[int]
) -> None:
    before, after = (
        leads_to(taken(shares(100 - weight, weight), HEADER, {}), number) for weight in weights
    )
    assert before == "demo/iris/r1" or after == "demo/iris/r2"


@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=5),
    stable=st.integers(0, 4),
)
def test_each_revision_gets_its_part_of_all_hashes_whatever_the_sum(
    weights: list[int], stable: int
) -> None:
    found = [
        Share(f"r{i}", f"demo/iris/r{i}", weight, stable=i == stable)
        for i, weight in enumerate(weights)
    ]
    branch = taken(found, None, {})
    led = [leads_to(branch, number) for number in range(sum(weights))]
    assert {share.cluster: led.count(share.cluster) for share in found} == {
        share.cluster: share.weight for share in found
    }


@pytest.mark.parametrize(
    ("cookies", "is_set"),
    [
        (None, True),
        ("other=1", True),
        ("xwho=1", True),
        ("who=", True),
        ("who=1", False),
        ("other=2; who=1", False),
        ("who=1; other=2", False),
        ("other=who=1", True),
    ],
)
def test_the_cookie_is_set_for_who_brings_none(cookies: str | None, is_set: bool) -> None:
    headers = {"x-request-id": "0ff1-ce", **({"cookie": cookies} if cookies is not None else {})}
    branch = taken(shares(90, 10), COOKIE, headers)
    added = branch.answer.get("response_headers_to_add", [])
    assert [each["header"]["key"] for each in added] == (["set-cookie"] if is_set else [])


def test_a_callers_request_id_becomes_no_attribute_of_the_cookie() -> None:
    branch = taken(shares(90, 10), COOKIE, {"x-request-id": "1; Domain=example.com"})
    assert branch.answer == {}
    assert "weighted_clusters" in branch.action


@pytest.mark.parametrize(
    ("rollout", "found"),
    [
        (None, None),
        ({}, None),
        ({"sticky": {"header": "X-User"}}, Sticky(header="x-user")),
        ({"sticky": {"cookie": "Who"}}, Sticky(cookie="Who")),
        ({"sticky": {"header": "x y", "cookie": 3}}, None),
        ({"sticky": {"header": "x", "cookie": "y"}}, Sticky(header="x")),
        ({"sticky": "x"}, None),
    ],
)
def test_what_makes_callers_stay_is_read_leniently(rollout: object, found: Sticky | None) -> None:
    assert parse_sticky(rollout) == found
