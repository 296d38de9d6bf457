"""Whether a live object is as wanted, without asking the API server."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.controllers.likeness import Settled, digest, holds, stamped

HOLDS: list[tuple[str, Any, Any, bool]] = [
    ("what others add is not ours to judge", {"a": 1}, {"a": 1, "b": 2}, True),
    ("a changed value", {"a": 1}, {"a": 2}, False),
    ("a missing value", {"a": 1}, {}, False),
    ("empty and absent are the same", {"a": {}, "b": []}, {}, True),
    ("a boolean is no number", {"a": True}, {"a": 1}, False),
    ("lists of equal length by position", [{"x": 1}], [{"x": 1, "y": 2}], True),
    ("a longer list", [1], [1, 2], False),
    (
        "named items in another order",
        [{"name": "a"}, {"name": "b"}],
        [{"name": "b"}, {"name": "a"}],
        True,
    ),
    ("a named item beside ours", [{"name": "a"}], [{"name": "side"}, {"name": "a"}], True),
    ("a named item that is missing", [{"name": "a"}], [{"name": "b"}], False),
]


@pytest.mark.parametrize(
    ("wanted", "live", "result"), [c[1:] for c in HOLDS], ids=[c[0] for c in HOLDS]
)
def test_holds(wanted: Any, live: Any, result: bool) -> None:
    assert holds(wanted, live) is result


def test_a_field_that_is_no_longer_wanted_shows_in_the_digest() -> None:
    before = stamped({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}})
    after = stamped({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert holds(before, before)
    assert not holds(after, before)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_value_that_the_server_rewrites_settles_after_one_apply() -> None:
    wanted = stamped({"metadata": {"name": "x"}, "spec": {"cpu": "1000m"}})
    live = {**wanted, "spec": {"cpu": "1", "replicas": 0}}
    live["metadata"] = {**wanted["metadata"], "uid": "u", "resourceVersion": "1"}
    settled = Settled()
    assert not settled.same(wanted, live)
    settled.remember(wanted, live)
    assert settled.same(wanted, live)
    scaled = {**live, "spec": {**live["spec"], "replicas": 5}, "status": {"ready": 1}}
    assert settled.same(wanted, scaled)
    drifted = {**live, "spec": {"cpu": "2"}}
    assert not settled.same(wanted, drifted)
    settled.forget("u")
    assert not settled.same(wanted, live)
