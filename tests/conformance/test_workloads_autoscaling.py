"""HorizontalPodAutoscalers: what they do and say, where resource metrics are served."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    ApiError,
    Json,
    Resource,
)

from .workloads import PATIENCE, Workspace

AUTOSCALERS = HORIZONTAL_POD_AUTOSCALERS
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", namespaced=False)

LONG = 180.0
"""Seconds: a metrics server looks every minute, the controller every 15 seconds."""

BURN = """
import time
while True:
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    time.sleep(0.05)
"""
"""Half a core, at most."""


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@pytest.fixture
async def measured(workspace: Workspace) -> Workspace:
    """A namespace where pods run and are measured."""
    try:
        await workspace.client.list(NODE_METRICS)
    except ApiError as error:
        pytest.skip(f"metrics.k8s.io is not served here: {error.message}")
    return workspace


def autoscaler(name: str, *, metric: Json | None = None, **spec: Any) -> Json:
    target = {"type": "Utilization", "averageUtilization": 50}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [metric or cpu],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            **spec,
        },
    }


def requesting(cpu: str) -> Json:
    return {"resources": {"requests": {"cpu": cpu, "memory": "16Mi"}}}


async def until(workspace: Workspace, name: str, check: Any, *, seconds: float = LONG) -> Json:
    """The autoscaler's status once ``check`` holds of its conditions' reasons and replicas."""
    seen: Json = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await workspace.client.get(AUTOSCALERS, name, workspace.namespace)
                seen = found.get("status") or {}
                reasons = {
                    c["type"]: (c["status"], c["reason"]) for c in seen.get("conditions") or ()
                }
                if check(reasons, seen):
                    return seen
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s; the status is {seen}")


async def test_pods_and_nodes_are_measured(measured: Workspace) -> None:
    name = await measured.start(measured.pod("busy", BURN, main=requesting("10m")))
    found: Json = {}
    async with asyncio.timeout(LONG):
        while not found:
            with contextlib.suppress(ApiError):
                found = await measured.client.get(POD_METRICS, name, measured.namespace)
            await asyncio.sleep(0.1)
    assert found["kind"] == "PodMetrics"
    assert found["timestamp"]
    assert found["window"].endswith("s")
    (container,) = found["containers"]
    assert container["name"] == "main"
    assert container["usage"]["cpu"].endswith(("n", "u", "m"))
    assert container["usage"]["memory"].endswith(("Ki", "Mi"))
    listed = await measured.client.list(POD_METRICS, measured.namespace, label_selector="app=busy")
    assert [item["metadata"]["name"] for item in listed.items] == [name]
    none = await measured.client.list(POD_METRICS, measured.namespace, label_selector="app=other")
    assert none.items == []
    nodes = await measured.client.list(NODE_METRICS)
    assert all({"cpu", "memory"} <= node["usage"].keys() for node in nodes.items)
    with pytest.raises(ApiError) as refused:
        await measured.client.get(POD_METRICS, "nobody", measured.namespace)
    assert refused.value.status == 404
    with pytest.raises(ApiError) as refused:
        await measured.client.delete(POD_METRICS, name, measured.namespace)
    assert refused.value.status == 405


async def test_load_adds_replicas_up_to_the_maximum(measured: Workspace, kubectl: Any) -> None:
    space = measured.namespace
    await measured.client.create(
        DEPLOYMENTS, measured.deployment("burn", BURN, main=requesting("20m")), space
    )
    await measured.client.create(AUTOSCALERS, autoscaler("burn"), space)
    status = await until(
        measured,
        "burn",
        lambda reasons, status: (
            status.get("currentReplicas") == 2
            and reasons.get("ScalingLimited") == ("True", "TooManyReplicas")
        ),
    )
    reasons = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert reasons["AbleToScale"] == ("True", "ReadyForNewScale")
    assert reasons["ScalingActive"] == ("True", "ValidMetricFound")
    assert status["desiredReplicas"] == 2
    assert status["lastScaleTime"]
    (metric,) = status["currentMetrics"]
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["current"]["averageUtilization"] > 50
    events = await measured.client.list(EVENTS, space)
    told = [e["message"] for e in events.items if e["reason"] == "SuccessfulRescale"]
    assert told == [
        "New size: 2; reason: cpu resource utilization (percentage of request) above target"
    ]
    top = (await kubectl("top", "pods", "--no-headers")).stdout
    assert top.count("burn-") == 2
    line = (await kubectl("get", "hpa", "burn", "--no-headers")).stdout.split()
    assert line[:2] == ["burn", "Deployment/burn"]
    assert "%/50%" in " ".join(line)

    # A target far above what is used: back to one.
    idle = {"type": "AverageValue", "averageValue": "100"}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": idle}}
    await measured.client.merge_patch(AUTOSCALERS, "burn", {"spec": {"metrics": [metric]}}, space)
    await until(measured, "burn", lambda _, status: status.get("currentReplicas") == 1)

    # Nobody's business at zero.
    scale = {"spec": {"replicas": 0}}
    await measured.client.merge_patch(DEPLOYMENTS, "burn", scale, space, subresource="scale")
    await until(
        measured,
        "burn",
        lambda reasons, _: reasons.get("ScalingActive") == ("False", "ScalingDisabled"),
    )


async def test_a_target_that_is_not_there_is_told(workspace: Workspace) -> None:
    await workspace.client.create(AUTOSCALERS, autoscaler("nobody"), workspace.namespace)
    status = await until(
        workspace,
        "nobody",
        lambda reasons, _: reasons.get("AbleToScale") == ("False", "FailedGetScale"),
        seconds=PATIENCE,
    )
    (condition,) = status["conditions"]
    assert condition["message"] == (
        "the HPA controller was unable to get the target's current scale: "
        'deployments.apps "nobody" not found'
    )


async def test_two_autoscalers_of_the_same_pods_both_stand_back(workspace: Workspace) -> None:
    await workspace.client.create(DEPLOYMENTS, workspace.deployment("shared"), workspace.namespace)
    first, second = autoscaler("shared"), autoscaler("shared")
    second["metadata"]["name"] = "second"
    for each in (first, second):
        await workspace.client.create(AUTOSCALERS, each, workspace.namespace)
    for name in ("shared", "second"):
        status = await until(
            workspace,
            name,
            lambda reasons, _: reasons.get("ScalingActive") == ("False", "AmbiguousSelector"),
            seconds=PATIENCE,
        )
        (active,) = [c for c in status["conditions"] if c["type"] == "ScalingActive"]
        start = "pods by selector app=shared are controlled by multiple HPAs: ["
        assert active["message"].startswith(start)


async def test_the_bounds_hold_without_metrics(workspace: Workspace) -> None:
    deployment = workspace.deployment("calm", replicas=4)
    await workspace.client.create(DEPLOYMENTS, deployment, workspace.namespace)
    await workspace.client.create(AUTOSCALERS, autoscaler("calm"), workspace.namespace)

    async def replicas() -> int:
        found = await workspace.client.get(DEPLOYMENTS, "calm", workspace.namespace)
        return int(found["spec"]["replicas"])

    async with asyncio.timeout(PATIENCE):
        while await replicas() != 2:
            await asyncio.sleep(0.1)
    events = await workspace.client.list(EVENTS, workspace.namespace)
    told = [e["message"] for e in events.items if e["reason"] == "SuccessfulRescale"]
    assert "New size: 2; reason: Current number of replicas above Spec.MaxReplicas" in told


async def test_a_container_without_a_request_is_told(measured: Workspace) -> None:
    await measured.client.create(DEPLOYMENTS, measured.deployment("bare", BURN), measured.namespace)
    await measured.client.create(AUTOSCALERS, autoscaler("bare"), measured.namespace)

    def missing(reasons: Json, status: Json) -> bool:
        return any(
            "missing request for cpu in container main of Pod bare-" in c["message"]
            for c in status.get("conditions") or ()
        )

    status = await until(measured, "bare", missing)
    (active,) = [c for c in status["conditions"] if c["type"] == "ScalingActive"]
    assert (active["status"], active["reason"]) == ("False", "FailedGetResourceMetric")
