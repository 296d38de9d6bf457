"""The rollout's decisions, as a user would tell them; steps, surge and sleep have their own."""

from __future__ import annotations

import pytest
from tests.support.rollouts import (
    STEPS,
    Cluster,
    Workload,
    at_step_one,
    blue_green,
    canary,
    serving,
    without_status,
)

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
