"""Operator and gateway have the rights that they use, and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import yaml
from tests.integration.governance.conftest import RBAC, SYSTEM

from beamlit_operator.kube import DEPLOYMENTS, MODEL_DEPLOYMENTS, ApiError

pytestmark = pytest.mark.xdist_group("governance")

AU = {"type": "location", "locations": [{"type": "country", "name": "au"}]}

Right = tuple[str, str, str]
"""Group, resource and verb."""

NOT_SEEN: frozenset[Right] = frozenset(
    {
        # Checked inside the API server by an admission plugin, never asked for as such.
        ("beamlit.com", "modeldeployments/finalizers", "update"),
        # A server-side apply that creates is checked for this inside the PATCH.
        ("apps", "deployments", "create"),
        ("", "services", "create"),
        ("autoscaling", "horizontalpodautoscalers", "create"),
        # The refusal below rests on a ModelDeployment; others rest on these.
        ("beamlit.com", "models", "get"),
        ("beamlit.com", "environments", "get"),
        ("beamlit.com", "policies", "get"),
        # The webhook's certificate is written anew before it expires.
        ("", "secrets", "update"),
    }
)


def granted(file: str) -> Iterator[Right]:
    for item in yaml.safe_load_all((RBAC / file).read_text()):
        for rule in item.get("rules") or ():
            for group in rule.get("apiGroups", ()):
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield group, resource, verb


async def quickstart(workspace) -> None:
    """Serve, update, move by a policy, refuse, scale to zero, clean up."""
    await workspace.quickstart()
    await workspace.apply("Secret", "integration", stringData={"token": "t"}, type="Opaque")
    deadline = time.monotonic() + 80
    while (await workspace.call())[0] != 200:
        assert time.monotonic() < deadline, workspace.stack.logs()
        await asyncio.sleep(0.1)
    await workspace.deployment(
        envs={"VERSION": "2"}, serverlessConfig={"metric": "cpu", "minNumReplicas": 1}
    )
    while (await workspace.call())[1].get("version") != "2":
        assert time.monotonic() < deadline, workspace.stack.logs()
        await asyncio.sleep(0.1)
    await workspace.apply("Policy", "where", AU)
    await workspace.apply("Environment", "production", {"policies": [{"name": "where"}]})
    while (await workspace.call())[1].get("node") != "au-southeast":
        assert time.monotonic() < deadline, workspace.stack.logs()
        await asyncio.sleep(0.1)
    second = {"model": "tiny", "environment": "production"}
    with pytest.raises(ApiError, match="tiny"):
        await workspace.apply("ModelDeployment", "second", second)
    await workspace.deployment(enabled=False)
    await workspace.until(lambda md: md["status"]["replicas"] == 0)
    # What it leaves is the operator's to delete, not the garbage collector's.
    await workspace.client.delete(MODEL_DEPLOYMENTS, "tiny", workspace.name, propagation="Orphan")
    while (await workspace.client.list(DEPLOYMENTS, workspace.name)).items:
        assert time.monotonic() < deadline, workspace.stack.logs()
        await asyncio.sleep(0.1)


async def test_operator_and_gateway_use_the_rights_they_have_and_no_others(workspace, stack):
    await quickstart(workspace)
    for account in ("operator", "gateway"):
        user = f"system:serviceaccount:{SYSTEM}:beamlit-{account}"
        uses = stack.uses(user)
        refused = [use for use in uses if not use["allowed"]]
        assert not refused, f"grant them in manifests/rbac/{account}.yaml, or do not ask: {refused}"
        used = {(use["group"], use["resource"], use["verb"]) for use in uses}
        unused = set(granted(f"{account}.yaml")) - used - NOT_SEEN
        assert not unused, f"take them out of manifests/rbac/{account}.yaml: {sorted(unused)}"
