"""Replica-seconds and starts, from what is seen of pods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from beamlit_operator.api import labels
from beamlit_operator.controllers.usage import Usage
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.policy import built_in

BEGAN = datetime(2025, 1, 1, 12, 0, 0, tzinfo=UTC)
OWNER = {"workspace": "demo", "model": "iris", "environment": "dev", "deployment": "iris"}
NODES = {
    "amd": {"kubernetes.io/arch": "amd64"},
    "t4": {"kubernetes.io/arch": "amd64", "beamlit.com/flavor": "t4"},
}


class World:
    """A clock, and what exists."""

    def __init__(self) -> None:
        self.now = 100.0
        self.leading = True
        self.deployments = {ObjectKey("demo", "iris")}
        self.registry = CollectorRegistry()
        self.usage = Usage(
            self.registry,
            node_labels=NODES.get,
            catalogue=built_in,
            exists=lambda key: key in self.deployments,
            leading=lambda: self.leading,
            now=lambda: BEGAN,
            clock=lambda: self.now,
        )

    def seconds(self, flavor: str) -> float | None:
        found = {**OWNER, "flavor": flavor}
        return self.registry.get_sample_value("beamlit_replica_seconds_total", found)

    def phase(self, phase: str, what: str = "sum") -> float | None:
        found = {**OWNER, "phase": phase}
        return self.registry.get_sample_value(f"beamlit_start_phase_seconds_{what}", found)


@pytest.fixture
def world() -> World:
    return World()


def pod(
    uid: str = "1",
    *,
    ready: bool = True,
    made: int = 10,
    times: tuple[int, int, int] = (12, 15, 25),
    node: str = "amd",
    **limits: str,
) -> Json:
    """A pod; times are seconds after the operator began."""

    def at(seconds: int) -> str:
        return (BEGAN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    kinds = ("PodScheduled", "Initialized", "Ready")
    conditions: list[dict[str, Any]] = [
        {"type": kind, "status": "True", "lastTransitionTime": at(seconds)}
        for kind, seconds in zip(kinds, times, strict=True)
    ]
    conditions[2]["status"] = str(ready)
    return {
        "metadata": {
            "uid": uid,
            "name": f"iris-{uid}",
            "namespace": "demo",
            "creationTimestamp": at(made),
            "labels": {
                labels.MODEL: "iris",
                labels.ENVIRONMENT: "dev",
                labels.MODEL_DEPLOYMENT: "iris",
            },
        },
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": limits}}]},
        "status": {"conditions": conditions},
    }


def test_replica_seconds_add_up_by_flavor(world: World) -> None:
    world.usage.seen(pod("1"))
    world.usage.seen(pod("2", node="t4", **{"nvidia.com/gpu": "1"}))
    world.usage.seen(pod("3", node="t4"))
    world.usage.seen(pod("4", node="vanished"))
    world.now += 10
    assert world.seconds("cpu:x86") == 20
    assert world.seconds("gpu:t4") == 10
    assert world.seconds("unknown") == 10
    world.usage.seen(pod("1", ready=False))
    world.usage.gone("3")
    world.now += 5
    assert world.seconds("cpu:x86") == 20
    assert world.seconds("gpu:t4") == 15


def test_a_follower_counts_nothing(world: World) -> None:
    world.leading = False
    world.usage.seen(pod())
    world.now += 10
    assert world.seconds("cpu:x86") is None
    world.leading = True
    world.now += 3
    assert world.seconds("cpu:x86") == 3
    assert world.phase("load") is None


def test_a_start_is_counted_once_by_phase(world: World) -> None:
    world.usage.seen(pod(ready=False))
    assert world.phase("load", "count") is None
    world.usage.seen(pod())
    world.usage.seen(pod(ready=False))
    world.usage.seen(pod(times=(12, 15, 90)))
    assert [world.phase(p) for p in ("schedule", "fetch", "load")] == [2, 3, 10]
    assert world.phase("load", "count") == 1


def test_pods_that_were_ready_before_the_operator_began_are_no_starts(world: World) -> None:
    world.usage.seen(pod(made=-60, times=(-50, -40, -30)))
    assert world.phase("load") is None


def test_of_a_deployment_that_is_gone_no_series_is_left(world: World) -> None:
    world.usage.seen(pod())
    world.now += 1
    assert world.seconds("cpu:x86") == 1
    world.usage.gone("1")
    world.deployments.clear()
    assert world.seconds("cpu:x86") is None
    assert world.phase("load") is None
