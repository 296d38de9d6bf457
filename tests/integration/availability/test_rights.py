"""Every component has the rights that it uses, and no others: as the chart grants them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
from tests.integration.availability.conftest import RELEASED
from tests.support import scenarios
from tests.support.chart import SYSTEM, Rendered, stored
from tests.support.release import ChartedStack
from tests.support.site import Site

from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    ApiError,
    Json,
)

pytestmark = pytest.mark.long

AUSTRALIA = (scenarios.AU, "au-southeast")

Right = tuple[str, str, str]
"""Group, resource (or a path that is none) and verb."""

NOT_SEEN: dict[Right, str] = {
    ("beamlit.com", "modeldeployments/finalizers", "update"): "checked inside the API server, by an"
    " admission plugin for owners",
    ("apps", "deployments", "create"): "a server-side apply that creates is checked for it inside",
    ("", "services", "create"): "the same",
    ("autoscaling", "horizontalpodautoscalers", "create"): "the same",
    ("beamlit.com", "models", "get"): "refusals rest on them; the one here on a ModelDeployment",
    ("beamlit.com", "environments", "get"): "the same",
    ("beamlit.com", "policies", "get"): "the same",
    ("beamlit.com", "modeldeployments/invoke", "create"): "what a gateway asks about its callers:"
    " the pod of `helm test` is one",
    ("", "secrets", "update"): "the webhook's certificate is written anew before it expires",
}


def granted(release: Rendered) -> dict[str, set[Right]]:
    """What the accounts of a release may do, by their names."""
    roles = {
        (item["kind"], item["metadata"]["name"]): item["rules"]
        for kind in ("Role", "ClusterRole")
        for item in release.all(kind)
        if "rules" in item
    }
    found: dict[str, set[Right]] = defaultdict(set)
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in release.all(kind):
            role = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
            for subject in binding["subjects"]:
                # Groups of people are no component of ours.
                if subject["kind"] == "ServiceAccount":
                    found[subject["name"]].update(rights(roles[role]))
    return found


def rights(rules: list[Json]) -> Iterator[Right]:
    for rule in rules:
        for verb in rule["verbs"]:
            for path in rule.get("nonResourceURLs", ()):
                yield "", path, verb
            for group in rule.get("apiGroups", ()):
                for resource in rule.get("resources", ()):
                    yield group, resource, verb


def accounts(release: Rendered) -> dict[str, bool]:
    """The accounts of a release's pods, those of its hooks too, and whether they get a token."""
    templates = [each["spec"]["template"]["spec"] for each in release.all("Deployment")]
    pods = [each["spec"] for each in release.all("Pod")]
    return {
        pod.get("serviceAccountName", "default"): pod.get("automountServiceAccountToken", True)
        for pod in (*templates, *pods)
    }


async def everything(site: Site) -> None:
    """Serve, tidy a cache, update, scale by cpu, move by a policy, refuse, stop, and clean up."""
    workspace = await scenarios.quickstart(site)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    await site.apply(workspace, "PersistentVolumeClaim", "cache", claim)
    await site.apply(workspace, "Secret", "integration", stringData={"token": "t"}, type="Opaque")
    # Of a claim that is Pending, the class is asked for too.
    resources = {"requests": {"storage": "1Mi"}}
    pending = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none-such"}
    claim = {"metadata": {"name": "weights"}, "spec": {**pending, "resources": resources}}
    await site.client.create(PERSISTENT_VOLUME_CLAIMS, claim, workspace)
    await site.apply(workspace, "Model", "claimed", {"origin": {"pvc": {"claimName": "weights"}}})
    scaling = {"metric": "cpu", "minNumReplicas": 1}
    await site.deploy(workspace, version="2", serverlessConfig=scaling)
    await site.until_serving(workspace, version="2")
    # Away from where it is.
    nodes = {pod["spec"].get("nodeName") for pod in await site.pods(workspace)}
    where, node = (scenarios.US, "us-east") if "us-east" not in nodes else AUSTRALIA
    await site.apply(workspace, "Policy", "where", where)
    await site.apply(workspace, "Environment", "production", {"policies": [{"name": "where"}]})
    await until_on(site, workspace, node)
    await until_written_down(site, workspace)
    second = {"model": "tiny", "environment": "production"}
    with pytest.raises(ApiError, match="tiny"):
        await site.apply(workspace, "ModelDeployment", "second", second)
    await site.deploy(workspace, version="2", enabled=False)
    await site.until(workspace, lambda md: md["status"]["replicas"] == 0)
    # What it leaves is the operator's to delete, not the garbage collector's.
    await site.client.delete(MODEL_DEPLOYMENTS, "tiny", workspace, propagation="Orphan")

    async def workloads() -> list[Json]:
        return (await site.client.list(DEPLOYMENTS, workspace)).items

    await scenarios.until(site, workloads, what="workloads are left")


async def until_written_down(site: Site, workspace: str) -> None:
    """Waits until the placements of a workspace are where the API server compares with them."""
    deadline = time.monotonic() + 90
    while True:
        written = await site.client.get(CONFIG_MAPS, "beamlit-placements", SYSTEM)
        if any(workspace in name for name in written.get("data") or ()):
            return
        assert time.monotonic() < deadline, f"{written}\n{site.logs()}"
        await asyncio.sleep(0.1)


async def until_on(site: Site, workspace: str, node: str) -> None:
    """Waits until all pods of a workspace are on a node."""
    deadline = time.monotonic() + 90
    while True:
        nodes = {pod["spec"].get("nodeName") for pod in await site.pods(workspace)}
        if nodes == {node}:
            return
        assert time.monotonic() < deadline, f"{nodes}\n{site.logs()}"
        await asyncio.sleep(0.1)


def used(stack: ChartedStack) -> dict[str, set[Right]]:
    """What the accounts of the release have asked for, all of which they may."""
    found: dict[str, set[Right]] = defaultdict(set)
    for use in stack.uses():
        account = use["user"].removeprefix(f"system:serviceaccount:{SYSTEM}:")
        assert use["allowed"], f"grant it in manifests/rbac, or do not ask: {use}"
        found[account].add((use["group"], use["resource"], use["verb"]))
    return found


def unused(allowed: dict[str, set[Right]], uses: dict[str, set[Right]]) -> dict[str, list[Right]]:
    left = {name: sorted(may - uses[name] - set(NOT_SEEN)) for name, may in allowed.items()}
    return {name: rights for name, rights in left.items() if rights}


async def test_each_component_uses_the_rights_that_the_chart_grants_it_and_no_others(
    site: Site, stack: ChartedStack
) -> None:
    await everything(site)
    # There is no address of the Service here that the test's pod could call.
    await site.release.upgrade({**RELEASED, "test": {"gatewayUrl": site.door()}})
    await site.release.test()
    release = await stored(site.client)
    allowed = granted(release)
    # Who gets a token needs one, and nobody else asks anything.
    assert {name for name, token in accounts(release).items() if token} == set(allowed)
    assert set(used(stack)) == set(allowed)
    for account, may in allowed.items():
        assert not any("*" in part for right in may for part in right), f"{account} has a wildcard"
    deadline = time.monotonic() + 90
    # What is written a moment later.
    while left := unused(allowed, used(stack)):
        assert time.monotonic() < deadline, f"take them out of manifests/rbac: {left}"
        await asyncio.sleep(0.2)
    for right in NOT_SEEN:
        assert any(right in may for may in allowed.values()), f"{right} is granted to nobody"
