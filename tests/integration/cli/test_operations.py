"""`beamlit doctor` and `beamlit support-bundle` against an API server, as people run them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    NAMESPACES,
    NODES,
    SECRETS,
    Json,
    KubeClient,
    Resource,
)

PLANTED = [f"Pl4nted-{n:02d}-Zx9Qw3Er7Ty1" for n in range(12)]
TEAM, SYSTEM = "team", "beamlit-system"
LIMITED = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: looks-at-models}
rules:
  - {apiGroups: [beamlit.com], resources: ["*"], verbs: [get, list]}
"""


@dataclass
class Cluster:
    """An API server with things in it."""

    server: ApiServer
    folder: Path
    kubeconfig: Path

    @property
    def client(self) -> KubeClient:
        return self.server.client

    async def put(self, resource: Resource, name: str, namespace: str | None, **body: Any) -> None:
        metadata = {"name": name, **body.pop("metadata", {})}
        if namespace is not None:
            metadata["namespace"] = namespace
        whole: Json = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": metadata,
            **body,
        }
        await self.client.apply(resource, whole, field_manager="test")

    async def run(self, *arguments: str, kubeconfig: Path | None = None) -> Any:
        # In a thread: the API server is in this loop.
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "beamlit_operator.cli.main", *arguments],
            env={**os.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig), "COLUMNS": "140"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
        )


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    server = ApiServer(data_dir=tmp_path / "cluster", authorization="RBAC")
    await server.start()
    try:
        found = Cluster(server, tmp_path, server.kubeconfig(tmp_path / "kubeconfig"))
        for kind in KINDS:
            await found.client.apply(CUSTOM_RESOURCE_DEFINITIONS, crd(kind), field_manager="test")
        for name in (TEAM, SYSTEM):
            await found.put(NAMESPACES, name, None)
        yield found
    finally:
        await server.stop()


async def plant(cluster: Cluster, log: Path) -> None:
    """Secrets in every place that people have put them in."""
    p = iter(PLANTED)
    first = next(p)
    encoded = base64.b64encode(first.encode()).decode()
    await cluster.put(SECRETS, "hub", TEAM, data={"token": encoded}, type="Opaque")
    template = {
        "spec": {
            "containers": [
                {
                    "name": "model",
                    "env": [{"name": "A", "value": next(p)}],
                    "args": ["--api-key", next(p), f"--password={next(p)}"],
                }
            ]
        }
    }
    await cluster.put(
        MODELS,
        "iris",
        TEAM,
        metadata={"annotations": {"example.com/note": next(p)}},
        spec={"origin": {"s3": {"uri": "s3://models/b", "endpoint": f"http://u:{next(p)}@store"}}},
    )
    await cluster.put(
        MODEL_DEPLOYMENTS,
        "iris",
        TEAM,
        spec={
            "model": "iris",
            "podTemplate": template,
            "runtime": {"envs": [{"name": "B", "value": next(p)}]},
        },
    )
    labels = {"app.kubernetes.io/component": "operator"}
    pod = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [
                {
                    "name": "operator",
                    "image": "r/b:0.1.0",
                    "env": [{"name": "HTTPS_PROXY", "value": f"http://u:{next(p)}@proxy"}],
                }
            ]
        },
    }
    await cluster.put(
        DEPLOYMENTS,
        "beamlit-operator",
        SYSTEM,
        metadata={"labels": labels},
        spec={"selector": {"matchLabels": labels}, "template": pod},
    )
    await cluster.put(CONFIG_MAPS, "theirs", SYSTEM, data={"conf": next(p)})
    message = f"GET https://s3/a?X-Amz-Signature={next(p)} failed; Authorization: Bearer {next(p)}"
    await cluster.put(
        EVENTS,
        "iris.1",
        TEAM,
        involvedObject={"kind": "Model", "name": "iris", "namespace": TEAM},
        message=message,
        reason="Unreachable",
        type="Warning",
    )
    log.mkdir()
    text = f'known {first}\n{{"message": "x", "token": "{next(p)}"}}\nplain line\n'
    (log / "operator.log").write_text(text)
    assert next(p, None) is None, "every planted secret is used"


