"""Which folders of a cache go."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins.fetching.eviction import GRACE_SECONDS, Entry, chosen

NOW = 1_000_000.0
LONG_AGO = NOW - GRACE_SECONDS - 1

ENTRIES = st.lists(
    st.builds(
        Entry,
        name=st.sampled_from("abcdefghij"),
        complete=st.booleans(),
        bytes=st.integers(0, 1000),
        used=st.floats(NOW - 5000, NOW + 5000),
    ),
    unique_by=lambda entry: entry.name,
)
KEPT = st.frozensets(st.sampled_from("abcdefghij"))
LIMITS = st.none() | st.integers(0, 5000)


def entry(name: str, *, size: int = 10, used: float = LONG_AGO, complete: bool = True) -> Entry:
    return Entry(name, complete, size, used)


def names(entries: Sequence[Entry]) -> list[str]:
    return [each.name for each in entries]


@pytest.mark.parametrize(
    ("found", "keep", "limit", "going"),
    [
        ([entry("a")], set(), None, []),
        ([entry("a")], set(), 10, []),
        ([entry("a")], set(), 9, ["a"]),
        ([entry("a")], {"a"}, 0, []),
        ([entry("a", used=NOW - 60)], set(), 0, []),
        ([entry("a", used=NOW + 60)], set(), 0, []),
        ([entry("a", complete=False)], set(), None, ["a"]),
        ([entry("a", complete=False)], {"a"}, None, []),
        ([entry("a", complete=False, used=NOW - 60)], set(), 0, []),
        ([entry("a", used=LONG_AGO), entry("b", used=LONG_AGO - 9)], set(), 10, ["b"]),
        ([entry("a", used=LONG_AGO), entry("b", used=LONG_AGO - 9)], {"b"}, 10, ["a"]),
        ([entry("a"), entry("b", complete=False)], set(), 10, ["b"]),
    ],
)
def test_the_table_of_the_module(
    found: list[Entry], keep: set[str], limit: int | None, going: list[str]
) -> None:
    assert names(chosen(found, keep=keep, then=NOW, limit=limit)) == going


@given(ENTRIES, KEPT, LIMITS)
def test_what_is_kept_or_was_used_lately_never_goes(
    found: list[Entry], keep: frozenset[str], limit: int | None
) -> None:
    for each in chosen(found, keep=keep, then=NOW, limit=limit):
        assert each.name not in keep
        assert each.used < NOW - GRACE_SECONDS


@given(ENTRIES, KEPT, st.integers(0, 5000))
def test_no_more_goes_than_the_limit_takes_and_nothing_else_could_go_instead(
    found: list[Entry], keep: frozenset[str], limit: int
) -> None:
    going = chosen(found, keep=keep, then=NOW, limit=limit)
    left = [each for each in found if each not in going]
    complete = [each for each in going if each.complete]
    if complete:
        # Without the last one it would still have been too much.
        assert sum(each.bytes for each in left) + complete[-1].bytes > limit
    if sum(each.bytes for each in left) > limit:
        assert not chosen(left, keep=keep, then=NOW, limit=limit)


@given(ENTRIES, KEPT, st.integers(0, 5000))
def test_whatever_stays_was_used_later_than_what_went(
    found: list[Entry], keep: frozenset[str], limit: int
) -> None:
    going = chosen(found, keep=keep, then=NOW, limit=limit)
    oldest_left = [
        each.used for each in found if each not in going and each.complete and each.name not in keep
    ]
    gone = [each.used for each in going if each.complete]
    if gone and oldest_left:
        assert max(gone) <= min(oldest_left)


@given(ENTRIES, KEPT, KEPT, LIMITS)
def test_to_keep_more_never_removes_what_was_kept_before(
    found: list[Entry], keep: frozenset[str], more: frozenset[str], limit: int | None
) -> None:
    for each in chosen(found, keep=keep | more, then=NOW, limit=limit):
        assert each.name not in keep


@given(ENTRIES, KEPT, LIMITS, st.randoms())
def test_the_order_of_folders_decides_nothing(
    found: list[Entry], keep: frozenset[str], limit: int | None, random
) -> None:
    mixed = list(found)
    random.shuffle(mixed)
    once = chosen(found, keep=keep, then=NOW, limit=limit)
    again = chosen(mixed, keep=keep, then=NOW, limit=limit)
    assert sorted(names(once)) == sorted(names(again))
