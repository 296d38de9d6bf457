"""What a release makes of the destination, and which are refused: the tables in `cli/releasing`."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from beamlit_operator.api import Model
from beamlit_operator.cli.releasing import Order, Release, ReleaseRefusedError, manifest, plan
from beamlit_operator.kube import Json

AT = datetime(2026, 5, 4, 12, 30, 15, 999, tzinfo=UTC)
ORDER = Order("iris", "development", "production", by="ada", at=AT)
V1, V2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
RUNTIME = {"image": "server:2", "envs": [{"name": "MODE", "value": "new"}]}


def model(origin: dict[str, Any] | None = None, revision: str = V2) -> Model:
    origin = origin or {"s3": {"uri": "s3://models/iris"}}
    found = {"uri": "s3://models/iris", "revision": revision, "files": 1, "bytes": 1}
    return Model.model_validate(
        {"metadata": {"name": "iris"}, "spec": {"origin": origin}, "status": {"origin": found}}
    )


def deployment(environment: str, *, name: str = "", version: str = V2, **spec: Any) -> Json:
    name = name or f"iris-{environment}"
    return {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "team", "generation": 3, "resourceVersion": "7"},
        "spec": {"model": "iris", "environment": environment, **spec},
        "status": {
            "observedGeneration": 3,
            "revisions": [
                {"name": f"{name}-0", "version": V1, "traffic": 0},
                {"name": f"{name}-1", "version": version, "traffic": 100},
            ],
            "conditions": [ready("True", "Serving")],
        },
    }


def ready(status: str, reason: str) -> Json:
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": "so it is",
        "lastTransitionTime": "2026-05-04T12:00:00Z",
    }


def released(*there: Json, order: Order = ORDER, of: Model | None = None) -> Release:
    before = copy.deepcopy(there)
    result = plan(order, of or model(), there)
    assert before == there, "the plan must not change what it is given"
    return result


def order(**more: Any) -> Order:
    return Order("iris", "development", "production", by="ada", at=AT, **more)


OWN: dict[str, Any] = {
    "flavors": [{"type": "gpu", "name": "t4"}],
    "serverlessConfig": {"minNumReplicas": 2},
    "endpoint": {"maxConcurrency": 4, "public": True},
    "rollout": {"strategy": "BlueGreen"},
    "policies": [{"name": "of-production"}],
    "enabled": True,
}
SOURCES: dict[str, Any] = {
    "runtime": RUNTIME,
    "podTemplate": {"spec": {"priorityClassName": "high"}},
    "flavors": [{"type": "gpu", "name": "a100"}],
    "serverlessConfig": {"minNumReplicas": 0},
    "endpoint": {"maxConcurrency": 9, "public": True},
    "rollout": {"strategy": "Canary", "steps": [{"weight": 5}]},
    "policies": [{"name": "of-development"}],
    "withoutPolicies": ["optional"],
    "enabled": False,
}
VERSION = {"version": V2, "runtime": RUNTIME, "podTemplate": SOURCES["podTemplate"]}
KEYS = {"model": "iris", "environment": "production"}


def test_an_existing_destination_gets_the_version_and_keeps_everything_else() -> None:
    old = {"version": V1, "runtime": {"image": "server:1", "args": ["-v"]}}
    result = released(deployment("development", **SOURCES), deployment("production", **OWN, **old))
    assert result.after["spec"] == {**KEYS, **OWN, **VERSION}
    assert [each.field for each in result.changes] == [
        "spec.podTemplate.spec.priorityClassName",
        "spec.runtime.args",
        "spec.runtime.envs",
        "spec.runtime.image",
        "spec.version",
    ]


def test_what_the_source_does_not_set_is_taken_away() -> None:
    result = released(deployment("development"), deployment("production", runtime=RUNTIME))
    assert result.after["spec"] == {**KEYS, "version": V2}


def test_policies_come_along_when_asked_for() -> None:
    result = released(
        deployment("development", **SOURCES),
        deployment("production", **OWN),
        order=order(with_policies=True),
    )
    assert result.after["spec"]["policies"] == [{"name": "of-development"}]
    assert result.after["spec"]["withoutPolicies"] == ["optional"]


def test_a_new_destination_begins_as_the_source_but_is_not_public() -> None:
    result = released(deployment("development", **SOURCES))
    assert result.before is None
    assert result.after["metadata"] | {"annotations": {}} == {
        "name": "iris-production",
        "namespace": "team",
        "annotations": {},
    }
    assert result.after["spec"] == {
        **KEYS,
        **VERSION,
        "flavors": SOURCES["flavors"],
        "serverlessConfig": SOURCES["serverlessConfig"],
        "endpoint": {"maxConcurrency": 9},
    }


@pytest.mark.parametrize(
    ("source", "wanted", "name"),
    [
        ("iris-development", None, "iris-production"),
        ("classifier-development", None, "classifier-production"),
        ("dev", None, "iris-production"),
        ("iris", None, "iris-production"),
        ("iris-development", "live", "live"),
    ],
)
def test_a_new_destination_is_called_as_the_source_is(
    source: str, wanted: str | None, name: str
) -> None:
    result = released(deployment("development", name=source), order=order(name=wanted))
    assert result.name == name


def test_a_destination_is_found_by_what_it_serves_and_the_older_one_counts() -> None:
    younger, older = (deployment("production", name=name) for name in ("a", "b"))
    younger["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert released(deployment("development"), younger, older).name == "b"


def test_what_was_released_stays_on_the_destination() -> None:
    production = deployment("production")
    production["metadata"]["annotations"] = {
        "beamlit.com/released-by": "bob",
        "team.example/owner": "ml",
    }
    annotations = released(deployment("development"), production).after["metadata"]["annotations"]
    assert annotations == {
        "team.example/owner": "ml",
        "beamlit.com/released-from": "development",
        "beamlit.com/released-revision": "iris-development-1",
        "beamlit.com/released-at": "2026-05-04T12:30:15Z",
        "beamlit.com/released-by": "ada",
    }
    nobody = Order("iris", "development", "production", by=None, at=AT)
    again = released(deployment("development"), production, order=nobody).after["metadata"]
    assert "beamlit.com/released-by" not in again["annotations"]


def test_the_same_version_again_changes_nothing_not_even_annotations() -> None:
    there = deployment("production", version=V2, runtime=RUNTIME)
    result = released(
        deployment("development", runtime=RUNTIME),
        {**there, "spec": {**KEYS, "version": V2, "runtime": RUNTIME}},
    )
    assert result.changes == ()
    assert result.after == result.before


def test_the_manifest_is_what_one_keeps_in_git() -> None:
    production = deployment("production", **OWN)
    production["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "beamlit.com/rollout-promote": "iris-production-1",
        "team.example/owner": "ml",
    }
    production["metadata"]["labels"] = {"app": "x"}
    written = manifest(released(deployment("development", **SOURCES), production))
    assert set(written) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(written["metadata"]) == {"name", "namespace", "labels", "annotations"}
    assert {a for a in written["metadata"]["annotations"] if "released" not in a} == {
        "team.example/owner"
    }
    assert written["spec"] == {**KEYS, **OWN, **VERSION}


ABORTED = {
    "phase": "Aborted",
    "stable": "iris-development-1",
    "canary": "iris-development-2",
    "startedAt": "2026-05-04T12:00:00Z",
    "since": "2026-05-04T12:00:00Z",
}


def without_traffic(item: Json) -> None:
    for revision in item["status"]["revisions"]:
        revision["traffic"] = 0


def split(item: Json) -> None:
    item["status"]["revisions"][0]["traffic"] = 40
    item["status"]["revisions"][1]["traffic"] = 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["metadata"].update(generation=4), "has not looked at it yet"),
        (without_traffic, "has no version that could be released (Serving: so it is)"),
        (lambda d: d.pop("status"), "has not looked at it yet"),
        (lambda d: d["status"].update(revisions=[]), "has no version"),
        (split, "is in a rollout"),
        (lambda d: d["status"].update(rollout=ABORTED), "is in a rollout"),
        (lambda d: d["metadata"].update(deletionTimestamp="now"), "no deployment in environment"),
        (lambda d: d["spec"].update(environment="staging"), "it is deployed in staging"),
        (lambda d: d["spec"].update(model="wine"), "it is deployed nowhere"),
    ],
)
def test_what_is_not_proven_or_not_there_is_refused(change: Any, says: str) -> None:
    source = deployment("development")
    change(source)
    with pytest.raises(ReleaseRefusedError, match=re.escape(says)):
        released(source)


def test_files_that_an_s3_prefix_or_a_claim_holds_no_longer_are_refused_and_commits_are_not() -> (
    None
):
    for origin in (None, {"pvc": {"claimName": "weights"}}):
        with pytest.raises(ReleaseRefusedError, match=f"does not hold version {V2} any more"):
            released(deployment("development"), of=model(origin, revision=V1))
    hub = model({"huggingFace": {"repo": "org/iris"}}, revision=V1)
    assert released(deployment("development"), of=hub).version == V2


def test_a_taken_name_is_refused() -> None:
    other = deployment("production", name="iris-production")
    other["spec"]["model"] = "wine"
    with pytest.raises(ReleaseRefusedError, match="taken by model wine in environment production"):
        released(deployment("development"), other)


def test_one_that_is_not_ready_or_not_active_is_released_with_a_warning() -> None:
    source = deployment("development")
    source["status"]["conditions"] = [ready("False", "NoPlacement")]
    result = released(source, deployment("production", enabled=False))
    assert result.warnings == (
        "iris-development is not ready (NoPlacement: so it is)",
        "iris-production is deactivated: nothing runs until activated",
    )
