"""Which entry of a key counts as of a time: the table of `s3_versions`, and its properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins import S3Ref
from beamlit_operator.origins.stores.s3_versions import versions_under

START = datetime(2026, 1, 1, tzinfo=UTC)
REF = S3Ref("models", "m", versioned=True)


class Store:
    """Answers a listing of versions in pages, as S3 does."""

    def __init__(self, history: list[tuple[str, str | None]], *, page: int = 3) -> None:
        """``history``: key and version (None: deleted), the oldest first, a second apart."""
        entries = []
        for second, (key, version) in enumerate(history):
            latest = key not in [later for later, _ in history[second + 1 :]]
            item = {
                "Key": key,
                "LastModified": START + timedelta(seconds=second),
                "IsLatest": latest,
            }
            if version is not None:
                item |= {"Size": 1, "ETag": f'"{version}"', "VersionId": version}
            entries.append(("DeleteMarkers" if version is None else "Versions", item))
        ordered = sorted(reversed(entries), key=lambda each: str(each[1]["Key"]))
        self._pages: list[dict[str, Any]] = []
        for start in range(0, len(ordered), page):
            part = ordered[start : start + page]
            self._pages.append(
                {k: [i for kind, i in part if kind == k] for k in ("Versions", "DeleteMarkers")}
            )

    def get_paginator(self, _: str) -> Store:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return self._pages


def held(history: list[tuple[str, str | None]], second: int | None) -> dict[str, str]:
    """What is there as of a second, by the history itself."""
    found: dict[str, str] = {}
    for key, version in history if second is None else history[: second + 1]:
        found.pop(key, None)
        if version is not None:
            found[key] = version
    return found


def listed(history: list[tuple[str, str | None]], as_of: str | None) -> tuple[dict[str, str], Any]:
    ref = REF if as_of is None else S3Ref("models", "m", as_of=as_of)
    found, told = versions_under(Store(history), ref, "m/")
    return {each.key: each.id for each in found}, told


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([("a", "a"), ("x", "x"), ("a", "b")], ["a", "a", "b", "b"]),
        ([("a", "a"), ("a", None), ("x", "x")], ["a", None, None, None]),
        ([("a", "a"), ("a", None), ("a", "b")], ["a", None, "b", "b"]),
    ],
)
def test_the_table_of_the_module(
    history: list[tuple[str, str | None]], expected: list[str | None]
) -> None:
    times = [f"2026-01-01T00:00:0{second}Z" for second in range(3)]
    assert [listed(history, when)[0].get("a") for when in (*times, None)] == expected


HISTORIES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d/é"]), st.booleans()), min_size=1, max_size=30
).map(lambda drawn: [(key, f"v{i}" if there else None) for i, (key, there) in enumerate(drawn)])


@given(HISTORIES, st.integers(0, 29))
def test_a_listing_as_of_a_second_is_what_was_there(
    history: list[tuple[str, str | None]], second: int
) -> None:
    moment = (START + timedelta(seconds=second)).isoformat()
    assert listed(history, moment)[0] == held(history, second)
    assert listed(history, None)[0] == held(history, None)


@given(HISTORIES, HISTORIES)
def test_the_time_that_is_told_says_the_same_whatever_comes_later(
    before: list[tuple[str, str | None]], after: list[tuple[str, str | None]]
) -> None:
    found, told = listed(before, None)
    assert told is not None
    later = [(key, f"later-{v}" if v else None) for key, v in after]
    assert listed([*before, *later], told) == (found, told)
