"""The rollout's decisions, row by row of its tables, as a user would tell them."""

from __future__ import annotations

import pytest
from tests.support.rollouts import (
    Cluster,
    Workload,
    blue_green,
    canary,
    good,
    serving,
    without_status,
)

from beamlit_operator.rollout import Evidence, Measured, Scaling

STEPS = canary({"weight": 25}, {"weight": 50, "pause": "60s"})
ERRORS = {"maxErrorPercent": 5}


def at_step_one(replicas=4, rollout=STEPS) -> Cluster:
    """A canary `b` beside `a` at its first step."""
    cluster = serving(replicas, rollout=rollout).edit("b")
    cluster.settle()
    assert cluster.memory.step == 1
    return cluster


# Blue-green.


def test_the_first_revision_serves_from_its_first_request_on():
    cluster = Cluster()
    plan = cluster.step()
    assert cluster.weights == {"a": 100}
    assert (plan.rollout, plan.scale) == (None, {})
    assert cluster.outcomes == [("a", "Serving")]


def test_a_new_revision_takes_over_when_as_many_are_ready_as_the_load_needs():
    cluster = serving(3).edit("b")
    cluster.step()
    assert cluster.weights == {"a": 100}
    cluster.step()
    assert cluster.replicas == {"a": 3, "b": 3}
    cluster.workloads["b"].ready = 2
    assert cluster.step().under_way
    assert cluster.weights == {"a": 100}
    cluster.workloads["b"].ready = 3
    cluster.step()
    assert cluster.weights == {"b": 100}
    assert cluster.outcomes == [("b", "Serving"), ("a", "Superseded")]


def test_the_old_revision_keeps_its_pods_for_the_retention_and_is_gone_then():
    cluster = serving(2, rollout=blue_green(retention="60s")).edit("b")
    cluster.settle()
    assert cluster.weights == {"b": 100}
    assert cluster.replicas == {"a": 2, "b": 2}
    cluster.later(40).step()
    assert "a" in cluster.workloads
    cluster.later(30).step()
    assert cluster.replicas == {"b": 2}


def test_going_back_within_the_retention_is_instant_also_where_a_canary_has_steps():
    cluster = at_step_one()
    cluster.order("promote", "b").settle()
    assert cluster.weights == {"b": 100}
    cluster.workloads["a"].ready = cluster.workloads["a"].replicas = 4
    cluster.edit("a").step()
    assert cluster.weights == {"a": 100}


def test_going_back_to_one_that_was_aborted_goes_through_the_steps_again():
    cluster = at_step_one()
    cluster.order("abort", "b").step()
    cluster.edit("a").step()
    assert cluster.weights == {"a": 100}
    cluster.edit("b").step()
    assert (cluster.memory.step, cluster.weights) == (1, {"a": 75, "b": 25})


def test_a_revision_that_never_becomes_ready_leaves_the_old_one_serving():
    cluster = serving(2).edit("b")
    cluster.step()
    cluster.workloads["b"].failure = "no such image"
    plan = cluster.step()
    assert plan.stalled
    assert "no such image" in plan.message
    assert cluster.settle().stalled
    assert cluster.weights == {"a": 100}
    assert cluster.replicas["a"] == 2


def test_a_start_that_takes_longer_than_the_deadline_is_told_and_goes_on():
    cluster = serving(1, rollout=blue_green(startDeadline="30s")).edit("b")
    cluster.step()
    cluster.step()
    assert not cluster.later(20).step().stalled
    assert cluster.later(20).step().stalled
    cluster.start_pods()
    cluster.step()
    assert cluster.weights == {"b": 100}


def test_of_two_edits_in_quick_succession_the_last_one_wins():
    cluster = serving(2).edit("b")
    cluster.step()
    cluster.edit("c").settle()
    assert cluster.weights == {"c": 100}
    assert "b" not in cluster.workloads
    assert cluster.outcomes == [("c", "Serving"), ("b", "Aborted"), ("a", "Superseded")]


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


# Surge.


def test_with_surge_zero_replicas_never_are_more_than_the_load_needs():
    cluster = serving(4, rollout=blue_green(surge=0)).edit("b")
    seen = set()
    for _ in range(40):
        cluster.step()
        assert cluster.replicas.get("a", 0) + cluster.replicas.get("b", 0) <= 4
        cluster.start_pods()
        cluster.later(2)
        seen.add(cluster.weights.get("b", 0))
    assert cluster.weights == {"b": 100}
    assert cluster.replicas == {"b": 4}
    assert seen >= {0, 25, 50, 100}


