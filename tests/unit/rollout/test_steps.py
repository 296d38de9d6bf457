"""A canary: its steps, what they wait for, which orders count, and what an analysis comes to."""

from __future__ import annotations

import pytest
from tests.support.rollouts import (
    ERRORS,
    STEPS,
    at_step_one,
    canary,
    good,
    serving,
)

from beamlit_operator.rollout import Evidence, Measured

# Canary.


def test_a_step_waits_for_approval_and_the_next_one_for_its_time():
    cluster = at_step_one()
    assert (cluster.phase, cluster.weights) == ("Paused", {"a": 75, "b": 25})
    assert cluster.replicas == {"a": 3, "b": 1}
    cluster.later(3600).step()
    assert cluster.memory.step == 1
    cluster.order("promote", "b/1").step()
    assert cluster.memory.step == 2
    cluster.start_pods()
    cluster.step()
    cluster.step()
    assert (cluster.phase, cluster.weights) == ("Waiting", {"a": 50, "b": 50})
    assert cluster.replicas == {"a": 2, "b": 2}
    cluster.later(59).step()
    assert cluster.phase == "Waiting"
    cluster.later(2).settle()
    assert (cluster.memory, cluster.weights) == (None, {"b": 100})
    assert cluster.replicas["b"] == 4


def test_a_canary_gets_its_replicas_before_its_weight_and_stable_gives_them_after():
    cluster = serving(4, rollout=STEPS).edit("b")
    cluster.step()
    cluster.step()
    assert (cluster.replicas, cluster.weights) == ({"a": 4, "b": 1}, {"a": 100})
    cluster.start_pods()
    cluster.step()
    assert (cluster.replicas, cluster.weights) == ({"a": 4, "b": 1}, {"a": 75, "b": 25})
    cluster.step()
    assert cluster.replicas == {"a": 3, "b": 1}


def test_an_abort_gives_everything_back_at_once_and_it_is_not_tried_again():
    cluster = at_step_one()
    plan = cluster.order("abort", "b").step()
    assert (cluster.weights, cluster.phase) == ({"a": 100}, "Aborted")
    assert cluster.replicas["a"] == 4
    assert plan.stalled
    cluster.annotations.clear()
    cluster.later(600).settle()
    assert (cluster.weights, cluster.phase) == ({"a": 100}, "Aborted")
    assert list(cluster.workloads) == ["a"]
    assert cluster.outcomes == [("b", "Aborted"), ("a", "Serving")]


@pytest.mark.parametrize(
    ("steps", "step", "weights"),
    [
        ([25, 75], 2, {"a": 50, "b": 50}),
        ([50], 1, {"a": 50, "b": 50}),
        ([60], 1, {"a": 50, "b": 50}),
        ([25], None, {"b": 100}),
    ],
)
def test_a_list_of_steps_that_becomes_shorter_goes_on_from_the_weight(steps, step, weights):
    rollout = canary({"weight": 10}, {"weight": 20}, {"weight": 50})
    cluster = at_step_one(10, rollout=rollout)
    cluster.order("promote", "b/1").settle()
    cluster.order("promote", "b/2").settle()
    assert cluster.weights == {"a": 50, "b": 50}
    cluster.rollout = canary(*({"weight": weight} for weight in steps))
    if step is None:
        cluster.settle()
        assert (cluster.memory, cluster.weights) == (None, weights)
    else:
        cluster.step()
        assert (cluster.memory.step, cluster.weights) == (step, weights)


def test_promote_skips_the_steps_but_not_the_start():
    cluster = at_step_one()
    cluster.order("promote", "b").step()
    assert cluster.weights == {"a": 75, "b": 25}
    assert cluster.replicas["b"] == 4
    cluster.settle()
    assert cluster.weights == {"b": 100}


def test_pause_holds_a_canary_where_it_is_until_the_annotation_goes():
    rollout = canary({"weight": 25, "pause": "10s"}, {"weight": 50, "pause": "10s"})
    cluster = serving(4, rollout=rollout).edit("b")
    for _ in range(4):
        cluster.step()
        cluster.start_pods()
    cluster.order("pause", "b").later(100).settle()
    assert (cluster.weights, cluster.phase) == ({"a": 75, "b": 25}, "Paused")
    cluster.annotations.clear()
    for _ in range(8):
        cluster.later(11).step()
        cluster.start_pods()
    assert cluster.weights == {"b": 100}


