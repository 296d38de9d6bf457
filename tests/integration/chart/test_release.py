"""A release of the chart with real processes: every container of its pods runs.

The API server asks RBAC, so operator and gateway have the rights that the chart gives them and no
others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.integration.system.conftest import Workspace
from tests.support.chart import CHART, RELEASE, SYSTEM, Values, merged, stored
from tests.support.release import EMBEDDED, ChartedStack
from tests.support.stack import running_stack

from beamlit_operator.controllers.admission.configuration import CONFIGURATIONS
from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    ApiError,
    HttpClient,
    Resource,
    connect,
)

VALUES: Values = merged(EMBEDDED, {"placementGuard": "Record"})
ROLES = "rbac.authorization.k8s.io"
CLUSTER_ROLES = (
    Resource(ROLES, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource(ROLES, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
)


@pytest.fixture
def stack(helm, tmp_path: Path):
    with running_stack(tmp_path, ChartedStack) as stack:
        yield stack


@pytest.fixture
async def workspace(stack: ChartedStack) -> AsyncIterator[Workspace]:
    async with await connect(stack.kubeconfig) as client, aiohttp.ClientSession() as http:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
        await client.create(NAMESPACES, body)
        yield Workspace("team", stack, client, http)


async def gateways(client: HttpClient) -> list[str]:
    """The addresses of the gateways' pods."""
    selector = "app.kubernetes.io/component=gateway"
    found = await client.list(PODS, SYSTEM, label_selector=selector)
    return sorted(each["status"]["podIP"] for each in found.items)


async def until_gone(client: HttpClient) -> None:
    deadline = time.monotonic() + 60
    # The finished pod of `helm test` belongs to no release.
    selector = "app.kubernetes.io/component!=test"
    while left := (await client.list(PODS, SYSTEM, label_selector=selector)).items:
        assert time.monotonic() < deadline, [each["metadata"]["name"] for each in left]
        await asyncio.sleep(0.1)


async def test_the_chart_serves_a_model_is_upgraded_and_leaves_what_it_says(
    helm, stack: ChartedStack, workspace: Workspace
) -> None:
    client = workspace.client
    configuration = helm.Configuration(SYSTEM, str(stack.kubeconfig))
    await helm.Install(configuration).run(
        RELEASE, str(CHART), VALUES, create_namespace=True, timeout=120
    )
    addresses = await gateways(client)
    assert len(addresses) == 2
    assert "helm test" in (await stored(client)).notes

    # A model that sleeps answers through each of the gateways.
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    for address in addresses:
        stack.gateway = f"http://{address}:8080"
        status, _ = await workspace.call()
        assert status == 200, stack.logs()
    # The webhook is asked, by its Service and with the certificate that the operator announced.
    with pytest.raises(ApiError, match=r"policy\.beamlit\.com.*Environment production"):
        await workspace.delete("Environment", "production")

    # An upgrade keeps what is not the chart's, and enforces at the pods what it recorded.
    trusted = await bundle(client)
    tested = {"gatewayUrl": stack.gateway}
    values = merged(VALUES, {"test": tested, "placementGuard": "Enforce"})
    await helm.Upgrade(configuration).run(RELEASE, str(CHART), values, timeout=120)
    assert await bundle(client) == trusted
    assert await gateways(client) == addresses, "nothing of the gateway's changed"
    await helm.ReleaseTest(configuration).run(RELEASE)
    await workspace.model("second")
    await workspace.deployment("second")
    await workspace.until_ready("Idle", "second")
    status, _ = await workspace.call(model="second")
    assert status == 200, stack.logs()

    assert stack.refused() == []
    await helm.Uninstall(configuration).run(RELEASE, timeout=120)
    await until_gone(client)
    await check_what_is_left(client)
    # The next installation takes up what this one left, and serves the models that are still there.
    await helm.Install(configuration).run(RELEASE, str(CHART), VALUES, timeout=120)
    stack.gateway = f"http://{(await gateways(client))[0]}:8080"
    status, _ = await workspace.call()
    assert status == 200, stack.logs()


async def bundle(client: HttpClient) -> str:
    (webhook,) = (await client.get(CONFIGURATIONS, "beamlit-admission"))["webhooks"]
    return str(webhook["clientConfig"]["caBundle"])


async def check_what_is_left(client: HttpClient) -> None:
    """docs/install.md, "Uninstall"."""
    kinds = await client.list(CUSTOM_RESOURCE_DEFINITIONS)
    assert len([each for each in kinds.items if each["spec"]["group"] == "beamlit.com"]) == 4
    assert await names(client, SECRETS, SYSTEM) == {"beamlit-webhook-tls"}
    assert await names(client, LEASES, SYSTEM) == {"beamlit-operator"}
    assert await names(client, CONFIG_MAPS, SYSTEM) == {"beamlit-placements", "kube-root-ca.crt"}
    assert await names(client, DEPLOYMENTS, SYSTEM) == set()
    assert await names(client, SERVICES, SYSTEM) == set()
    for resource in CLUSTER_ROLES:
        found = await names(client, resource, None)
        assert not [name for name in found if name.startswith("beamlit")]
    assert await names(client, CONFIGURATIONS, None) == set()


async def names(client: HttpClient, resource: Resource, namespace: str | None) -> set[str]:
    found = await client.list(resource, namespace)
    return {each["metadata"]["name"] for each in found.items}