async def test_a_bundle_holds_what_helps_and_none_of_the_secrets(cluster: Cluster) -> None:
    await plant(cluster, cluster.folder / "logs")
    ran = await cluster.run("support-bundle", "-o", "out.tar.gz", "--log-dir", "logs")
    assert ran.returncode == 0, ran.stderr
    assert "wrote out.tar.gz" in ran.stdout
    target = cluster.folder / "out.tar.gz"
    assert target.stat().st_mode & 0o077 == 0
    files: dict[str, str] = {}
    with tarfile.open(target) as archive:
        for entry in archive.getmembers():
            opened = archive.extractfile(entry)
            assert opened is not None
            files[entry.name.partition("/")[2]] = opened.read().decode()
    everything = "\n".join(files.values())
    for secret in PLANTED:
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode() not in everything
    # ...and it is of use.
    model = yaml.safe_load(files["objects/models.yaml"])
    assert model["spec"]["origin"]["s3"]["endpoint"] == "http://***@store"
    assert "example.com/note" in model["metadata"]["annotations"]
    secrets = list(yaml.safe_load_all(files["secrets.yaml"]))
    assert {"hub": ["token"]}.items() <= {s["metadata"]["name"]: s["keys"] for s in secrets}.items()
    assert "plain line" in files["logs/operator.log"]
    assert "beamlit-operator" in files["system/deployments.yaml"]
    assert json.loads(files["doctor.json"])["counts"]["problem"] > 0
    assert "Unreachable" in files["events/team.yaml"]
    again = await cluster.run("support-bundle", "-o", "out.tar.gz")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)


async def test_the_doctor_finds_what_is_missing_and_ends_with_status_1(cluster: Cluster) -> None:
    gpu = {"allocatable": {"nvidia.com/gpu": "8"}}
    await cluster.put(NODES, "dark", None)
    await cluster.client.merge_patch(NODES, "dark", {"status": gpu}, subresource="status")
    await cluster.put(MODELS, "iris", TEAM, spec={"origin": {"s3": {"uri": "s3://models/b"}}})
    await cluster.client.delete(CUSTOM_RESOURCE_DEFINITIONS, "policies.beamlit.com")
    ran = await cluster.run("doctor", "-o", "json")
    assert ran.returncode == 1, ran.stderr
    told = [e for e in json.loads(ran.stdout)["checks"] if e["level"] in ("problem", "warning")]
    found = {(each["check"], each["level"]) for each in told}
    assert {
        ("definitions", "problem"),
        ("rights", "problem"),
        ("webhook", "warning"),
        ("nodes", "warning"),
        ("workspaces", "warning"),
    } <= found
    assert all(each["fix"] for each in told)
    assert any("no definition of Policy" in each["message"] for each in told)
    # For people, on a screen of any width.
    screen = await cluster.run("doctor")
    assert "GPUs that no flavor policy sees" in screen.stdout
    assert "→ Install them" in screen.stdout


async def test_the_doctor_works_with_few_rights_and_says_what_it_could_not_do(
    cluster: Cluster,
) -> None:
    role, binding = (
        Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced=False)
        for plural, kind in (
            ("clusterroles", "ClusterRole"),
            ("clusterrolebindings", "ClusterRoleBinding"),
        )
    )
    await cluster.client.apply(role, yaml.safe_load(LIMITED), field_manager="test")
    reference = {"apiGroup": role.group, "kind": "ClusterRole", "name": "looks-at-models"}
    subject = {"kind": "ServiceAccount", "name": "viewer", "namespace": TEAM}
    body = {
        "apiVersion": binding.api_version,
        "kind": binding.kind,
        "metadata": {"name": "viewer"},
        "roleRef": reference,
        "subjects": [subject],
    }
    await cluster.client.apply(binding, body, field_manager="test")
    accounts = Resource("", "v1", "serviceaccounts", "ServiceAccount")
    await cluster.put(accounts, "viewer", TEAM)
    token = await cluster.client.create(
        accounts,
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        TEAM,
        name="viewer",
        subresource="token",
    )
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token["status"]["token"]}
    limited = cluster.folder / "limited"
    limited.write_text(yaml.safe_dump(config))
    ran = await cluster.run("doctor", "-o", "json", kubeconfig=limited)
    assert not ran.stderr
    told = json.loads(ran.stdout)
    unknown = {e["check"]: e["message"] for e in told["checks"] if e["level"] == "unknown"}
    assert {"definitions", "rights", "processes", "leader", "webhook", "nodes"} <= set(unknown)
    assert "you may not" in unknown["nodes"]
    known = {e["check"] for e in told["checks"] if e["level"] != "unknown"}
    assert {"kubernetes", "workspaces", "environments", "origins", "deployments"} <= known
