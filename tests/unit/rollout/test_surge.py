"""How the replicas of two revisions are made where there is little room for both."""

from __future__ import annotations

from tests.support.rollouts import (
    at_step_one,
    blue_green,
    canary,
    serving,
)

from beamlit_operator.rollout import Scaling


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
