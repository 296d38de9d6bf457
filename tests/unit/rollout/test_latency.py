"""Histograms of latency."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.rollout.latency import added, from_cumulative, quantile, without

BOUNDS = (1.0, 5.0, 10.0, 100.0, math.inf)
histograms = st.fixed_dictionaries({bound: st.integers(0, 1000) for bound in BOUNDS})


@pytest.mark.parametrize(
    ("histogram", "share", "found"),
    [
        ({}, 0.95, None),
        ({1.0: 0, math.inf: 0}, 0.95, None),
        ({10.0: 100}, 0.95, 9.5),
        ({10.0: 50, 20.0: 50}, 0.5, 10.0),
        ({10.0: 50, 20.0: 50}, 0.95, 19.0),
        ({10.0: 90, 20.0: 0, 40.0: 10}, 0.95, 30.0),
        ({10.0: 1}, 1.0, 10.0),
        # Beyond all bounds: the highest that is known.
        ({10.0: 90, math.inf: 10}, 0.95, 10.0),
        ({math.inf: 10}, 0.95, 0.0),
    ],
)
def test_a_quantile_lies_within_its_bucket_in_proportion(
    histogram: dict[float, int], share: float, found: float | None
) -> None:
    assert quantile(histogram, share) == found


def test_cumulative_counts_become_counts_by_bucket() -> None:
    assert from_cumulative([(5.0, 3), (1.0, 1), (math.inf, 4)]) == {1.0: 1, 5.0: 2, math.inf: 1}


@given(histograms, histograms)
def test_what_was_added_can_be_taken_away(one: dict[float, int], other: dict[float, int]) -> None:
    assert without(added(one, other), other) == one


@given(histograms, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_greater_share_has_no_lower_quantile(
    histogram: dict[float, int], one: float, other: float
) -> None:
    low, high = (quantile(histogram, share) for share in sorted((one, other)))
    assert (low is None) == (high is None) == (sum(histogram.values()) == 0)
    if low is not None and high is not None:
        assert 0 <= low <= high <= 100
