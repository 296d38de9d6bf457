"""The recent past of one metric, in buckets of a second. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import deque

_DIGITS = 6
"""Averages are rounded to so many, as Knative's buckets do: 0.3 asked of 0.1 each is 3 replicas."""


class MetricWindow:
    """Averages over the last seconds, in bounded memory.

    The plain mean, as Knative's default (``metric-aggregation-algorithm: linear``). Seconds without
    a sample count neither way: a late tick or a lost answer does not look like missing load, where
    Knative counts a gap between two samples as zero. Samples of one second are averaged first, so
    that extra ticks carry no weight.
    """

    def __init__(self, length_seconds: float, *, now_seconds: float) -> None:
        self._length = length_seconds
        self._started = now_seconds
        # (second, sum, count); one more than the length, for the second that is under way
        self._buckets: deque[tuple[int, float, int]] = deque(maxlen=int(length_seconds) + 1)

    @property
    def length_seconds(self) -> float:
        return self._length

    def add(self, value: float, *, now_seconds: float) -> None:
        """Records a sample. Times must not go back."""
        second = int(now_seconds)
        if self._buckets and self._buckets[-1][0] == second:
            _, total, count = self._buckets.pop()
            self._buckets.append((second, total + value, count + 1))
        else:
            self._buckets.append((second, value, 1))

    def average(self, over_seconds: float, *, now_seconds: float) -> float:
        """The mean over the last ``over_seconds``; 0 if there is no sample in them."""
        oldest = now_seconds - over_seconds
        total, count = 0.0, 0
        for second, value, samples in reversed(self._buckets):
            if second <= oldest:
                break
            total += value / samples
            count += 1
        return round(total / count, _DIGITS) if count else 0.0

    def is_full(self, *, now_seconds: float) -> bool:
        """It has been kept for its whole length."""
        return now_seconds - self._started >= self._length

    def resized(self, length_seconds: float) -> MetricWindow:
        """The same past for another length."""
        other = MetricWindow(length_seconds, now_seconds=self._started)
        other._buckets.extend(self._buckets)
        return other
