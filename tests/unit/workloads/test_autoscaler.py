"""The HorizontalPodAutoscaler of a revision."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from beamlit_operator.api import ModelDeployment
from beamlit_operator.workloads.autoscaler import (
    horizontal_pod_autoscaler,
    scaling_problem,
    without_request,
)

Json = dict[str, Any]


def deployment(**config: Any) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris", "namespace": "team", "uid": "u-1"},
            "spec": {"model": "iris", "serverlessConfig": config},
        }
    )


def workload(**resources: Json) -> Json:
    """A Deployment with a container for each keyword."""
    containers = [{"name": name, "resources": each} for name, each in resources.items()]
    return {
        "kind": "Deployment",
        "metadata": {"name": "iris-1", "labels": {"app.kubernetes.io/name": "iris"}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


def made(**config: Any) -> Json:
    return horizontal_pod_autoscaler(deployment(**config), workload())


def test_it_is_a_valid_object_of_the_revision() -> None:
    found = made(metric="cpu", target=60, minNumReplicas=2, maxNumReplicas=7, scaleDownDelay="3m")
    kubernetes_validate.validate(found, "1.36", strict=True)
    assert found["metadata"]["name"] == "iris-1"
    assert found["metadata"]["labels"] == {"app.kubernetes.io/name": "iris"}
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert found["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "iris-1"},
        "minReplicas": 2,
        "maxReplicas": 7,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 60},
                },
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 180}},
    }


@pytest.mark.parametrize(
    ("config", "target"),
    [
        ({"metric": "cpu"}, {"type": "Utilization", "averageUtilization": 80}),
        ({"metric": "cpu", "target": "49.5"}, {"type": "Utilization", "averageUtilization": 50}),
        ({"metric": "memory", "target": 512}, {"type": "AverageValue", "averageValue": "512Mi"}),
        (
            {"metric": "memory", "target": "0.5"},
            {"type": "AverageValue", "averageValue": "524288"},
        ),
    ],
)
def test_the_target_is_percent_of_the_request_or_mebibytes(config: Json, target: Json) -> None:
    assert made(**config)["spec"]["metrics"][0]["resource"]["target"] == target


@pytest.mark.parametrize(
    ("config", "least", "most"),
    [
        ({}, 1, 10),
        ({"maxNumReplicas": 0}, 1, 10_000),
        ({"minNumReplicas": 3, "maxNumReplicas": 0}, 3, 10_000),
        ({"minNumReplicas": 3, "maxNumReplicas": 5}, 3, 5),
    ],
)
def test_it_never_goes_to_zero_and_always_has_a_maximum(
    config: Json, least: int, most: int
) -> None:
    spec = made(metric="cpu", **config)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (least, most)


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 60),
        ({"stableWindow": "90s"}, 90),
        ({"stableWindow": "90s", "scaleDownDelay": "2m"}, 120),
        ({"scaleDownDelay": "5s", "stableWindow": "6s"}, 6),
        ({"scaleDownDelay": "3h"}, 3600),
    ],
)
def test_replicas_go_after_the_delay_or_the_window(config: Json, seconds: int) -> None:
    behavior = made(metric="cpu", **config)["spec"]["behavior"]
    assert behavior == {"scaleDown": {"stabilizationWindowSeconds": seconds}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"metric": "cpu"}, None),
        ({"metric": "concurrency", "target": "many"}, None),
        ({"metric": "memory", "target": 100}, None),
        ({"metric": "memory"}, "MiB per replica, with metric memory: it is not set"),
        ({"metric": "memory", "target": "0"}, "it is 0"),
        ({"metric": "cpu", "target": "lots"}, "percent of the requested cpu, with metric cpu"),
    ],
)
def test_a_target_that_cannot_be_used_is_told(config: Json, says: str | None) -> None:
    problem = scaling_problem(deployment(**config))
    assert (problem is None) == (says is None)
    assert says is None or (problem is not None and says in problem)


def test_containers_without_a_request_are_named_for_cpu_only() -> None:
    mixed = workload(
        model={"requests": {"cpu": "1"}},
        limited={"limits": {"cpu": "1"}},
        plain={"requests": {"memory": "1Gi"}},
        bare={},
    )
    assert without_request(deployment(metric="cpu"), mixed) == ["plain", "bare"]
    assert without_request(deployment(metric="memory", target=1), mixed) == []