def test_with_surge_zero_stable_gives_a_replica_before_the_new_one_gets_it():
    cluster = serving(4, rollout=blue_green(surge=0)).edit("b")
    cluster.step()
    assert cluster.replicas == {"a": 3, "b": 0}
    cluster.step()
    assert cluster.replicas == {"a": 3, "b": 1}


def test_with_a_percentage_of_surge_capacity_moves_as_far_as_it_goes():
    cluster = serving(4, rollout=blue_green(surge="25%")).edit("b")
    for _ in range(40):
        cluster.step()
        assert sum(cluster.replicas.values()) <= 5
        cluster.start_pods()
        cluster.later(2)
    assert cluster.weights == {"b": 100}


def test_with_surge_zero_and_one_replica_callers_are_held_while_it_changes_sides():
    cluster = serving(1, rollout=blue_green(surge=0)).edit("b")
    cluster.step()
    assert cluster.weights == {"b": 100}
    for _ in range(5):
        cluster.step()
        assert sum(cluster.replicas.values()) <= 1
        cluster.later(2)
    assert cluster.replicas == {"a": 0, "b": 1}
    cluster.start_pods()
    cluster.step()
    assert (cluster.weights, cluster.memory) == ({"b": 100}, None)


def test_with_surge_zero_and_one_replica_a_start_that_fails_goes_back_at_once():
    cluster = serving(1, rollout=blue_green(surge=0)).edit("b")
    for _ in range(5):
        cluster.step()
        cluster.later(2)
    cluster.workloads["b"].failure = "it crashed"
    plan = cluster.step()
    assert (cluster.weights, cluster.phase) == ({"a": 100}, "Failed")
    assert cluster.replicas["a"] == 1
    assert "it crashed" in plan.message


def test_with_surge_zero_and_one_replica_nothing_takes_over_unproven_when_callers_go_away():
    cluster = serving(1, rollout=blue_green(surge=0)).edit("b")
    for _ in range(5):
        cluster.step()
        cluster.later(2)
    assert cluster.weights == {"b": 100}
    cluster.demand = 0
    cluster.step()
    assert (cluster.phase, cluster.weights) == ("Proving", {"a": 100})
    cluster.workloads["b"].failure = "it crashed"
    cluster.step()
    cluster.later(301).step()
    assert (cluster.phase, cluster.weights) == ("Failed", {"a": 100})


def test_a_canary_that_has_no_room_says_so_and_starts_nothing():
    rollout = canary({"weight": 50}, surge=0)
    cluster = serving(1, rollout=rollout, scaling=Scaling(0, 1)).edit("b")
    plan = cluster.settle()
    assert plan.stalled
    assert "surge 0 and maxNumReplicas 1" in plan.message
    assert (cluster.weights, cluster.replicas) == ({"a": 100}, {"a": 1, "b": 0})


def test_a_canary_that_has_no_room_says_so_while_it_sleeps_and_never_gets_the_only_place():
    rollout = canary({"weight": 20}, surge=0)
    cluster = serving(0, rollout=rollout, scaling=Scaling(0, 1)).edit("b")
    plan = cluster.settle()
    assert plan.stalled
    assert "surge 0 and maxNumReplicas 1" in plan.message
    assert (cluster.weights, cluster.replicas) == ({"a": 100}, {"a": 0, "b": 0})
    cluster.demand = 1
    cluster.settle()
    assert (cluster.weights, cluster.replicas) == ({"a": 100}, {"a": 1, "b": 0})
    cluster.order("promote", "b").settle()
    assert cluster.weights == {"b": 100}


def test_a_canary_whose_room_is_taken_gives_its_requests_back_before_its_pods():
    cluster = at_step_one(1, rollout=canary({"weight": 50}, surge=0))
    assert cluster.weights == {"a": 50, "b": 50}
    cluster.scaling = Scaling(0, 1)
    cluster.demand = 1
    cluster.step()
    assert (cluster.weights, cluster.replicas["b"]) == ({"a": 100}, 1)
    cluster.settle()
    assert (cluster.weights, cluster.replicas) == ({"a": 100}, {"a": 1, "b": 0})


# A deployment that sleeps.


def test_a_trial_start_proves_the_new_revision_and_goes_back_to_zero():
    cluster = serving(0).edit("b")
    cluster.step()
    assert (cluster.phase, cluster.weights) == ("Proving", {"a": 100})
    cluster.step()
    assert cluster.replicas == {"a": 0, "b": 1}
    cluster.start_pods()
    cluster.step()
    assert (cluster.weights, cluster.memory) == ({"b": 100}, None)
    assert cluster.replicas["b"] == 0


