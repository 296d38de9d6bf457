"""Deployments and ReplicaSets: what a rollout leaves behind, and what is mended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import DEPLOYMENTS, PODS, REPLICA_SETS

from .workloads import Workspace, condition

REVISION = "deployment.kubernetes.io/revision"


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


async def _set_version(workspace: Workspace, name: str, version: str) -> None:
    patch = {"spec": {"template": {"metadata": {"annotations": {"version": version}}}}}
    await workspace.client.merge_patch(DEPLOYMENTS, name, patch, workspace.namespace)


async def test_a_rolling_update_keeps_its_bounds_and_its_history(workspace: Workspace) -> None:
    bounds = {"maxSurge": 1, "maxUnavailable": 0}
    body = workspace.deployment(
        "web", replicas=2, strategy={"rollingUpdate": bounds}, revisionHistoryLimit=1
    )
    await workspace.client.create(DEPLOYMENTS, body, workspace.namespace)
    first = await workspace.until_rolled_out("web")
    assert first["metadata"]["annotations"][REVISION] == "1"
    assert (condition(first, "Available"), condition(first, "Progressing")) == ("True", "True")
    seen: list[Any] = []

    async def follow() -> None:
        version = first["metadata"]["resourceVersion"]
        async for event in workspace.client.watch(
            DEPLOYMENTS, workspace.namespace, resource_version=version
        ):
            if event.type == "MODIFIED":
                status = event.object["status"]
                seen.append((status.get("replicas", 0), status.get("availableReplicas", 0)))

    following = asyncio.create_task(follow())
    await _set_version(workspace, "web", "2")
    await workspace.until_rolled_out("web")
    following.cancel()
    assert seen
    assert all(replicas <= 3 and available >= 2 for replicas, available in seen), seen
    sets = await workspace.replica_sets("web")
    assert {key: rs["spec"]["replicas"] for key, rs in sets.items()} == {"1": 0, "2": 2}
    hashes = {rs["metadata"]["labels"]["pod-template-hash"] for rs in sets.values()}
    assert len(hashes) == 2

    await _set_version(workspace, "web", "3")
    await workspace.until_rolled_out("web")

    async def pruned() -> bool:
        return set(await workspace.replica_sets("web")) == {"2", "3"}

    await workspace.until(pruned)


async def test_going_back_takes_the_old_replica_set_under_a_new_revision(
    workspace: Workspace,
) -> None:
    body = workspace.deployment("web")
    body["spec"]["template"]["metadata"]["annotations"] = {"version": "1"}
    await workspace.client.create(DEPLOYMENTS, body, workspace.namespace)
    await workspace.until_rolled_out("web")
    old = (await workspace.replica_sets("web"))["1"]["metadata"]["uid"]
    for version in ("2", "1"):
        await _set_version(workspace, "web", version)
        await workspace.until_rolled_out("web")
    sets = await workspace.replica_sets("web")
    assert set(sets) == {"2", "3"}
    assert sets["3"]["metadata"]["uid"] == old


async def test_a_rollout_without_progress_says_so(workspace: Workspace) -> None:
    never = {"exec": {"command": ["python", "-c", "raise SystemExit(1)"]}, "periodSeconds": 1}
    body = workspace.deployment("web", main={"readinessProbe": never}, progressDeadlineSeconds=1)
    await workspace.client.create(DEPLOYMENTS, body, workspace.namespace)

    async def stalled() -> Any:
        item = await workspace.client.get(DEPLOYMENTS, "web", workspace.namespace)
        conditions = (item.get("status") or {}).get("conditions") or ()
        return [c for c in conditions if c.get("reason") == "ProgressDeadlineExceeded"]

    (found,) = await workspace.until(stalled)
    assert (found["type"], found["status"]) == ("Progressing", "False")
    assert "has timed out progressing" in found["message"]


async def test_recreate_ends_the_old_pods_before_it_starts_new_ones(workspace: Workspace) -> None:
    body = workspace.deployment("web", strategy={"type": "Recreate"})
    await workspace.client.create(DEPLOYMENTS, body, workspace.namespace)
    await workspace.until_rolled_out("web")
    listed = await workspace.client.list(PODS, workspace.namespace)
    alive = {listed.items[0]["metadata"]["uid"]}
    most = 1

    async def follow() -> None:
        nonlocal most
        async for event in workspace.client.watch(
            PODS, workspace.namespace, resource_version=listed.resource_version
        ):
            if event.type == "ADDED":
                alive.add(event.object["metadata"]["uid"])
            elif event.type == "DELETED":
                alive.discard(event.object["metadata"]["uid"])
            most = max(most, len(alive))

    following = asyncio.create_task(follow())
    before = set(alive)
    await _set_version(workspace, "web", "2")
    await workspace.until_rolled_out("web")
    following.cancel()
    assert most == 1
    assert not before & {p["metadata"]["uid"] for p in await workspace.pods("web")}


async def test_a_replica_set_replaces_a_lost_pod_and_adopts_an_orphan(workspace: Workspace) -> None:
    await workspace.start(workspace.pod("web"))
    spec = workspace.deployment("web", replicas=2)["spec"]
    body = {"metadata": {"name": "web"}, "spec": spec}
    owner = await workspace.client.create(REPLICA_SETS, body, workspace.namespace)

    async def two_owned() -> Any:
        pods = await workspace.pods("web")
        owners = [r["uid"] for p in pods for r in p["metadata"].get("ownerReferences") or ()]
        return pods if owners == [owner["metadata"]["uid"]] * 2 and len(pods) == 2 else None

    pods = await workspace.until(two_owned)
    assert "web" in {p["metadata"]["name"] for p in pods}
    await workspace.client.delete(PODS, "web", workspace.namespace)

    async def replaced() -> Any:
        pods = await two_owned()
        return pods and "web" not in {p["metadata"]["name"] for p in pods}

    await workspace.until(replaced)
    scale = {"spec": {"replicas": 0}}
    await workspace.client.merge_patch(
        REPLICA_SETS, "web", scale, workspace.namespace, subresource="scale"
    )

    async def empty() -> bool:
        return not await workspace.pods("web")

    await workspace.until(empty)
