"""The scaling decision: its truth table row by row, and what always holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.autoscaling.kpa import (
    Decision,
    DecisionReason,
    Observation,
    ScalingConfig,
    State,
    decide,
    first_state,
)

R = DecisionReason
NOW = 1000.0
TEN = ScalingConfig(target=10.0, target_utilization=1.0)
"""A replica carries ten."""


def seen(
    stable: float = 0.0,
    panic: float | None = None,
    *,
    ready: int = 1,
    replicas: int | None = None,
    busy: bool | None = None,
    full: bool = True,
) -> Observation:
    burst = stable if panic is None else panic
    return Observation(
        stable=stable,
        panic=burst,
        busy=burst > 0 if busy is None else busy,
        full_window=full,
        replicas=ready if replicas is None else replicas,
        ready_replicas=ready,
    )


def outcome(decision: Decision) -> tuple[int, DecisionReason, bool]:
    return decision.desired, decision.reason, decision.panicking


class TestTable:
    """One test, or more, for each rule of the table in ``decide``."""

    @pytest.mark.parametrize(
        ("load", "ready", "wanted"),
        [(1, 1, 1), (10, 1, 1), (10.1, 1, 2), (35, 3, 4), (70, 10, 7), (30, 10, 5), (0.1, 4, 2)],
    )
    def test_rule_1_the_stable_window_asks(self, load: float, ready: int, wanted: int) -> None:
        calm = seen(load, 0.0, ready=ready, busy=True)
        assert outcome(decide(TEN, calm, State(), now_seconds=NOW)) == (wanted, R.LOAD, False)

    def test_rule_1_utilisation_leaves_room(self) -> None:
        config = ScalingConfig(target=10.0, target_utilization=0.7)
        assert decide(config, seen(7.0, ready=2), State(), now_seconds=NOW).desired == 1
        assert decide(config, seen(7.1, ready=2), State(), now_seconds=NOW).desired == 2

    def test_rule_1_floats_do_not_ask_for_one_too_many(self) -> None:
        config = ScalingConfig(target=1.0, target_utilization=0.7)
        assert decide(config, seen(2.1, 0.0, ready=2), State(), now_seconds=NOW).desired == 3

    def test_rule_1_growth_is_limited_by_its_rate(self) -> None:
        config = replace(TEN, max_scale_up_rate=2.0, max_replicas=0, panic_threshold=100.0)
        assert decide(config, seen(1000, ready=3), State(), now_seconds=NOW).desired == 6

    def test_rule_1_demand_starts_the_activation_scale(self) -> None:
        config = replace(TEN, activation_replicas=3)
        assert decide(config, seen(1, ready=0), State(), now_seconds=NOW).desired == 3
        assert decide(config, seen(0, ready=0), State(), now_seconds=NOW).desired == 0

    def test_rule_2_a_burst_of_twice_the_capacity_is_panic(self) -> None:
        decision = decide(TEN, seen(5, 31, ready=2), State(), now_seconds=NOW)
        assert outcome(decision) == (4, R.PANIC, True)
        decision = decide(TEN, seen(5, 30, ready=2), State(), now_seconds=NOW)
        assert outcome(decision) == (1, R.LOAD, False)

    def test_rule_2_nothing_is_removed_in_panic_until_a_stable_window_is_past(self) -> None:
        state = decide(TEN, seen(5, 60, ready=2), State(), now_seconds=NOW).state
        quiet = seen(5, 5, ready=6)
        held = decide(TEN, quiet, state, now_seconds=NOW + 60)
        assert outcome(held) == (6, R.PANIC, True)
        over = decide(TEN, quiet, held.state, now_seconds=NOW + 60.1)
        assert outcome(over) == (3, R.LOAD, False)

    def test_rule_2_a_new_burst_extends_the_panic(self) -> None:
        state = State(panic_seconds=NOW, panic_replicas=6)
        state = decide(TEN, seen(5, 120, ready=6), state, now_seconds=NOW + 59).state
        assert state.panic_seconds == NOW + 59

    def test_rule_3_a_higher_wish_within_the_delay_counts(self) -> None:
        config = replace(TEN, scale_down_delay_seconds=30.0)
        state = decide(config, seen(40, ready=4), State(), now_seconds=NOW).state
        calm = seen(20, ready=4)
        decision = decide(config, calm, state, now_seconds=NOW + 29)
        assert outcome(decision) == (4, R.SCALE_DOWN_DELAYED, False)
        decision = decide(config, calm, decision.state, now_seconds=NOW + 30)
        assert outcome(decision) == (2, R.LOAD, False)

    def test_rule_4_bounds(self) -> None:
        config = replace(TEN, min_replicas=2, max_replicas=5)
        assert outcome(decide(config, seen(0), State(), now_seconds=NOW))[:2] == (2, R.MINIMUM)
        assert outcome(decide(config, seen(90, ready=9), State(), now_seconds=NOW))[:2] == (
            5,
            R.MAXIMUM,
        )

    def test_rule_4_no_maximum_is_no_limit(self) -> None:
        config = replace(TEN, max_replicas=0)
        assert decide(config, seen(990, ready=50), State(), now_seconds=NOW).desired == 99

    def test_rule_5_a_request_in_progress_keeps_one(self) -> None:
        config = replace(TEN, metric="rps")
        stream = seen(0, busy=True)
        assert outcome(decide(config, stream, State(), now_seconds=NOW))[:2] == (1, R.BUSY)

    def test_rule_6_nothing_goes_to_zero_before_a_stable_window_was_seen(self) -> None:
        decision = decide(TEN, seen(0, full=False), State(), now_seconds=NOW)
        assert outcome(decision) == (1, R.WATCHING, False)
        asleep = seen(0, full=False, ready=0)
        assert decide(TEN, asleep, State(), now_seconds=NOW).desired == 0

    def test_rule_7_a_start_is_not_given_up_because_nobody_waits_any_more(self) -> None:
        starting = seen(0, ready=0, replicas=1)
        decision = decide(TEN, starting, State(), now_seconds=NOW)
        assert outcome(decision) == (1, R.STARTING, False)
        decision = decide(TEN, starting, decision.state, now_seconds=NOW + 299)
        assert outcome(decision) == (1, R.STARTING, False)
        served = decide(TEN, seen(0), decision.state, now_seconds=NOW + 300)
        assert outcome(served) == (1, R.LAST_REPLICA_RETAINED, False)

    def test_rule_7_a_start_that_never_ends_is_given_up_after_its_deadline(self) -> None:
        starting = seen(0, ready=0, replicas=1)
        state = decide(TEN, starting, State(), now_seconds=NOW).state
        state = decide(TEN, starting, state, now_seconds=NOW + 300).state
        assert decide(TEN, starting, state, now_seconds=NOW + 330).desired == 0

    @pytest.mark.parametrize(("retention", "stays"), [(0.0, 30.0), (90.0, 90.0)])
    def test_rules_8_and_9_the_last_replica_stays_for_grace_or_retention(
        self, retention: float, stays: float
    ) -> None:
        config = replace(TEN, last_pod_retention_seconds=retention)
        decision = decide(config, seen(0), State(), now_seconds=NOW)
        assert outcome(decision)[:2] == (1, R.LAST_REPLICA_RETAINED)
        decision = decide(config, seen(0), decision.state, now_seconds=NOW + stays - 0.1)
        assert outcome(decision)[:2] == (1, R.LAST_REPLICA_RETAINED)
        decision = decide(config, seen(0), decision.state, now_seconds=NOW + stays)
        assert outcome(decision)[:2] == (0, R.IDLE)

    def test_rule_8_a_request_starts_the_wait_anew(self) -> None:
        state = State(idle_seconds=NOW - 29)
        state = decide(TEN, seen(0.01), state, now_seconds=NOW).state
        assert state.idle_seconds is None


def test_a_restart_removes_nothing_before_a_stable_window() -> None:
    state = first_state(8, now_seconds=NOW)
    decision = decide(TEN, seen(0, ready=8, full=False), state, now_seconds=NOW + 60)
    assert decision.desired == 8


CONFIGS = st.builds(
    lambda low, span, activation, delay, utilisation, metric: ScalingConfig(
        metric=metric,
        target=10.0,
        target_utilization=utilisation,
        min_replicas=low,
        max_replicas=max(low + span, 1),
        activation_replicas=activation,
        scale_down_delay_seconds=delay,
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.integers(1, 4),
    st.sampled_from([0.0, 10.0, 60.0]),
    st.sampled_from([0.5, 0.7, 1.0]),
    st.sampled_from(["concurrency", "rps"]),
)
LOADS = st.floats(0, 1e6, allow_nan=False)
STATES = st.builds(
    State,
    st.none() | st.floats(NOW - 120, NOW),
    st.integers(0, 30),
    st.just(()),
    st.none() | st.floats(NOW - 120, NOW),
)


@given(CONFIGS, LOADS, LOADS, st.integers(0, 50), STATES, st.booleans())
def test_the_decision_never_leaves_its_bounds(
    config: ScalingConfig, stable: float, panic: float, ready: int, state: State, full: bool
) -> None:
    decision = decide(config, seen(stable, panic, ready=ready, full=full), state, now_seconds=NOW)
    assert config.min_replicas <= decision.desired <= config.max_replicas


@given(CONFIGS, LOADS, LOADS, LOADS, LOADS, st.integers(0, 50), STATES)
def test_more_load_never_asks_for_fewer(
    config: ScalingConfig,
    stable: float,
    panic: float,
    more_stable: float,
    more_panic: float,
    ready: int,
    state: State,
) -> None:
    less = decide(config, seen(stable, panic, ready=ready), state, now_seconds=NOW)
    more = decide(
        config,
        seen(stable + more_stable, panic + more_panic, ready=ready),
        state,
        now_seconds=NOW,
    )
    assert more.desired >= less.desired


@given(CONFIGS, st.lists(st.tuples(LOADS, LOADS), max_size=20))
def test_whatever_the_load_was_idle_reaches_the_minimum(
    config: ScalingConfig, loads: list[tuple[float, float]]
) -> None:
    state, now, replicas = State(), NOW, 1
    for stable, panic in loads:
        decision = decide(config, seen(stable, panic, ready=replicas), state, now_seconds=now)
        state, replicas, now = decision.state, decision.desired, now + 2
    for _ in range(300):  # each halving may wait for the delay
        decision = decide(config, seen(0, 0, ready=replicas), state, now_seconds=now)
        state, replicas, now = decision.state, decision.desired, now + 2
    assert replicas == config.min_replicas


@given(CONFIGS, st.lists(st.tuples(st.floats(0, 500), st.floats(0, 3)), max_size=60))
def test_the_state_stays_small(config: ScalingConfig, steps: list[tuple[float, float]]) -> None:
    state, now = State(), NOW
    for load, passed in steps:
        now += passed
        state = decide(config, seen(load, ready=5), state, now_seconds=now).state
        wishes = [wish for _, wish in state.wishes]
        assert wishes == sorted(set(wishes), reverse=True)