def test_a_trial_start_that_fails_leaves_the_old_revision_current_and_ends():
    cluster = serving(0, rollout=blue_green(startDeadline="30s")).edit("b")
    cluster.step()
    cluster.workloads["b"].failure = "no such image"
    cluster.step()
    assert cluster.step().stalled
    cluster.later(31)
    plan = cluster.step()
    assert plan.stalled
    assert (cluster.phase, cluster.weights) == ("Failed", {"a": 100})
    cluster.settle()
    assert cluster.replicas == {"a": 0}
    assert cluster.outcomes[0] == ("b", "Failed")


def test_a_trial_start_that_fails_goes_on_for_five_minutes_at_most():
    cluster = serving(0).edit("b")
    cluster.step()
    cluster.workloads["b"].failure = "crash"
    cluster.step()
    cluster.later(299).step()
    assert cluster.phase == "Proving"
    cluster.later(2).step()
    assert cluster.phase == "Failed"


def test_a_caller_during_a_trial_start_makes_it_a_rollout_of_what_serves():
    cluster = serving(0).edit("b")
    cluster.step()
    cluster.step()
    cluster.workloads["a"].replicas = 1
    cluster.step()
    assert (cluster.phase, cluster.weights) == ("Progressing", {"a": 100})
    cluster.start_pods()
    cluster.step()
    assert cluster.weights == {"b": 100}


def test_without_a_trial_start_the_new_revision_proves_itself_on_the_first_request():
    cluster = serving(0, rollout=blue_green(trialStart=False)).edit("b")
    cluster.step()
    assert (cluster.weights, cluster.memory) == ({"b": 100}, None)
    assert set(cluster.replicas.values()) == {0}


def test_a_canary_of_a_deployment_that_sleeps_has_its_weight_when_requests_come():
    cluster = serving(0, rollout=STEPS).edit("b")
    cluster.settle()
    assert (cluster.phase, cluster.weights) == ("Paused", {"a": 75, "b": 25})
    assert cluster.replicas == {"a": 0, "b": 0}
    cluster.workloads["b"].replicas = 1
    cluster.step()
    assert cluster.replicas == {"a": 1, "b": 1}
    cluster.settle()
    assert cluster.weights == {"a": 75, "b": 25}
    cluster.demand = 0
    cluster.settle()
    assert cluster.replicas == {"a": 0, "b": 0}
    cluster.order("promote", "b/1").settle()
    cluster.later(61).settle()
    assert cluster.weights == {"b": 100}


def test_a_number_of_before_the_start_from_zero_does_not_end_it():
    cluster = serving(0, rollout=STEPS).edit("b")
    cluster.settle()
    cluster.demand = 0
    cluster.workloads["a"].replicas = 1
    cluster.step()
    assert cluster.replicas == {"a": 1, "b": 1}


# Load.


def test_the_load_is_split_by_weight():
    cluster = at_step_one(4)
    for total, split in ((8, {"a": 6, "b": 2}), (1, {"a": 1, "b": 1}), (5, {"a": 4, "b": 2})):
        cluster.demand = total
        cluster.settle()
        assert cluster.replicas == split
        assert cluster.weights == {"a": 75, "b": 25}


# Faults.


def test_a_clock_that_is_set_back_ends_a_step_after_its_time_at_the_latest():
    rollout = canary({"weight": 25, "pause": "60s"})
    cluster = serving(4, rollout=rollout).edit("b")
    for _ in range(4):
        cluster.step()
        cluster.start_pods()
    cluster.later(-86400).step()
    cluster.later(59).step()
    assert cluster.phase == "Waiting"
    cluster.later(2).settle()
    assert cluster.weights == {"b": 100}


def test_a_clock_that_is_set_forward_takes_no_pods_from_requests_under_way():
    cluster = serving(2).edit("b")
    cluster.step()
    cluster.step()
    cluster.start_pods()
    cluster.step()
    assert cluster.weights == {"b": 100}
    cluster.later(86400)
    cluster.workloads["a"].unused = 1.0
    cluster.step()
    assert cluster.replicas["a"] == 2


@pytest.mark.parametrize("most", ["a", "b"])
def test_a_status_that_is_lost_leaves_the_traffic_with_what_has_most_ready(most):
    cluster = serving(4, rollout=STEPS)
    cluster.workloads = {
        name: Workload(3, 3) if name == most else Workload(1, 1) for name in ("a", "b")
    }
    cluster = without_status(cluster).edit("b")
    cluster.step()
    assert cluster.weights[most] >= 75
    cluster.settle()
    assert cluster.weights == ({"b": 100} if most == "b" else {"a": 75, "b": 25})
