"""What the benchmark of rollouts takes for wrong."""

from __future__ import annotations

import pytest
from tests.bench.rolloutledger import PROPAGATION, Answer, Weights, judged


def weights() -> Weights:
    """`a` until 10, both until 20, then `b`; `a` is gone at 30."""
    told = Weights()
    for at, shares in (
        (0.0, {"a": 100}),
        (10.0, {"a": 60, "b": 40}),
        (20.0, {"a": 0, "b": 100}),
        (30.0, {"b": 100}),
    ):
        told.note(shares, at)
    return told


@pytest.mark.parametrize(
    ("began", "revision", "astray"),
    [
        (5.0, "a", False),
        (5.0, "b", True),
        (15.0, "a", False),
        (15.0, "b", False),
        (20.0 + PROPAGATION / 2, "a", False),
        (20.1 + PROPAGATION, "a", True),
        (25.0, "b", False),
    ],
)
def test_a_revision_without_traffic_may_serve_for_the_propagation_time_only(
    began: float, revision: str, astray: bool
) -> None:
    found = judged([Answer(began, began + 0.1, 200, revision)], weights(), sticky=False)
    assert bool(found.misrouted) is astray


def test_a_request_that_ends_when_the_revision_has_traffic_is_in_its_place() -> None:
    assert not judged([Answer(9.9, 10.1, 200, "b")], weights(), sticky=False).misrouted


@pytest.mark.parametrize(
    ("answer", "failed", "astray"),
    [
        (Answer(5.0, 5.1, 200, "a", asked="a"), False, False),
        (Answer(25.0, 25.1, 200, "a", asked="a"), False, False),
        (Answer(25.0, 25.1, 200, "b", asked="a"), False, True),
        (Answer(29.0, 31.0, 404, asked="a"), False, False),
        (Answer(25.0, 25.1, 404, asked="a"), True, False),
        (Answer(31.0, 31.1, 503, asked="a"), True, False),
        (Answer(5.0, 5.1, 404), True, False),
    ],
)
def test_a_request_that_names_its_revision_gets_it_while_it_exists(
    answer: Answer, failed: bool, astray: bool
) -> None:
    found = judged([answer], weights(), sticky=False)
    assert (bool(found.failed), bool(found.misrouted)) == (failed, astray)


def test_a_session_moves_once_and_never_back() -> None:
    def session(*revisions: str) -> list[Answer]:
        return [
            Answer(15.0 + n / 10, 15.05 + n / 10, 200, revision, session="s")
            for n, revision in enumerate(revisions)
        ]

    assert not judged(session("a", "a", "b", "b"), weights(), sticky=True).unsteady
    back = session("a", "b", "a")
    assert judged(back, weights(), sticky=True).unsteady == ["s: a b a"]
    assert not judged(back, weights(), sticky=False).unsteady


def test_the_latest_follower_is_told() -> None:
    late = [Answer(20.3, 20.4, 200, "a"), Answer(20.7, 20.8, 200, "a"), Answer(25, 25.1, 200, "b")]
    assert judged(late, weights(), sticky=False).latest == pytest.approx(0.7)