def test_pause_before_the_first_step_is_reached_keeps_requests_away():
    cluster = serving(2, rollout=STEPS).edit("b").order("pause", "b")
    cluster.settle()
    assert cluster.weights == {"a": 100}
    cluster.annotations.clear()
    cluster.settle()
    assert cluster.weights == {"a": 75, "b": 25}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("promote", "b/2"),
        ("promote", "other"),
        ("promote", "b/0"),
        ("promote", "b/x"),
        ("promote", "B"),
        ("promote", ""),
        ("abort", "a"),
        ("abort", "b/1"),
        ("pause", "c"),
    ],
)
def test_orders_for_something_else_mean_nothing(kind, value):
    cluster = at_step_one().order(kind, value)
    before = cluster.weights, cluster.memory.step, cluster.phase
    cluster.settle()
    assert (cluster.weights, cluster.memory.step, cluster.phase) == before


def test_an_order_for_a_step_that_has_not_come_never_counts_until_it_is_set_again():
    cluster = at_step_one().order("promote", "b/2")
    assert cluster.step().ignored == ("beamlit.com/rollout-promote=b/2",)
    assert cluster.memory.ignored_orders == ("beamlit.com/rollout-promote=b/2",)
    assert cluster.step().ignored == ()
    cluster.rollout = canary({"weight": 25, "pause": "1s"}, {"weight": 50})
    cluster.later(5).settle()
    assert (cluster.memory.step, cluster.phase) == (2, "Paused")
    cluster.annotations.clear()
    cluster.settle()
    cluster.order("promote", "b/2").settle()
    assert cluster.weights == {"b": 100}


def test_an_order_that_was_carried_out_does_nothing_to_a_later_rollout_of_that_revision():
    cluster = at_step_one().order("abort", "b")
    cluster.settle()
    cluster.edit("a").settle()
    cluster.edit("b").settle()
    assert cluster.phase == "Paused"
    assert cluster.weights == {"a": 75, "b": 25}
    cluster.annotations.clear()
    cluster.step()
    cluster.order("abort", "b").step()
    assert cluster.phase == "Aborted"


def test_an_edit_during_a_canary_restarts_it_from_the_stable_revision():
    cluster = at_step_one().edit("c")
    cluster.step()
    assert cluster.weights == {"a": 100}
    assert (cluster.memory.canary, cluster.memory.step) == ("c", 1)
    assert cluster.rows["b"]["role"] == "retiring"
    cluster.settle()
    assert cluster.weights == {"a": 75, "c": 25}
    assert cluster.outcomes[0] == ("b", "Aborted")


def test_an_edit_back_to_the_stable_revision_ends_the_rollout():
    cluster = at_step_one().edit("a")
    cluster.step()
    assert (cluster.weights, cluster.memory) == ({"a": 100}, None)
    assert cluster.replicas["a"] == 4
    cluster.later(60).settle()
    assert list(cluster.workloads) == ["a"]


def test_a_canary_that_loses_its_pods_gives_its_weight_back_until_it_has_some():
    rollout = canary({"weight": 25, "pause": "60s"}, {"weight": 50})
    cluster = serving(4, rollout=rollout).edit("b")
    for _ in range(4):
        cluster.step()
        cluster.start_pods()
    cluster.workloads["b"].ready = 0
    cluster.step()
    assert cluster.weights == {"a": 100}
    cluster.later(1000).step()
    assert (cluster.memory.step, cluster.weights) == (1, {"a": 100})
    cluster.start_pods()
    cluster.rollout = STEPS
    cluster.step()
    assert cluster.weights == {"a": 75, "b": 25}


def test_a_stable_revision_that_loses_its_pods_is_stood_in_for_by_the_canary():
    cluster = at_step_one()
    cluster.workloads["a"].ready = 0
    cluster.step()
    assert cluster.weights == {"b": 100}
    assert cluster.rows["a"]["role"] == "stable"
    cluster.start_pods()
    cluster.step()
    assert cluster.weights == {"a": 75, "b": 25}


