"""The metric's recent past."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.autoscaling.window import MetricWindow


def test_the_average_covers_the_asked_seconds_only() -> None:
    window = MetricWindow(60, now_seconds=100)
    for second in range(100, 160, 2):
        window.add(1.0 if second < 154 else 10.0, now_seconds=second)
    assert window.average(6, now_seconds=159) == 10.0
    assert window.average(60, now_seconds=159) == pytest.approx((27 * 1 + 3 * 10) / 30)


def test_seconds_without_a_sample_do_not_look_like_idle_ones() -> None:
    window = MetricWindow(60, now_seconds=0)
    window.add(4.0, now_seconds=0)
    window.add(4.0, now_seconds=40)
    assert window.average(60, now_seconds=50) == 4.0


def test_several_samples_of_a_second_weigh_as_one() -> None:
    window = MetricWindow(60, now_seconds=0)
    for moment in (1.0, 1.2, 1.4, 1.6):
        window.add(8.0, now_seconds=moment)
    window.add(0.0, now_seconds=2.0)
    assert window.average(60, now_seconds=3) == 4.0


def test_no_sample_is_no_load() -> None:
    window = MetricWindow(60, now_seconds=0)
    window.add(5.0, now_seconds=1)
    assert window.average(60, now_seconds=100) == 0.0


def test_it_is_full_after_its_length() -> None:
    window = MetricWindow(60, now_seconds=100)
    assert not window.is_full(now_seconds=159.9)
    assert window.is_full(now_seconds=160)


def test_a_new_length_keeps_the_past() -> None:
    window = MetricWindow(60, now_seconds=0)
    for second in range(60):
        window.add(float(second), now_seconds=second)
    assert window.resized(10).average(10, now_seconds=59) == pytest.approx(54.5)
    assert not window.resized(120).is_full(now_seconds=60)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 5)), max_size=300))
def test_memory_is_bounded_and_averages_lie_between_the_samples(
    samples: list[tuple[float, float]],
) -> None:
    window, now = MetricWindow(20, now_seconds=0), 0.0
    for value, passed in samples:
        now += passed
        window.add(value, now_seconds=now)
        assert 0 <= window.average(20, now_seconds=now) <= 100 + 1e-9
    assert len(window._buckets) <= 21
