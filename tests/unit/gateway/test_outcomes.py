"""What is told of the latency of revisions."""

from __future__ import annotations

import json

import pytest

from beamlit_operator.gateway.outcomes import latencies
from beamlit_operator.rollout.latency import from_cumulative, quantile

NAME = "demo/iris-production/iris-production-1"


def envoys(*bins: tuple[float, float, int]) -> str:
    """As Envoy writes a histogram of these bins: where each begins, how wide it is, its count."""
    totals = [{"lower_bound": lower, "width": width, "count": n} for lower, width, n in bins]
    details = [{"name": f"beamlit.duration.cluster.{NAME}", "totals": totals}]
    return json.dumps({"stats": [{"histograms": {"details": details}}]})


@pytest.mark.parametrize(
    ("bins", "found"),
    [
        ((), []),
        (((0, 0, 178),), [[0, 0], [1, 178]]),
        (((0, 0, 10), (1, 0.1, 3)), [[0, 0], [1, 10], [2, 13]]),
        (((3, 0.1, 5), (12, 1, 4)), [[3, 0], [4, 5], [12, 5], [13, 9]]),
        (((120, 10, 1), (130, 10, 1)), [[120, 0], [130, 1], [140, 2]]),
    ],
)
def test_bins_become_rising_counts_with_both_their_ends(
    bins: tuple[tuple[float, float, int], ...], found: list[list[float]]
) -> None:
    assert latencies(envoys(*bins)) == {NAME: found}


def test_an_envoy_without_such_histograms_has_nothing_to_tell() -> None:
    assert latencies('{"stats": []}') == {}


@pytest.mark.parametrize("milliseconds", [0, 1, 7, 49, 51, 99, 480, 7300])
def test_the_quantile_of_what_is_told_is_within_a_tenth(milliseconds: int) -> None:
    width = 0 if not milliseconds else 10 ** (len(str(milliseconds)) - 2)
    lower = milliseconds // width * width if width >= 1 else milliseconds
    told = latencies(envoys((lower, width, 1000)))[NAME]
    found = quantile(from_cumulative([(bound, int(n)) for bound, n in told]), 0.95)
    assert found is not None
    assert abs(found - milliseconds) <= max(1.0, 0.1 * milliseconds)