def test_a_stable_revision_that_policies_no_longer_allow_hands_over():
    cluster = at_step_one()
    cluster.workloads["a"].startable = False
    cluster.workloads["a"].ready = cluster.workloads["a"].replicas = 0
    cluster.step()
    assert (cluster.weights, cluster.memory) == ({"b": 100}, None)


def test_a_step_of_weight_zero_runs_and_gets_no_requests():
    cluster = at_step_one(2, canary({"weight": 0}, {"weight": 50}))
    assert (cluster.weights, cluster.phase) == ({"a": 100}, "Paused")
    assert cluster.replicas == {"a": 2, "b": 1}
    cluster.order("promote", "b/1").settle()
    assert cluster.weights == {"a": 50, "b": 50}


def test_weight_100_as_a_last_step_keeps_a_replica_to_go_back_to():
    cluster = at_step_one(2, canary({"weight": 100}))
    assert cluster.weights == {"b": 100}
    assert cluster.replicas == {"a": 1, "b": 2}
    cluster.order("abort", "b").step()
    assert cluster.weights == {"a": 100}


# Analysis.


def test_a_step_with_an_analysis_is_left_when_it_is_good():
    rollout = canary({"weight": 25}, {"weight": 50}, analysis=ERRORS)
    cluster = at_step_one(rollout=rollout)
    assert cluster.phase == "Analyzing"
    cluster.evidence = good(19)
    cluster.settle()
    assert (cluster.memory.step, cluster.memory.analysis.verdict) == (1, "Undecided")
    cluster.evidence = good(20)
    cluster.settle()
    assert cluster.weights == {"b": 100}


def test_numbers_of_a_step_are_no_verdict_on_the_ones_after_it():
    # One replica is enough for the weight of every step, so nothing else keeps it from going on.
    rollout = canary({"weight": 10}, {"weight": 50}, {"weight": 90}, analysis=ERRORS)
    cluster = at_step_one(1, rollout=rollout)
    cluster.evidence = good()
    cluster.step()
    assert (cluster.memory.step, cluster.weights) == (2, {"a": 50, "b": 50})
    assert cluster.memory.analysis.verdict == "Undecided"


def test_a_bad_step_that_a_person_leaves_does_not_roll_back_the_next_one():
    rollout = canary({"weight": 10}, {"weight": 50}, analysis=ERRORS)
    cluster = at_step_one(1, rollout=rollout)
    cluster.evidence = Evidence(canary=Measured(100, errors=50))
    cluster.order("promote", "b/1").step()
    assert (cluster.memory.step, cluster.memory.phase) == (2, "Analyzing")


def test_a_bad_analysis_rolls_back_by_itself_and_says_why():
    cluster = at_step_one(rollout=canary({"weight": 25}, analysis=ERRORS))
    cluster.evidence = Evidence(Measured(50, errors=10), Measured(100))
    plan = cluster.step()
    assert (cluster.weights, cluster.phase) == ({"a": 100}, "RolledBack")
    assert "20.0 % of its requests failed" in plan.message
    assert cluster.outcomes[0] == ("b", "RolledBack")


def test_a_bad_analysis_that_pauses_waits_for_a_person_whatever_comes_later():
    analysis = {**ERRORS, "onFailure": "Pause"}
    cluster = at_step_one(rollout=canary({"weight": 25}, analysis=analysis))
    cluster.evidence = Evidence(Measured(50, errors=10), Measured(100))
    assert cluster.step().stalled
    cluster.evidence = good(1000)
    cluster.later(100).settle()
    assert (cluster.phase, cluster.weights) == ("Paused", {"a": 75, "b": 25})
    cluster.order("promote", "b/1").settle()
    assert cluster.weights == {"b": 100}


def test_a_bad_analysis_is_not_held_back_by_a_pause():
    cluster = at_step_one(rollout=canary({"weight": 25}, analysis=ERRORS))
    cluster.order("pause", "b")
    cluster.evidence = Evidence(Measured(50, errors=10), Measured(100))
    cluster.step()
    assert cluster.weights == {"a": 100}
