"""The situations of Knative Serving's own unit tests, and what it decides in them.

Inputs and expected numbers are those of ``pkg/autoscaler/scaling/autoscaler_test.go`` (main, August
2026): a replica is given ``target``, scaling goes up and down tenfold at once at most, panic begins
at twice the capacity, the stable window is a minute. Left out is what is about the activator's
place in the path (excess burst capacity) and about metrics that are exported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from beamlit_operator.autoscaling.kpa import (
    Observation,
    ScalingConfig,
    State,
    decide,
    first_state,
)

KNATIVE = ScalingConfig(
    target=10.0,
    target_utilization=1.0,
    max_replicas=0,
    max_scale_up_rate=10.0,
    max_scale_down_rate=10.0,
    panic_threshold=2.0,
    # Knative decides about zero in another place, after this.
    scale_to_zero_grace_seconds=0.0,
)
ONE = replace(KNATIVE, target=1.0)
DELAYED = replace(KNATIVE, panic_threshold=100.0, scale_down_delay_seconds=300.0)


@dataclass(frozen=True)
class At:
    """At ``second`` the windows show ``stable`` and ``panic``, and ``ready`` pods serve."""

    second: float
    stable: float
    panic: float
    ready: int
    wanted: int
    panicking_since: float | None = None


SITUATIONS: dict[str, tuple[ScalingConfig, State, list[At]]] = {
    "no load at all": (KNATIVE, State(), [At(0, 0, 0, 1, 0)]),
    "five replicas' worth, one is there": (KNATIVE, State(), [At(0, 50, 50, 1, 5, 0)]),
    "five replicas' worth, five are there": (KNATIVE, State(), [At(0, 50, 50, 5, 5)]),
    "calm growth follows the stable window": (
        KNATIVE,
        State(),
        [At(0, 50, 10, 1, 5), At(0, 100, 10, 1, 10)],
    ),
    "less load than one replica's": (
        replace(KNATIVE, target=181.0),
        State(),
        [At(0, 21, 26, 1, 1)],
    ),
    "calm decrease follows the stable window": (
        KNATIVE,
        State(),
        [At(0, 100, 100, 8, 10), At(0, 50, 50, 8, 5)],
    ),
    "the last traces of load keep one": (KNATIVE, State(), [At(0, 1, 0, 1, 1), At(0, 0, 0, 1, 0)]),
    "in panic the stable window counts when it wants more": (
        ONE,
        State(panic_seconds=-5, panic_replicas=5),
        [At(0, 50, 30, 5, 50, 0)],
    ),
    "in panic the panic window counts when it wants more": (
        ONE,
        State(panic_seconds=-5, panic_replicas=5),
        [At(0, 20, 30, 5, 30, 0)],
    ),
    "a burst of ten replicas' worth doubles what calm would do": (
        KNATIVE,
        State(),
        [At(0, 50, 100, 1, 10, 0)],
    ),
    "a slow rate of growth still lets one more start": (
        replace(ONE, max_scale_up_rate=1.1),
        State(),
        [At(0, 3, 3.1, 2, 3, 0)],
    ),
    "a slow rate of removal": (
        replace(KNATIVE, max_scale_down_rate=1.1),
        State(),
        [At(0, 1, 1, 100, 90)],
    ),
    "growth is limited to tenfold, twice": (
        KNATIVE,
        State(),
        [At(0, 1000, 1001, 1, 10, 0), At(0, 1000, 1001, 10, 100, 0)],
    ),
    "removal is limited to a tenth, twice": (
        KNATIVE,
        State(),
        [At(0, 1, 1, 100, 10), At(0, 1, 1, 10, 1)],
    ),
    "without any pod the limit of growth is that of one": (
        KNATIVE,
        State(),
        [At(0, 1000, 888, 0, 10, 0)],
    ),
    "the activation scale counts as soon as there is demand": (
        replace(KNATIVE, activation_replicas=2),
        State(),
        [At(0, 0, 0, 1, 0), At(0, 1, 0, 1, 2)],
    ),
    "panic ends a stable window after its last burst": (
        ONE,
        State(),
        [
            At(0, 11, 25, 10, 25, 0),
            At(30, 30, 41, 40, 41, 0),
            At(62, 50, 56, 55, 50, None),
        ],
    ),
    "a new burst extends the panic": (
        ONE,
        State(),
        [At(0, 11, 25, 10, 25, 0), At(30, 30, 80, 40, 80, 30)],
    ),
    "exponential growth is followed, and held": (
        ONE,
        State(),
        [
            At(0, 6, 6, 1, 6, 0),
            At(0, 36, 36, 6, 36, 0),
            At(1, 216, 216, 36, 216, 1),
            At(1, 1296, 1296, 216, 1296, 1),
            At(2, 1296, 1296, 1296, 1296, 1),
        ],
    ),
    "after a panic everything goes at once": (
        KNATIVE,
        State(),
        [
            At(0, 100, 100, 1, 10, 0),
            At(0, 100, 1000, 10, 100, 0),
            At(30, 1, 1, 10, 100, 0),
            At(61, 1, 1, 10, 1, None),
        ],
    ),
    "scale-down delay, simple": (
        DELAYED,
        State(),
        [At(2, 40, 40, 1, 4), At(300, 0, 0, 1, 4), At(302, 0, 0, 1, 0)],
    ),
    "scale-down delay, gradual": (
        DELAYED,
        State(),
        [
            At(540, 40, 40, 1, 4),
            At(600, 30, 30, 1, 4),
            At(660, 0, 0, 1, 4),
            At(840, 0, 0, 1, 3),
            At(900, 0, 0, 1, 0),
        ],
    ),
    "without a delay fewer go at once": (
        replace(DELAYED, scale_down_delay_seconds=0.0),
        State(),
        [At(0, 40, 40, 1, 4), At(0.5, 20, 20, 1, 2)],
    ),
    "a restart with several pods begins in panic": (
        KNATIVE,
        first_state(5, now_seconds=0),
        [At(0, 0, 0, 5, 5, 0), At(60, 0, 0, 5, 5, 0), At(62, 0, 0, 5, 0, None)],
    ),
    "a restart with one pod does not": (
        KNATIVE,
        first_state(1, now_seconds=0),
        [At(0, 0, 0, 1, 0)],
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_it_decides_as_knative_does(name: str) -> None:
    config, state, moments = SITUATIONS[name]
    for at in moments:
        seen = Observation(
            stable=at.stable,
            panic=at.panic,
            busy=False,
            full_window=True,
            replicas=at.ready,
            ready_replicas=at.ready,
        )
        decision = decide(config, seen, state, now_seconds=at.second)
        state = decision.state
        assert (at.second, decision.desired) == (at.second, at.wanted)
        assert (at.second, state.panic_seconds) == (at.second, at.panicking_since)


def test_a_target_that_changes_counts_at_once() -> None:
    seen = Observation(100, 101, busy=False, full_window=True, replicas=1, ready_replicas=1)
    first = decide(KNATIVE, seen, State(), now_seconds=0)
    assert first.desired == 10
    seen = replace(seen, replicas=10, ready_replicas=10)
    assert decide(ONE, seen, first.state, now_seconds=0).desired == 100


@pytest.mark.parametrize(
    ("window", "fraction", "panic"),
    [(60, 0.1, 6), (64, 0.1, 6), (65, 0.1, 7), (6, 0.1, 1), (20, 0.33, 7)],
)
def test_the_panic_window_is_rounded_to_whole_seconds(
    window: float, fraction: float, panic: float
) -> None:
    config = ScalingConfig(stable_window_seconds=window, panic_window_fraction=fraction)
    assert config.panic_window_seconds == panic


def test_the_least_target_is_knatives() -> None:
    assert ScalingConfig(target=0.001, target_utilization=0.7).per_replica == 0.01
