"""What the autoscaler is given: kept from tick to tick, and never older than what was heard."""

from __future__ import annotations

from typing import Any

from tests.support.fakekube import FakeKube

from beamlit_operator.api import labels
from beamlit_operator.controllers.children import CHILD_RESOURCES, Children
from beamlit_operator.controllers.demand import Demand
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.scaling import SPARE, Scaling
from beamlit_operator.kube import DEPLOYMENTS, Change, Json, ObjectKey

PLACE = ObjectKey("team", "iris-production")


class Bench:
    """A Scaling with what feeds it, as the operator puts them together."""

    def __init__(self) -> None:
        self.version = 0
        self.indexes = Indexes(
            lambda *_: None, on_seen=lambda _kind, key, *_: self.scaling.touched(key)
        )
        self.children = {
            each: Children(FakeKube(), each, on_change=lambda _: None) for each in CHILD_RESOURCES
        }
        self.scaling = Scaling(
            FakeKube(),
            options=Options(),
            indexes=self.indexes,
            children=self.children,
            demand=Demand(lambda _: None),
        )

    def _whole(self, name: str, item: Json, **metadata: Any) -> Json:
        self.version += 1
        marks = {"name": name, "namespace": "team", "uid": name}
        marks["resourceVersion"] = str(self.version)
        return {**item, "metadata": {**marks, "generation": 1, **metadata}}

    def deployment(self, *, enabled: bool = True, reason: str = "Idle") -> None:
        ready = "True" if reason == "Idle" else "False"
        condition = {"type": "Ready", "status": ready, "reason": reason, "message": ""}
        revision = {"name": "rev-1", "version": "1", "replicas": 0, "readyReplicas": 0}
        body = {
            "apiVersion": "beamlit.com/v1alpha1",
            "kind": "ModelDeployment",
            "spec": {"model": "iris", "environment": "production", "enabled": enabled},
            "status": {
                "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "revisions": [{**revision, "traffic": 100}],
            },
        }
        self.indexes.put(Kind.MODEL_DEPLOYMENT, self._whole(PLACE.name, body))

    def workload(self, replicas: int, *, written: bool = False) -> None:
        marks = {labels.MODEL_DEPLOYMENT: PLACE.name}
        body = {"kind": "Deployment", "spec": {"replicas": replicas}}
        item = self._whole("rev-1", body, labels=marks)
        if written:
            self.children[DEPLOYMENTS].wrote(item, quiet=True)
        else:
            key = ObjectKey("team", "rev-1")
            self.children[DEPLOYMENTS]._changed(Change(key, None, item))

    def replicas(self) -> list[int]:
        return [each.replicas for each in self.scaling.targets()]


def test_a_target_appears_with_its_workload_and_follows_it():
    bench = Bench()
    assert bench.replicas() == []
    bench.deployment()
    assert bench.replicas() == []
    bench.workload(0)
    assert bench.replicas() == [0]
    assert bench.replicas() == [0]
    bench.workload(2)
    assert bench.replicas() == [2]
    bench.workload(1, written=True)
    assert bench.replicas() == [1]


def test_what_is_disabled_failed_or_gone_is_no_target_any_more():
    bench = Bench()
    bench.deployment()
    bench.workload(1)
    assert bench.replicas() == [1]
    bench.deployment(enabled=False)
    assert bench.replicas() == []
    bench.deployment()
    assert bench.replicas() == [1]
    bench.deployment(reason="PolicyNotFound")
    assert bench.replicas() == []
    bench.deployment()
    bench.indexes.remove(Kind.MODEL_DEPLOYMENT, PLACE)
    assert bench.replicas() == []


def test_a_target_goes_with_its_workload():
    bench = Bench()
    bench.deployment()
    bench.workload(1)
    assert bench.replicas() == [1]
    key = ObjectKey("team", "rev-1")
    gone = bench.children[DEPLOYMENTS].get(key)
    bench.children[DEPLOYMENTS]._changed(Change(key, gone, None))
    assert bench.replicas() == []


def test_names_of_what_went_are_not_kept_by_one_that_never_scales():
    bench = Bench()
    bench.deployment()
    bench.workload(1)
    for number in range(5 * SPARE):
        bench.scaling.touched(ObjectKey("team", f"gone-{number}"))
    assert len(bench.scaling._touched) <= SPARE + 2
    assert bench.replicas() == [1], "what is there is looked at all the same"


def test_one_that_appears_while_names_are_dropped_is_scaled():
    bench = Bench()
    for number in range(SPARE):
        bench.scaling.touched(ObjectKey("team", f"gone-{number}"))
    bench.deployment()
    bench.workload(1)
    assert bench.replicas() == [1]
