"""Deployment decisions: tables for single steps, a simulation for whole rollouts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.devcluster.controllers import rolling
from beamlit_operator.devcluster.controllers.deployment import (
    HASH_LABEL,
    REVISION,
    Snapshot,
    decide,
    find_new,
)
from beamlit_operator.devcluster.controllers.pods import condition

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def deployment(replicas: int = 3, image: str = "v1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


class World:
    """Carries plans out in memory, with pods that become available at once or when told."""

    def __init__(self, item: dict[str, Any]) -> None:
        self.deployment = item
        self.sets: dict[str, dict[str, Any]] = {}
        self.clock = NOW
        self.healthy = True
        self.lowest_available = 10**6
        self.highest_total = 0

    def step(self) -> bool:
        """One decision; whether it changed anything but the status."""
        plan = decide(Snapshot(self.deployment, list(self.sets.values()), (), self.clock))
        metadata = self.deployment["metadata"]
        if plan.create is not None:
            name = plan.create["metadata"]["name"]
            assert name not in self.sets
            created = {**plan.create, "status": {}}
            created["metadata"] = {
                **plan.create["metadata"],
                "uid": name,
                "creationTimestamp": f"2026-01-01T00:00:{len(self.sets):02}Z",
            }
            self.sets[name] = created
        for name, patch in plan.patch_sets.items():
            item = self.sets[name]
            self.sets[name] = {
                **item,
                "spec": {**item["spec"], **patch.get("spec", {})},
                "metadata": {
                    **item["metadata"],
                    "annotations": {
                        **item["metadata"]["annotations"],
                        **patch.get("metadata", {}).get("annotations", {}),
                    },
                },
            }
        for item in plan.delete:
            del self.sets[item["metadata"]["name"]]
        if plan.revision is not None:
            metadata.setdefault("annotations", {})[REVISION] = plan.revision
        if plan.status is not None:
            self.deployment["status"] = plan.status
        return bool(plan.create or plan.patch_sets or plan.delete or plan.revision or plan.status)

    def pods_follow(self) -> bool:
        changed = False
        newest = find_new(self.deployment, list(self.sets.values()))
        for name, item in self.sets.items():
            count = item["spec"]["replicas"]
            before = item["status"]
            kept = min(before.get("availableReplicas", 0), count)
            available = count if self.healthy or item is not newest else kept
            status = {"replicas": count, "readyReplicas": available, "availableReplicas": available}
            changed = changed or before != status
            self.sets[name] = {**item, "status": status}
        available = sum(item["status"]["availableReplicas"] for item in self.sets.values())
        self.lowest_available = min(self.lowest_available, available)
        return changed

    def settle(self) -> None:
        for _ in range(400):
            moved = self.step()
            total = sum(item["spec"]["replicas"] for item in self.sets.values())
            self.highest_total = max(self.highest_total, total)
            if not (self.pods_follow() or moved):
                return
        raise AssertionError(f"never settles: {self.deployment.get('status')} {self.sets}")

    def change_image(self, image: str) -> None:
        template = self.deployment["spec"]["template"]
        self.deployment["spec"]["template"] = {
            **template,
            "spec": {"containers": [{"name": "c", "image": image}]},
        }
        self.deployment["metadata"]["generation"] += 1

    def sizes(self) -> dict[str, int]:
        return {
            item["spec"]["template"]["spec"]["containers"][0]["image"]: item["spec"]["replicas"]
            for item in self.sets.values()
        }


def test_a_new_deployment_gets_one_replica_set_and_becomes_available() -> None:
    world = World(deployment())
    world.settle()
    (item,) = world.sets.values()
    assert item["metadata"]["labels"][HASH_LABEL] in item["metadata"]["name"]
    assert item["metadata"]["annotations"][REVISION] == "1"
    status = world.deployment["status"]
    assert (status["replicas"], status["availableReplicas"]) == (3, 3)
    assert condition(world.deployment, "Available")["reason"] == "MinimumReplicasAvailable"
    assert condition(world.deployment, "Progressing")["reason"] == "NewReplicaSetAvailable"


def test_a_settled_deployment_makes_no_writes() -> None:
    world = World(deployment())
    world.settle()
    assert not world.step()


@given(
    replicas=st.integers(0, 12),
    surge=st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda n: f"{n}%")),
    unavailable=st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda n: f"{n}%")),
)
@settings(max_examples=150, deadline=None)
def test_a_rolling_update_never_leaves_its_bounds_and_always_ends(
    replicas: int, surge: int | str, unavailable: int | str
) -> None:
    update = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": update}
    world = World(deployment(replicas, strategy=strategy))
    world.settle()
    world.lowest_available = 10**6
    world.change_image("v2")
    world.settle()
    limits = rolling.bounds(world.deployment)
    assert world.sizes() == {"v1": 0, "v2": replicas}
    assert world.highest_total <= replicas + limits.surge
    assert world.lowest_available >= replicas - limits.unavailable


def test_a_broken_new_version_leaves_enough_old_pods_and_is_reported_in_the_end() -> None:
    world = World(deployment(4, progressDeadlineSeconds=60))
    world.settle()
    world.healthy = False
    world.change_image("broken")
    world.settle()
    assert world.sizes()["v1"] == 3
    world.clock += timedelta(seconds=61)
    world.settle()
    found = condition(world.deployment, "Progressing")
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")
    world.healthy = True
    world.settle()
    assert world.sizes() == {"v1": 0, "broken": 4}
    assert condition(world.deployment, "Progressing")["reason"] == "NewReplicaSetAvailable"


def test_going_back_reuses_the_old_replica_set_with_a_new_revision_number() -> None:
    world = World(deployment())
    world.settle()
    world.change_image("v2")
    world.settle()
    world.change_image("v1")
    world.settle()
    assert len(world.sets) == 2
    assert world.sizes() == {"v1": 3, "v2": 0}
    revisions = sorted(s["metadata"]["annotations"][REVISION] for s in world.sets.values())
    assert revisions == ["2", "3"]
    assert world.deployment["metadata"]["annotations"][REVISION] == "3"


def test_old_replica_sets_beyond_the_history_limit_go() -> None:
    world = World(deployment(revisionHistoryLimit=2))
    for number in range(6):
        world.change_image(f"v{number}")
        world.settle()
    assert set(world.sizes()) == {"v3", "v4", "v5"}


def test_recreate_waits_for_the_last_old_pod() -> None:
    item = deployment(strategy={"type": "Recreate"})
    world = World(item)
    world.settle()
    (old,) = world.sets.values()
    world.change_image("v2")
    world.step()
    world.pods_follow()
    (old,) = world.sets.values()
    assert old["spec"]["replicas"] == 0
    owner = {"uid": old["metadata"]["uid"], "controller": True}
    leftover = {"metadata": {"name": "p", "ownerReferences": [owner]}}
    waiting = decide(Snapshot(item, [old], [leftover], NOW))
    assert waiting.create is None
    assert decide(Snapshot(item, [old], [], NOW)).create is not None


@pytest.mark.parametrize("replicas", [0, 1, 7])
def test_scaling_changes_only_the_size(replicas: int) -> None:
    world = World(deployment(3))
    world.settle()
    world.deployment["spec"]["replicas"] = replicas
    world.settle()
    assert world.sizes() == {"v1": replicas}
    assert world.deployment["metadata"]["annotations"][REVISION] == "1"


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = World(deployment(2))
    world.settle()
    world.deployment["spec"]["paused"] = True
    world.change_image("v2")
    world.deployment["spec"]["replicas"] = 4
    world.settle()
    assert world.sizes() == {"v1": 4}
    assert condition(world.deployment, "Progressing")["reason"] == "DeploymentPaused"
    del world.deployment["spec"]["paused"]
    world.settle()
    assert world.sizes() == {"v1": 0, "v2": 4}


@given(st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_scaling_in_the_middle_of_a_stuck_rollout_keeps_the_total(first: int, then: int) -> None:
    world = World(deployment(first))
    world.settle()
    world.healthy = False
    world.change_image("v2")
    world.settle()
    world.deployment["spec"]["replicas"] = then
    world.settle()
    world.healthy = True
    world.settle()
    sizes = world.sizes()
    assert sizes.get("v1", 0) == 0
    assert sizes.get("v2", 0) == then
