"""What must hold of an installation, as a user sees it. The same lines run on the embedded cluster
(tests/integration/availability) and on a real one (tests/e2e).

Each takes a :class:`~tests.support.site.Site`; those that change something do it under steady
traffic, of which nothing may be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.chart import SYSTEM
from tests.support.site import ACCOUNTS, BINDINGS, RBAC, ROLES, SETTLED, Site, ready

from beamlit_operator.controllers.admission.configuration import CONFIGURATIONS
from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ApiError,
    Json,
    Resource,
)

US = {"type": "location", "locations": [{"type": "country", "name": "us"}]}
OURS = "app.kubernetes.io/name=beamlit-operator"
OF_THE_RELEASE: dict[Resource, str | None] = {
    DEPLOYMENTS: SYSTEM,
    SERVICES: SYSTEM,
    ACCOUNTS: SYSTEM,
    CONFIGURATIONS: None,
    ROLES: None,
    BINDINGS: None,
    Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False): None,
    Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False): None,
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"): SYSTEM,
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"): SYSTEM,
}
"""Where something of a release could stay behind."""

AU = {"type": "location", "locations": [{"type": "country", "name": "au"}]}


async def quickstart(site: Site) -> str:
    """A model in a new workspace sleeps, is called, and answers. Returns the workspace."""
    workspace = await site.workspace()
    await site.deploy(workspace)
    deployment = await site.until(workspace, lambda md: md.get("status", {}).get("url"))
    assert f"/{workspace}/models/tiny" in deployment["status"]["url"]
    await site.until_serving(workspace, version="1")
    await site.until(workspace, lambda md: ready(md)["status"] == "True")
    return workspace


async def rollout(site: Site, workspace: str) -> None:
    """A new version takes over from the one before it."""
    async with site.load(workspace) as calls:
        await site.deploy(workspace, version="2")
        await site.until_serving(workspace, version="2", callers=calls)
    assert calls.lost == []
    assert calls.versions <= {"1", "2"}


async def policy(site: Site) -> None:
    """A mandatory policy of the environment is stronger than what the deployment asks for."""
    workspace = await site.workspace()
    await site.apply(workspace, "Policy", "us", US)
    await site.apply(workspace, "Policy", "au", AU)
    mandatory = {"policies": [{"name": "us", "mandatory": True}]}
    await site.apply(workspace, "Environment", "production", mandatory)
    await site.deploy(workspace, policies=[{"name": "au"}])
    await site.until_serving(workspace, version="1")
    deployment = await site.get(workspace)
    assert deployment["status"]["effectivePolicy"], deployment["status"]
    nodes = {node["metadata"]["name"]: node for node in (await site.client.list(NODES)).items}
    pods = await site.pods(workspace)
    regions = {
        nodes[pod["spec"]["nodeName"]]["metadata"]["labels"]["topology.kubernetes.io/region"]
        for pod in pods
    }
    assert regions
    assert all(region.startswith("us-") for region in regions), regions
    # A refusal has a sentence, from the webhook or from the schema.
    with pytest.raises(ApiError, match="locations"):
        await site.apply(workspace, "Policy", "bad", {**US, "locations": []})


async def restarted(site: Site, *deployments: str) -> None:
    """Restarts Deployments of the release, one after the other, as `kubectl rollout restart`."""
    for name in deployments:
        stamp = datetime.now(UTC).isoformat()
        annotations = {"kubectl.kubernetes.io/restartedAt": stamp}
        template = {"template": {"metadata": {"annotations": annotations}}}
        await site.client.merge_patch(DEPLOYMENTS, name, {"spec": template}, SYSTEM)
        await rolled_out(site, name)


async def rolled_out(site: Site, name: str) -> None:
    """Waits for what `kubectl rollout status` waits for."""
    deadline = time.monotonic() + SETTLED
    while True:
        deployment = await site.client.get(DEPLOYMENTS, name, SYSTEM)
        if is_rolled_out(deployment):
            return
        assert time.monotonic() < deadline, f"{deployment['status']}\n{site.logs()}"
        await asyncio.sleep(0.1)


def is_rolled_out(deployment: Json) -> bool:
    """Whether all replicas are of the newest template and ready, and none is left of another."""
    status: dict[str, Any] = deployment.get("status") or {}
    wanted = deployment["spec"]["replicas"]
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return seen and counts == [wanted] * 3


async def restarts(site: Site, workspace: str) -> None:
    """The gateways and the operators are restarted while callers call."""
    async with site.load(workspace) as calls:
        await restarted(site, "beamlit-gateway", "beamlit-operator")
    assert calls.lost == []
    assert calls.answered > 20


async def drained(site: Site, workspace: str, component: str = "gateway") -> None:
    """Every node is drained in turn: all pods of a component are evicted, as budgets allow."""
    name = f"beamlit-{component}"
    async with site.load(workspace) as calls:
        for pod in await site.pods(SYSTEM, component=component):
            await evicted(site, pod["metadata"]["name"])
            # So `kubectl drain` waits for a pod to be gone, and then for the budget.
            await rolled_out(site, name)
    assert calls.lost == []


async def evicted(site: Site, pod: str) -> int:
    """Asks for an eviction until it is allowed. Returns how often it was refused."""
    deadline, refusals = time.monotonic() + SETTLED, 0
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": SYSTEM},
    }
    while not await is_evicted(site, body):
        refusals += 1
        assert time.monotonic() < deadline, f"{pod} is never let go\n{site.logs()}"
        await asyncio.sleep(0.2)
    return refusals


async def is_evicted(site: Site, body: Json) -> bool:
    """Whether an eviction was allowed; no if a disruption budget forbids it now."""
    pod = body["metadata"]["name"]
    try:
        await site.client.create(PODS, body, SYSTEM, name=pod, subresource="eviction")
    except ApiError as error:
        if error.status != 429:
            raise
        return False
    return True


async def upgraded(site: Site, workspace: str, upgrade: Callable[[], Awaitable[None]]) -> None:
    """Something exchanges operators and gateways while callers call: an upgrade or a rollback.

    What runs goes on running: no pod of a model is made anew.
    """
    before = {pod["metadata"]["uid"] for pod in await site.pods(workspace)}
    assert before, "a model runs"
    async with site.load(workspace) as calls:
        await upgrade()
        for name in ("beamlit-gateway", "beamlit-operator"):
            await rolled_out(site, name)
    assert calls.lost == []
    assert calls.answered > 20
    assert {pod["metadata"]["uid"] for pod in await site.pods(workspace)} == before
    definitions = await beamlit_definitions(site)
    assert len(definitions) == 4


async def goes_on(site: Site, workspace: str, *, version: str) -> None:
    """Operators and gateways do their work: an edit is carried out and a sleeping model wakes."""
    await site.deploy(workspace, version=version)
    await site.deploy(workspace, "sleeper", version=version)
    await site.until_serving(workspace, version=version)
    await site.until_serving(workspace, "sleeper", version=version)


async def beamlit_definitions(site: Site) -> list[Json]:
    listing = await site.client.list(CUSTOM_RESOURCE_DEFINITIONS)
    return [each for each in listing.items if each["spec"]["group"] == "beamlit.com"]


async def uninstalled(site: Site, workspace: str) -> None:
    """The release goes and leaves nothing but what it says; then workspaces and kinds go too."""
    await site.release.uninstall()
    await until(site, lambda: site.pods(SYSTEM), what="pods of the release are left")
    for resource, namespace in OF_THE_RELEASE.items():
        left = (await site.client.list(resource, namespace, label_selector=OURS)).items
        assert [each["metadata"]["name"] for each in left] == []
    assert len(await beamlit_definitions(site)) == 4, "models are not to go with an uninstall"
    assert (await site.get(workspace))["spec"]["model"] == "tiny"
    # Nothing has a finalizer that nobody is there to take away.
    await site.client.delete(NAMESPACES, workspace)
    await until(site, lambda: namespaces(site, workspace), what=f"{workspace} does not go")
    for definition in await beamlit_definitions(site):
        await site.client.delete(CUSTOM_RESOURCE_DEFINITIONS, definition["metadata"]["name"])
    await until(site, lambda: beamlit_definitions(site), what="definitions do not go")


async def namespaces(site: Site, name: str) -> list[Json]:
    listing = await site.client.list(NAMESPACES)
    return [each for each in listing.items if each["metadata"]["name"] == name]


async def until(site: Site, left: Callable[[], Awaitable[list[Json]]], *, what: str) -> None:
    """Waits until nothing is left."""
    deadline = time.monotonic() + SETTLED
    while found := await left():
        names = [each["metadata"] for each in found]
        assert time.monotonic() < deadline, f"{what}: {names}"
        await asyncio.sleep(0.1)
