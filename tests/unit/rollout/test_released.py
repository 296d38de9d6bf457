"""Where a revision was released from is told of that one only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from beamlit_operator.api.rollout import HistoryEntry, ReleasedFrom
from beamlit_operator.rollout.history import written

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
FIRST, SECOND = (ReleasedFrom(environment="development", at=at) for at in ("1", "2"))


def entry(revision: str, released: ReleasedFrom | None) -> HistoryEntry:
    return HistoryEntry(
        revision=revision, started_at=NOW, outcome="Serving", released_from=released
    )


@pytest.mark.parametrize(
    ("before", "annotations", "told"),
    [
        ([], FIRST, FIRST),
        ([entry("b", FIRST)], FIRST, FIRST),
        ([entry("a", None)], FIRST, FIRST),
        ([entry("a", FIRST)], SECOND, SECOND),
        # Edited by hand since: the annotations are still those of before.
        ([entry("a", FIRST)], FIRST, None),
        ([entry("b", None), entry("a", FIRST)], FIRST, None),
        ([entry("a", None)], None, None),
    ],
)
def test_an_edit_after_a_release_is_not_from_that_release(
    before: list[HistoryEntry], annotations: ReleasedFrom | None, told: ReleasedFrom | None
) -> None:
    after = written(
        before,
        endings=(),
        serving="b",
        desired="b",
        versions={},
        spec={},
        released=annotations,
        now=NOW,
    )
    assert after[0].revision == "b"
    assert after[0].released_from == told
