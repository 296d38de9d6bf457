"""ReplicaSet decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.controllers.replicaset import Snapshot, decide
from beamlit_operator.devcluster.timestamps import written

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def replica_set(replicas: int, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "namespace": "default", "uid": "rs", "generation": 2},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            **spec,
        },
    }


def pod(
    name: str, *, ready: bool = False, owner: str | None = "rs", **extra: Any
) -> dict[str, Any]:
    status = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": written(NOW - timedelta(seconds=60)),
    }
    references = [{"uid": owner, "kind": "ReplicaSet", "controller": True}] if owner else []
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": name,
        "labels": extra.pop("labels", {"app": "web"}),
        "ownerReferences": references,
        **extra.pop("metadata", {}),
    }
    phase = extra.pop("phase", "Running")
    return {
        "metadata": metadata,
        "spec": {"nodeName": "a", **extra.pop("spec", {})},
        "status": {"phase": phase, "conditions": [status]},
    }


def names(pods: Any) -> list[str]:
    return [item["metadata"]["name"] for item in pods]


def test_missing_pods_are_created_from_the_template_with_an_owner() -> None:
    plan = decide(Snapshot(replica_set(2), [pod("a")], NOW))
    (created,) = plan.create
    assert created["metadata"]["generateName"] == "web-1-"
    assert created["metadata"]["labels"] == {"app": "web"}
    assert created["metadata"]["ownerReferences"][0]["uid"] == "rs"
    assert plan.delete == ()


def test_pods_that_are_missed_least_are_deleted_first() -> None:
    pods = [
        pod("ready", ready=True),
        pod("unready"),
        pod("unplaced", phase="Pending", spec={"nodeName": ""}),
    ]
    assert names(decide(Snapshot(replica_set(2), pods, NOW)).delete) == ["unplaced"]
    assert names(decide(Snapshot(replica_set(1), pods, NOW)).delete) == ["unplaced", "unready"]


def test_the_deletion_cost_decides_between_equals() -> None:
    cost = {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}
    pods = [pod("a", ready=True), pod("b", ready=True, metadata=cost)]
    assert names(decide(Snapshot(replica_set(1), pods, NOW)).delete) == ["b"]


def test_a_pod_being_deleted_or_ended_does_not_count() -> None:
    pods = [pod("a", metadata={"deletionTimestamp": "x"}), pod("b", phase="Failed")]
    assert len(decide(Snapshot(replica_set(1), pods, NOW)).create) == 1


def test_nobodys_matching_pod_is_adopted_and_a_relabelled_one_released() -> None:
    pods = [pod("stray", owner=None), pod("changed", labels={"app": "other"})]
    plan = decide(Snapshot(replica_set(1), pods, NOW))
    assert names(plan.adopt) == ["stray"]
    assert names(plan.release) == ["changed"]
    assert plan.create == ()


def test_somebody_elses_pod_is_left_alone() -> None:
    plan = decide(Snapshot(replica_set(0), [pod("a", owner="other")], NOW))
    assert (plan.adopt, plan.release, plan.delete) == ((), (), ())


def test_a_replica_set_that_is_being_deleted_does_nothing_to_pods() -> None:
    item = replica_set(3)
    item["metadata"]["deletionTimestamp"] = "x"
    plan = decide(Snapshot(item, [pod("a", owner=None)], NOW))
    assert (plan.create, plan.delete, plan.adopt) == ((), (), ())


def test_a_pod_is_available_after_min_ready_seconds() -> None:
    item = replica_set(1, minReadySeconds=90)
    plan = decide(Snapshot(item, [pod("a", ready=True)], NOW))
    assert plan.status is not None
    assert plan.status["readyReplicas"] == 1
    assert "availableReplicas" not in plan.status
    assert plan.requeue_after == 30
    later = decide(Snapshot(item, [pod("a", ready=True)], NOW + timedelta(seconds=30)))
    assert later.status is not None
    assert later.status["availableReplicas"] == 1


def test_a_failed_creation_is_a_condition_until_it_succeeds() -> None:
    item = replica_set(1)
    plan = decide(Snapshot(item, [], NOW, failure="quota exceeded"))
    assert plan.status is not None
    (condition,) = plan.status["conditions"]
    assert (condition["type"], condition["message"]) == ("ReplicaFailure", "quota exceeded")
    item["status"] = plan.status
    healed = decide(Snapshot(item, [pod("a")], NOW))
    assert healed.status is not None
    assert "conditions" not in healed.status


@given(st.integers(0, 8), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=10))
def test_a_plan_carried_out_leaves_exactly_the_wanted_number(
    wanted: int, existing: list[tuple[bool, bool]]
) -> None:
    pods = [
        pod(f"p{number}", ready=ready, owner="rs" if owned else None)
        for number, (ready, owned) in enumerate(existing)
    ]
    plan = decide(Snapshot(replica_set(wanted), pods, NOW))
    assert len(pods) + len(plan.create) - len(plan.delete) == wanted
    assert not (plan.create and plan.delete)
    kept = [item for item in pods if item["metadata"]["name"] not in names(plan.delete)]
    kept = [{**item, "metadata": {**item["metadata"]}} for item in kept]
    for item in kept:
        item["metadata"]["ownerReferences"] = [{"uid": "rs", "controller": True}]
    if not plan.create:
        after = decide(Snapshot(replica_set(wanted), kept, NOW))
        assert (after.create, after.delete, after.adopt) == ((), (), ())
