"""How replicas are split: what holds for all loads, weights and surges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.rollout.capacity import Side, limit_of, move, settled, share, surge_of

TOTALS = st.integers(1, 200)
WEIGHTS = st.integers(0, 100)


@pytest.mark.parametrize(
    ("text", "total", "surge"),
    [("100%", 4, 4), ("25%", 4, 1), ("25%", 1, 1), ("0%", 4, 0), ("0", 9, 0), ("3", 1, 3)],
)
def test_surge_is_a_number_or_a_rounded_up_percentage(text, total, surge):
    assert surge_of(text, total) == surge


@given(total=TOTALS, weight=WEIGHTS)
def test_a_share_carries_its_weight_and_wastes_less_than_a_replica(total, weight):
    replicas = share(total, weight)
    assert replicas * 100 >= total * weight
    assert (replicas - 1) * 100 < total * weight or replicas == 0
    assert (replicas > 0) == (weight > 0)


def test_nothing_runs_without_load():
    assert share(0, 50) == 0
    assert settled(0, target=50, limit=4) == (0, 0)


@given(total=TOTALS, target=WEIGHTS, surge=st.integers(0, 20))
def test_a_step_that_is_reached_keeps_to_its_limit_and_serves_both_sides(total, target, surge):
    limit = limit_of(total, surge=surge, target=target)
    stable, canary = settled(total, target=target, limit=limit)
    assert stable + canary <= limit
    assert canary >= 1
    assert stable >= 1 or target == 100
    if surge:
        assert (stable, canary) >= (share(total, 100 - target), share(total, target))


@given(total=st.integers(1, 60), target=st.integers(1, 100), surge=st.integers(0, 60))
def test_capacity_moves_to_every_weight_within_its_limit(total, target, surge):
    """As pods come and go: the limit holds throughout, weights rise and are carried."""
    stable, canary, weight = total, 0, 0
    limit = limit_of(total, surge=surge, target=target)
    for _ in range(4 * total + 20):
        step = move(
            total,
            target=target,
            weight=weight,
            stable=Side(stable, stable, stable),
            canary=Side(canary, canary, canary),
            surge=surge,
        )
        assert step.weight >= weight
        if step.cold:
            assert (total, surge, target) == (1, 0, 100)
            return
        # All but the last replica's requests are carried by those that are ready.
        assert step.weight <= max(100 * (canary + max(1, total // 10)) // total, weight) or canary
        stable, canary, weight = step.stable, step.canary, step.weight
        assert stable + canary <= limit
        if step.reached:
            assert weight == target
            return
    raise AssertionError(f"stuck at {stable} and {canary}, {weight} %")


@given(total=st.integers(2, 60), surge=st.integers(0, 5))
def test_stable_never_gives_more_than_a_tenth_of_what_its_weight_needs(total, surge):
    step = move(
        total,
        target=100,
        weight=0,
        stable=Side(total, total, total),
        canary=Side(),
        surge=surge,
    )
    assert step.stable >= total - max(1, total // 10)


def test_two_revisions_that_both_serve_need_room_for_two():
    both = dict(stable=Side(1, 1, 1), canary=Side(), surge=0)
    assert move(1, target=50, weight=0, **both).canary == 1
    blocked = move(1, target=50, weight=0, maximum=1, **both)
    assert (blocked.stable, blocked.canary) == (1, 0)
    assert "maxNumReplicas 1" in blocked.blocked
