"""Histograms of latency: added up, taken from each other, and read at a quantile. Pure.

A histogram is the number of requests by the upper bound of their bucket, in milliseconds; the last
bound is infinite. Gateways of two versions may have other bounds: their sum has those of both, and
is read a little less exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Histogram = Mapping[float, int]


def from_cumulative(buckets: Iterable[tuple[float, int]]) -> dict[float, int]:
    """From counts that each have those of all lower bounds in them, as Prometheus writes them."""
    found: dict[float, int] = {}
    below = 0
    for bound, count in sorted(buckets):
        found[bound] = max(0, count - below)
        below = max(below, count)
    return found


def added(one: Histogram, other: Histogram) -> dict[float, int]:
    """Both together."""
    return {bound: one.get(bound, 0) + other.get(bound, 0) for bound in {*one, *other}}


def without(whole: Histogram, part: Histogram) -> dict[float, int]:
    """What came since ``part`` was all there was."""
    return {bound: max(0, count - part.get(bound, 0)) for bound, count in whole.items()}


def quantile(histogram: Histogram, share: float) -> float | None:
    """The latency that this share of requests did not exceed; None of an empty histogram.

    As Prometheus' ``histogram_quantile``: evenly spread within a bucket, from nothing in the first;
    the highest finite bound for what is beyond all.
    """
    total = sum(histogram.values())
    if total <= 0:
        return None
    rank, seen, lower = share * total, 0, 0.0
    for bound in sorted(histogram):
        count = histogram[bound]
        if count and seen + count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * max(0.0, rank - seen) / count
        seen += count
        if not math.isinf(bound):
            lower = bound
    return lower
