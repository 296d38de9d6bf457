"""A rollout of a deployment that sleeps."""

from __future__ import annotations

from tests.support.rollouts import (
    STEPS,
    blue_green,
    serving,
)


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
