"""Pods that policies do not allow any more, and what keeps them from coming back."""

from __future__ import annotations

from dataclasses import replace

from tests.support.situations import (
    NOW,
    US_NODE,
    Situation,
    metadata,
    plan_of,
    ready_of,
    settled,
)

from beamlit_operator.controllers.originbook import Failed
from beamlit_operator.controllers.scaling import NOT_SCALED


def tightened() -> tuple[Situation, str]:
    loose = Situation().policy("where", continent="eu").environment(where=True)
    running, name = settled(loose, replicas=2, ready=2)
    running = running.pod(name, "in-eu", node="eu").pod(name, "in-us", node="us")
    return running, name


def test_pods_outside_a_tightened_policy_are_deleted_and_may_be_short() -> None:
    situation, name = tightened()
    plan = plan_of(situation)
    assert [d.name for d in plan.delete] == ["in-us"]
    deployment = next(o for o in plan.apply if o["kind"] == "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert plan.scale == ()
    del name


def test_evicted_pods_get_less_time_than_rule_8_allows() -> None:
    situation, _ = tightened()
    (eviction,) = plan_of(situation).delete
    assert eviction.grace is not None
    assert eviction.grace < 5


def test_a_pod_on_a_node_that_is_gone_is_nowhere_that_a_policy_allows() -> None:
    situation, name = tightened()
    moved = situation.pod(name, "nowhere", node="gone").with_node("gone", {})
    assert [d.name for d in plan_of(moved).delete] == ["in-us", "nowhere"]
    free, other = settled(Situation(), replicas=1, ready=1)
    free = free.pod(other, "nowhere", node="gone").with_node("gone", {})
    assert plan_of(free).delete == (), "without a policy it may be anywhere"


def test_a_pod_made_by_hand_is_evicted_and_makes_no_room_in_the_roll_out() -> None:
    loose = Situation().policy("where", continent="eu").environment(where=True)
    running, name = settled(loose, replicas=1, ready=1)
    by_hand = running.pod(name, "in-eu", node="eu").pod(name, "by-hand", node="us")
    by_hand.pods[-1]["metadata"].pop("ownerReferences")
    plan = plan_of(by_hand)
    assert [d.name for d in plan.delete] == ["by-hand"]
    deployment = next(o for o in plan.apply if o["kind"] == "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_finalizer_on_a_deleted_deployment_keeps_no_pod_outside_the_policies() -> None:
    situation, name = tightened()
    plan = plan_of(replace(situation, meta=metadata("iris", deletionTimestamp=NOW.isoformat())))
    assert [d.name for d in plan.delete] == ["in-us"]
    assert [(s.name, s.replicas) for s in plan.scale] == [(name, 1)]
    assert (plan.status, plan.apply) == (None, ())


def test_a_deployment_that_cannot_be_rebuilt_is_scaled_to_the_pods_that_may_stay() -> None:
    situation, name = tightened()
    plan = plan_of(situation.origin(Failed("AccessDenied", "no", True)))
    assert [d.name for d in plan.delete] == ["in-us"]
    assert [(s.name, s.replicas) for s in plan.scale] == [(name, 1)]


def test_a_pod_leaves_a_gpu_that_is_allowed_no_more_although_the_nodes_cpu_is() -> None:
    gpu = (
        Situation()
        .with_spec(flavors=[{"type": "gpu", "name": "t4"}], runtime={"type": "vllm"})
        .with_node("gpu", {**US_NODE, "nvidia.com/gpu.product": "Tesla-T4"})
    )
    running, name = settled(gpu, replicas=2, ready=2)
    forbidden = (
        running.flavor_policy("cpus", cpu="x86")
        .environment(cpus=True)
        .pod(name, "on-gpu", node="gpu", device="nvidia.com/gpu")
    )
    plan = plan_of(forbidden)
    assert [d.name for d in plan.delete] == ["on-gpu"]
    assert [(s.name, s.replicas) for s in plan.scale] == [(name, 0)]
    assert ready_of(plan)[1] == "FlavorNotAllowed"
    assert "FlavorNotAllowed" in NOT_SCALED


def test_nothing_new_starts_while_the_environment_is_missing() -> None:
    running, name = settled(Situation(), replicas=0)
    woken = running.scaled(name, 1).without_environment()
    assert [(s.name, s.replicas) for s in plan_of(woken).scale] == [(name, 0)]
    serving = running.scaled(name, 1, ready=1).pod(name).without_environment()
    assert plan_of(serving).scale == ()
