"""Where pods go, and what is said when they can go nowhere.

The tests label and taint a node of the cluster and take both back.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import NODES, PODS, Json

from .workloads import Workspace, ready_nodes

DEVICE = "conformance.beamlit.com/device"


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@dataclass
class Marked:
    """A node with a label nobody else has, and a resource there are two of."""

    name: str
    label: str
    device: str

    @property
    def selector(self) -> Json:
        return {self.label: "yes"}


@pytest.fixture
async def marked(workspace: Workspace) -> AsyncIterator[Marked]:
    client, name = workspace.client, await workspace.node()
    mark = secrets.token_hex(4)
    node = Marked(name, f"conformance.beamlit.com/{mark}", f"{DEVICE}-{mark}")
    await client.merge_patch(NODES, name, {"metadata": {"labels": {node.label: "yes"}}})
    status: Json = {"capacity": {node.device: "2"}, "allocatable": {node.device: "2"}}
    await client.merge_patch(NODES, name, {"status": status}, subresource="status")
    yield node
    await client.merge_patch(
        NODES, name, {"metadata": {"labels": {node.label: None}}, "spec": {"taints": None}}
    )
    status = {"capacity": {node.device: None}, "allocatable": {node.device: None}}
    await client.merge_patch(NODES, name, {"status": status}, subresource="status")


async def _refusal(workspace: Workspace, name: str) -> str:
    """Why the scheduler leaves the pod pending: everything before what preemption says."""

    async def refused() -> Any:
        conditions = (await workspace.get(name))["status"].get("conditions") or ()
        return [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]

    (found,) = await workspace.until(refused)
    assert found["reason"] == "Unschedulable"
    return str(found["message"]).split(" preemption:")[0]


async def test_a_selector_and_a_required_affinity_choose_the_node(
    workspace: Workspace, marked: Marked
) -> None:
    term = {"matchExpressions": [{"key": marked.label, "operator": "In", "values": ["yes", "no"]}]}
    required = {"nodeSelectorTerms": [term]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    await workspace.start(workspace.pod("selected", nodeSelector=marked.selector))
    await workspace.start(workspace.pod("attracted", affinity=affinity))
    for name in ("selected", "attracted"):
        pod = await workspace.until_phase(name, "Running")
        assert pod["spec"]["nodeName"] == marked.name


async def test_a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_fits(
    workspace: Workspace, marked: Marked
) -> None:
    key = f"{marked.label}-more"
    await workspace.start(workspace.pod("one", nodeSelector={key: "yes"}))
    total = len((await workspace.client.list(NODES)).items)
    assert (await _refusal(workspace, "one")).startswith(f"0/{total} nodes are available: ")
    assert "node(s) didn't match Pod's node affinity/selector" in await _refusal(workspace, "one")
    label = {"metadata": {"labels": {key: "yes"}}}
    await workspace.client.merge_patch(NODES, marked.name, label)
    try:
        pod = await workspace.until_phase("one", "Running")
        assert pod["spec"]["nodeName"] == marked.name
    finally:
        label["metadata"]["labels"] = {key: None}
        await workspace.client.merge_patch(NODES, marked.name, label)


async def test_a_taint_keeps_pods_away_that_do_not_tolerate_it(
    workspace: Workspace, marked: Marked
) -> None:
    taint = {"key": marked.label, "value": "owned", "effect": "NoSchedule"}
    await workspace.client.merge_patch(NODES, marked.name, {"spec": {"taints": [taint]}})
    await workspace.start(workspace.pod("stranger", nodeSelector=marked.selector))
    toleration = {"key": marked.label, "operator": "Equal", "value": "owned"}
    pod = workspace.pod("guest", nodeSelector=marked.selector, tolerations=[toleration])
    await workspace.start(pod)
    await workspace.until_phase("guest", "Running")
    refusal = await _refusal(workspace, "stranger")
    # Servers before 1.36 name the taint.
    assert "1 node(s) had untolerated taint" in refusal
    await workspace.client.merge_patch(NODES, marked.name, {"spec": {"taints": None}})
    await workspace.until_phase("stranger", "Running")


async def test_devices_are_counted_and_given_on(workspace: Workspace, marked: Marked) -> None:
    def asks(name: str, count: str) -> Json:
        resources = {"limits": {marked.device: count}}
        return workspace.pod(name, main={"resources": resources})

    await workspace.start(asks("one", "1"))
    await workspace.until_phase("one", "Running")
    await workspace.start(asks("two", "2"))
    assert f"Insufficient {marked.device}" in await _refusal(workspace, "two")
    await workspace.client.delete(PODS, "one", workspace.namespace)
    pod = await workspace.until_phase("two", "Running")
    assert pod["spec"]["nodeName"] == marked.name


async def test_a_pod_larger_than_every_node_is_refused_by_resource(workspace: Workspace) -> None:
    resources = {"requests": {"cpu": "100k", "memory": "1Ei"}}
    await workspace.start(workspace.pod("one", main={"resources": resources}))
    refusal = await _refusal(workspace, "one")
    assert "Insufficient cpu" in refusal
    assert "Insufficient memory" in refusal


async def test_a_gated_pod_waits_for_its_gate(workspace: Workspace) -> None:
    gate = {"name": "conformance.beamlit.com/wait"}
    await workspace.start(workspace.pod("one", schedulingGates=[gate]))

    async def gated() -> Any:
        conditions = (await workspace.get("one"))["status"].get("conditions") or ()
        return [c for c in conditions if c.get("reason") == "SchedulingGated"]

    await workspace.until(gated)
    patch = {"spec": {"schedulingGates": None}}
    await workspace.client.merge_patch(PODS, "one", patch, workspace.namespace)
    await workspace.until_phase("one", "Running")
    assert await ready_nodes(workspace.client)
