"""Zero, and the first replicas, of a deployment that a HorizontalPodAutoscaler scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.autoscaling import Simulation

from beamlit_operator.autoscaling.awake import decide_awake
from beamlit_operator.autoscaling.kpa import DecisionReason, Observation, ScalingConfig, State

R = DecisionReason
NOW = 1000.0
CONFIG = ScalingConfig(metric="resource", max_replicas=5)


def seen(
    replicas: int, *, demand: float = 0.0, busy: bool = False, full: bool = True, ready: int = -1
) -> Observation:
    return Observation(
        stable=demand,
        panic=0.0,
        busy=busy,
        full_window=full,
        replicas=replicas,
        ready_replicas=replicas if ready < 0 else ready,
    )


@pytest.mark.parametrize(
    ("config", "observation", "desired", "reason"),
    [
        (CONFIG, seen(0), 0, R.IDLE),
        (CONFIG, seen(0, busy=True), 1, R.BUSY),
        (replace(CONFIG, activation_replicas=3), seen(0, busy=True), 3, R.BUSY),
        (replace(CONFIG, activation_replicas=9), seen(0, busy=True), 5, R.BUSY),
        (replace(CONFIG, min_replicas=2), seen(0), 2, R.MINIMUM),
        (replace(CONFIG, min_replicas=2), seen(4), 4, R.LOAD),
        (CONFIG, seen(4, demand=0.1), 4, R.LOAD),
        (CONFIG, seen(4, busy=True), 4, R.BUSY),
        (CONFIG, seen(4, full=False), 4, R.WATCHING),
        (CONFIG, seen(4, ready=0), 4, R.STARTING),
        (CONFIG, seen(4), 4, R.LAST_REPLICA_RETAINED),
    ],
)
def test_the_table(
    config: ScalingConfig, observation: Observation, desired: int, reason: DecisionReason
) -> None:
    decision = decide_awake(config, observation, State(), now_seconds=NOW)
    assert (decision.desired, decision.reason) == (desired, reason)


def test_all_replicas_go_at_once_after_the_grace() -> None:
    first = decide_awake(CONFIG, seen(4), State(), now_seconds=NOW)
    early = decide_awake(CONFIG, seen(4), first.state, now_seconds=NOW + 29)
    assert early.desired == 4
    assert decide_awake(CONFIG, seen(4), early.state, now_seconds=NOW + 30).desired == 0


def test_a_request_starts_the_wait_anew() -> None:
    waiting = State(idle_seconds=NOW - 29)
    assert (
        decide_awake(CONFIG, seen(4, demand=1), waiting, now_seconds=NOW).state.idle_seconds is None
    )


@given(
    st.lists(st.tuples(st.integers(5, 80), st.integers(0, 20)), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_in_the_loop_it_ends_what_is_idle_and_nothing_else(
    loads: list[tuple[int, int]], replicas: int
) -> None:
    steps = [float(load) for seconds, load in loads for _ in range(seconds)]
    plan = Simulation(
        lambda second: steps[second] if second < len(steps) else 0.0,
        len(steps) + 200,
        scaling=CONFIG,
        replicas=replicas,
    )
    rows = plan.run()
    for row in rows:
        assert row.replicas in (0, 1, replicas)
        if row.demand:
            assert row.replicas > 0
    assert rows[-1].replicas == 0
