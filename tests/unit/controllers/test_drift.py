"""What others add to a child and an apply alone would leave there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.situations import metadata

from beamlit_operator.controllers.drift import ours, undoing
from beamlit_operator.kube import Json

OWNER = {"uid": "uid-iris", "controller": True}
APPLIED = {"manager": "beamlit-operator", "operation": "Apply"}
DEPLOYMENT: Json = {
    "kind": "Deployment",
    "metadata": {**metadata("iris-1"), "ownerReferences": [OWNER]},
    "spec": {"template": {"spec": {"containers": [{"name": "model"}]}}},
}
SERVICE: Json = {
    "kind": "Service",
    "metadata": {**metadata("iris-1"), "ownerReferences": [OWNER]},
    "spec": {"selector": {"beamlit.com/revision": "iris-1"}},
}


def changed(item: Json, path: str, value: Any) -> Json:
    result = copy.deepcopy(item)
    at = result
    *way, last = path.split(".")
    for step in way:
        at = at[step]
    at[last] = value
    return result


@pytest.mark.parametrize(
    ("item", "path", "value", "patch"),
    [
        (DEPLOYMENT, "spec.replicas", 3, {}),
        (DEPLOYMENT, "spec.template.spec.schedulerName", "default-scheduler", {}),
        (DEPLOYMENT, "spec.template.spec.priorityClassName", "high", {}),
        (DEPLOYMENT, "spec.paused", True, {"paused": None}),
        (
            DEPLOYMENT,
            "spec.template.spec.nodeName",
            "us-east",
            {"template": {"spec": {"nodeName": None}}},
        ),
        (
            DEPLOYMENT,
            "spec.template.spec.schedulerName",
            "mine",
            {"template": {"spec": {"schedulerName": None}}},
        ),
        (SERVICE, "spec.clusterIP", "None", {}),
        (SERVICE, "spec.publishNotReadyAddresses", True, {"publishNotReadyAddresses": None}),
        (SERVICE, "spec.selector.app", "other", {"selector": {"app": None}}),
    ],
)
def test_what_would_get_round_the_policies_is_taken_away(
    item: Json, path: str, value: Any, patch: Json
) -> None:
    assert undoing(item, changed(item, path, value)) == ({"spec": patch} if patch else {})


def test_what_the_author_of_the_deployment_asked_for_stays() -> None:
    wanted = changed(DEPLOYMENT, "spec.template.spec.schedulerName", "volcano")
    assert undoing(wanted, wanted) == {}


@pytest.mark.parametrize(
    ("references", "managers", "answer"),
    [
        ([OWNER], [], True),
        ([{"uid": "uid-other", "controller": True}], [APPLIED], False),
        ([], [APPLIED], True),
        ([], [{"manager": "kubectl", "operation": "Apply"}], False),
        ([], [], False),
    ],
)
def test_who_a_child_belongs_to(references: list[Json], managers: list[Json], answer: bool) -> None:
    live = changed(SERVICE, "metadata.ownerReferences", references)
    live["metadata"]["managedFields"] = managers
    assert ours(SERVICE, live) is answer
