"""The autoscaler in virtual time: the scenarios that the documentation shows, and what always
holds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.autoscaling import Gateway, Row, Simulation
from tests.support.autoscaling_scenarios import CONFIG, SCENARIOS, idle, steady

from beamlit_operator.autoscaling.kpa import ScalingConfig


def rows_of(name: str) -> list[Row]:
    return SCENARIOS[name].simulation.run()


def at(rows: list[Row], second: int) -> Row:
    return next(row for row in rows if row.second == second)


def changes(rows: list[Row], *, after: int = 0) -> list[tuple[int, int]]:
    """(second, wanted) of each change."""
    found, before = [], None
    for row in rows:
        if before is not None and row.desired != before and row.second > after:
            found.append((row.second, row.desired))
        before = row.desired
    return found


def test_a_sleeping_deployment_gets_all_that_a_steady_load_needs_at_once_and_keeps_it() -> None:
    rows = rows_of("steady")
    assert {row.desired for row in rows} == {5}
    assert at(rows, 8).ready == 5


def test_a_ramp_is_followed_with_half_a_window_of_delay() -> None:
    rows = rows_of("ramp")
    for row in rows:
        if 90 <= row.second <= 240:
            behind = row.demand - row.desired * 10.0
            assert behind <= 0, f"at {row.second} replicas carry more than their target"
    assert at(rows, 300).desired == 20
    assert changes(rows, after=300) == []


def test_a_burst_gets_its_replicas_at_once_and_keeps_them_for_a_window() -> None:
    rows = rows_of("burst")
    assert at(rows, 30).desired == 29
    assert at(rows, 30).panicking
    assert {row.desired for row in rows if 30 <= row.second <= 96} == {29}
    assert at(rows, 120).desired == 2
    assert changes(rows, after=120) == []


def test_a_sawtooth_is_smoothed() -> None:
    rows = [row for row in rows_of("sawtooth") if row.second >= 120]
    assert {row.desired for row in rows} <= {4, 5, 6}
    assert not any(row.panicking for row in rows)


def test_load_that_ends_is_followed_to_zero_by_window_and_grace() -> None:
    rows = rows_of("idle")
    assert changes(rows) == [(70, 4), (82, 3), (94, 2), (106, 1), (148, 0)]


def test_a_gateway_that_dies_changes_nothing_for_the_callers_that_moved() -> None:
    assert changes(rows_of("gateway-lost")) == []


def test_a_gateway_that_is_not_heard_ends_nothing_for_a_minute() -> None:
    plan = Simulation(
        steady, 300, gateways=(Gateway(), Gateway(silent=(120, 300))), replicas=5, scaling=CONFIG
    )
    rows = plan.run()
    assert changes(rows, after=62)[0][0] >= 180


def test_late_figures_delay_and_lose_nothing() -> None:
    prompt, late = rows_of("burst"), rows_of("metrics-late")
    assert max(row.desired for row in late) == max(row.desired for row in prompt)
    assert at(late, 44).desired == 29
    assert at(late, 130).desired == 2


def test_nothing_is_removed_while_blind_nor_in_a_window_after_it() -> None:
    rows = rows_of("blind")
    assert {row.replicas for row in rows if row.second <= 300} == {5}
    assert rows[-1].replicas == 0


def test_two_gateways_are_one_load() -> None:
    one, two = rows_of("burst"), rows_of("two-gateways")
    assert max(row.desired for row in two) == max(row.desired for row in one)
    assert two[-1].desired == one[-1].desired


def test_replicas_that_are_full_double_until_nobody_waits() -> None:
    rows = rows_of("limited")
    waited = [row.second for row in rows if row.held]
    assert (waited[0], waited[-1]) == (30, 52)
    assert max(row.desired for row in rows) <= 2 * 15
    assert rows[-1].desired == 15
    unaware = replace(SCENARIOS["limited"].simulation, scaling=CONFIG)
    assert [row.second for row in unaware.run() if row.held][-1] >= 75


def test_replicas_that_are_busy_but_not_full_count_once() -> None:
    limited = replace(CONFIG, max_concurrency=10)
    plan = Simulation(steady, 200, scaling=limited, max_concurrency=10, replicas=5)
    assert {row.desired for row in plan.run()} == {5}


def test_one_full_gateway_is_enough() -> None:
    plan = Simulation(
        lambda second: 5.0 if second < 30 else 40.0,
        120,
        scaling=replace(CONFIG, max_concurrency=10),
        max_concurrency=10,
        replicas=1,
        gateways=(Gateway(), Gateway(gone=(30, 120))),
    )
    rows = plan.run()
    assert at(rows, 40).panicking
    assert not any(row.held for row in rows if row.second >= 60)


def test_a_rate_is_followed_up_and_down() -> None:
    rows = rows_of("rps")
    assert at(rows, 56).desired == 5
    assert at(rows, 70).desired == 18
    assert at(rows, 298).desired == 5


@pytest.mark.parametrize("moment", [62, 100, 130])
def test_a_restart_of_the_autoscaler_never_ends_anything_earlier(moment: int) -> None:
    plan = Simulation(idle, 400, replicas=5, scaling=CONFIG)
    undisturbed, restarted = plan.run(), replace(plan, restarts=(moment,)).run()
    for before, after in zip(undisturbed, restarted, strict=True):
        assert after.replicas >= before.replicas
    assert restarted[-1].replicas == 0


LOADS = st.lists(st.tuples(st.integers(2, 60), st.integers(0, 400)), min_size=1, max_size=6)
"""For so many seconds, so many requests."""

CONFIGS = st.builds(
    lambda metric, low, span, rate, delay, window: ScalingConfig(
        metric=metric,
        target=10.0,
        min_replicas=low,
        max_replicas=low + span,
        max_scale_up_rate=rate,
        scale_down_delay_seconds=delay,
        stable_window_seconds=window,
        scale_to_zero_grace_seconds=10.0,
    ),
    st.sampled_from(["concurrency", "rps"]),
    st.integers(0, 3),
    st.integers(1, 60),
    st.sampled_from([1.5, 4.0, 1000.0]),
    st.sampled_from([0.0, 20.0]),
    st.sampled_from([10.0, 30.0]),
)


def in_steps(loads: list[tuple[int, int]]) -> list[float]:
    return [float(load) for seconds, load in loads for _ in range(seconds)]


def following(loads: list[tuple[int, int]], *, then: int = 0) -> Simulation:
    steps = in_steps(loads)

    def demand(second: int) -> float:
        return steps[second] if second < len(steps) else 0.0

    return Simulation(demand, len(steps) + then)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, LOADS, st.integers(1, 3), st.sampled_from([0, 3, 15]))
def test_what_always_holds(
    config: ScalingConfig, loads: list[tuple[int, int]], gateways: int, start: int
) -> None:
    plan = replace(
        following(loads, then=60),
        scaling=config,
        gateways=(Gateway(),) * gateways,
        start_seconds=start,
    )
    rows = plan.run()
    idle_since: int | None = 0
    for before, row in itertools.pairwise(rows):
        assert config.min_replicas <= row.desired <= config.max_replicas
        if row.demand:
            idle_since = None
        elif idle_since is None:
            idle_since = row.second
        if before.replicas > row.replicas == 0:
            assert not row.demand
            assert idle_since is not None
            quiet = config.stable_window_seconds + config.scale_to_zero_grace_seconds
            assert row.second - idle_since >= quiet - 4  # two ticks: samples, and whole seconds
        if before.panicking and row.panicking:
            assert row.desired >= before.desired
        most = max(1, row.ready) * config.max_scale_up_rate
        if row.desired > max(before.desired, config.min_replicas):
            assert row.desired <= max(most + 1, config.activation_replicas)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 600), st.integers(0, 20), st.sampled_from([0, 5, 20]))
def test_a_steady_load_settles_at_what_it_needs(load: int, first: int, start: int) -> None:
    plan = Simulation(
        lambda _second: float(load),
        240,
        scaling=CONFIG,
        start_seconds=start,
        replicas=first,
    )
    rows = plan.run()
    needed = min(-(-load // 7), 100)
    assert {row.desired for row in rows if row.second >= 140} == {needed}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 600), st.integers(140, 160), st.integers(2, 58), st.integers(1, 3))
def test_a_silence_of_less_than_a_minute_changes_nothing(
    load: int, begin: int, length: int, others: int
) -> None:
    silent = Gateway(silent=(begin, begin + length))
    plan = Simulation(
        lambda _second: float(load), 240, scaling=CONFIG, gateways=(silent, *(Gateway(),) * others)
    )
    alone = replace(plan, gateways=(silent,))
    assert changes(plan.run(), after=140) == []
    assert changes(alone.run(), after=140) == []
