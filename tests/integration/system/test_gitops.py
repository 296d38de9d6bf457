"""A GitOps tool applies the samples and stays in sync: nothing that Git owns is ever changed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from tests.integration.system.conftest import SETTLED, Workspace, served
from tests.support.stack import ROOT

from beamlit_operator.kube import (
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    SERVICES,
    Json,
    Resource,
    resource_of,
)

MANAGER = "argocd-controller"
SAMPLES = ROOT / "manifests" / "samples"
API = "beamlit.com/v1alpha1"
OWNED = (
    ("Environment", "production"),
    ("Policy", "us-only"),
    ("Policy", "australia"),
    ("Model", "iris"),
    ("ModelDeployment", "iris-production"),
)


@pytest.fixture
def repository(workspace: Workspace, tmp_path: Path) -> Path:
    """The samples, as a repository of this workspace has them: another store, another server."""
    s3 = {"uri": "s3://models/tiny", "endpoint": workspace.stack.store}
    runtime = {
        "image": "beamlit.dev/python:3",
        "command": ["python"],
        "args": ["/mnt/models/server.py"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
    }
    patches = [
        patched("Model", "iris", {"origin": {"s3": s3}}),
        patched("ModelDeployment", "iris-production", {"runtime": runtime}),
    ]
    # Bases are below the repository's root for kustomize, so they are copied.
    for source in SAMPLES.rglob("*.yaml"):
        copy = tmp_path / "samples" / source.relative_to(SAMPLES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": workspace.name,
        "resources": ["../samples"],
        "patches": [{"patch": yaml.safe_dump(each)} for each in patches],
    }
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def patched(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


class Tool:
    """As much of Argo CD as writes: server-side apply and diff, as its own field manager."""

    def __init__(self, workspace: Workspace, repository: Path) -> None:
        self._workspace = workspace
        self._repository = repository

    def _run(self, verb: str) -> subprocess.CompletedProcess[str]:
        flags = ("--server-side", f"--field-manager={MANAGER}", "-k", str(self._repository))
        kubeconfig = f"--kubeconfig={self._workspace.stack.kubeconfig}"
        command = ["kubectl", kubeconfig, verb, *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def sync(self) -> None:
        done = self._run("apply")
        assert done.returncode == 0, done.stderr

    def drift(self) -> str:
        """What differs from Git; empty in sync."""
        done = self._run("diff")
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


async def versions(workspace: Workspace) -> dict[str, str]:
    """The resourceVersion of all that Git owns and of what is made of it."""
    found: dict[str, str] = {}
    for kind, name in OWNED:
        body = await workspace.client.get(resource_of(API, kind), name, workspace.name)
        found[f"{kind}/{name}"] = body["metadata"]["resourceVersion"]
    for resource in (DEPLOYMENTS, SERVICES):
        found |= await listed(workspace, resource)
    return found


async def settled(workspace: Workspace) -> dict[str, str]:
    """The versions once all that followed from the scale-down is written: the Model's row last."""

    def row(model: Json) -> Json:
        (found,) = model["status"]["deployments"]
        return found

    deadline = time.monotonic() + SETTLED
    while True:
        model = await workspace.client.get(resource_of(API, "Model"), "iris", workspace.name)
        replicas = [
            each["status"].get("replicas", 0)
            for each in (await workspace.client.list(DEPLOYMENTS, workspace.name)).items
        ]
        if row(model)["phase"] == "Idle" and replicas == [0] and not await workspace.pods():
            return await versions(workspace)
        assert time.monotonic() < deadline, (row(model), replicas)
        await asyncio.sleep(0.1)


async def listed(workspace: Workspace, resource: Resource) -> dict[str, str]:
    items = (await workspace.client.list(resource, workspace.name)).items
    return {
        f"{resource.kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for each in items
    }


async def test_what_git_owns_never_drifts(workspace: Workspace, repository: Path) -> None:
    tool = Tool(workspace, repository)
    tool.sync()
    name = "iris-production"
    # The sample's own policies: the environment's counts, which is told on the status only.
    await workspace.until(lambda md: reasons(md).get("PolicyOverridden"), name)
    await workspace.until_ready("Idle", name)
    assert tool.drift() == ""
    # A start from zero and a scale-down later: status, replicas and conditions have moved.
    await served(workspace, model="iris")
    await workspace.until_ready("Idle", name)
    assert tool.drift() == ""

    for kind, each in OWNED:
        body = await workspace.client.get(resource_of(API, kind), each, workspace.name)
        others = {
            field["manager"]: field.get("subresource")
            for field in body["metadata"]["managedFields"]
            if field["manager"] != MANAGER
        }
        assert set(others.values()) == {"status"}, f"{kind} {each}: {others}"

    # No ping-pong: to apply the same again changes nothing, and nobody answers it with a write.
    before = await settled(workspace)
    for _ in range(3):
        tool.sync()
    assert await versions(workspace) == before
    # Nor does the operator write when it looks again, because somebody touched what is Git's.
    looked, touched = await reconciles(workspace), {"metadata": {"annotations": {"by": "hand"}}}
    await workspace.client.merge_patch(MODEL_DEPLOYMENTS, name, touched, workspace.name)
    await until(lambda: reconciles(workspace), lambda now: now > looked)
    after = await versions(workspace)
    assert {each for each in after if after[each] != before[each]} == {f"ModelDeployment/{name}"}
    assert tool.drift() == ""


async def until(look: Callable[[], Awaitable[float]], good: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + SETTLED
    while not good(found := await look()):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


def reasons(md: Json) -> dict[str, str]:
    return {each["type"]: each["reason"] for each in md.get("status", {}).get("conditions", ())}


async def reconciles(workspace: Workspace) -> float:
    """How often the operator has looked at ModelDeployments and was done with it."""
    async with workspace.http.get(f"{workspace.stack.operator}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    name = 'beamlit_reconciles_total{kind="ModelDeployment",result="ok"}'
    (value,) = [line.split()[-1] for line in lines if line.startswith(name)]
    return float(value)
