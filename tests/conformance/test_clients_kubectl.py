"""kubectl drives a workload from apply to delete: a current one, and one much older."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .workloads import SLEEP, Workspace

APART = 2
"""Minors that kubectl may be older than a server: more are tried, fewer prove less."""


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@pytest.fixture(scope="session")
def kubectls(request: pytest.FixtureRequest) -> dict[int, str]:
    """Every kubectl that is here, by minor version.

    The test dependencies bring one; others are on the PATH, beside that one (some distributions
    install several), or given with ``--kubectl``.
    """
    found = [*request.config.getoption("--kubectl"), str(Path(sys.executable).with_name("kubectl"))]
    on_path = shutil.which("kubectl")
    if on_path:
        found.append(on_path)
        found.extend(map(str, Path(on_path).resolve().parent.glob("kubectl.1.*")))
    versions: dict[int, str] = {}
    for program in found:
        if Path(program).exists():
            command = [program, "version", "--client", "-o", "json"]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode == 0:
                minor = json.loads(ran.stdout)["clientVersion"]["minor"]
                versions.setdefault(int(re.sub(r"\D.*", "", minor)), program)
    return versions


@pytest.fixture(params=["current", "older"])
def program(request: pytest.FixtureRequest, kubectls: dict[int, str]) -> str:
    if not kubectls:
        pytest.skip("no kubectl is here; give one with --kubectl")
    newest = max(kubectls)
    if request.param == "current":
        return kubectls[newest]
    older = [minor for minor in kubectls if minor <= newest - APART]
    if not older:
        pytest.skip(
            f"no kubectl {APART} minors older than 1.{newest} is here, and no package brings one; "
            "give one with --kubectl"
        )
    return kubectls[max(older)]


async def test_kubectl_takes_a_deployment_from_apply_to_delete(
    workspace: Workspace, kubectl_of: Any, program: str
) -> None:
    kubectl = kubectl_of(program)
    probe = {"exec": {"command": ["python", "-c", ""]}, "timeoutSeconds": 5}
    body = workspace.deployment("web", "print('up')\n" + SLEEP, main={"readinessProbe": probe})
    manifest = json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", **body})
    await kubectl("apply", "-f", "-", stdin=manifest)
    done = "successfully rolled out"
    assert done in (await kubectl("rollout", "status", "deployment/web", "--timeout=60s")).stdout
    await kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=60s")
    assert (await kubectl("logs", "deployment/web")).stdout == "up\n"

    await kubectl("set", "env", "deployment/web", "COLOR=red")
    assert done in (await kubectl("rollout", "status", "deployment/web", "--timeout=60s")).stdout
    history = (await kubectl("rollout", "history", "deployment/web")).stdout
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    await kubectl("rollout", "undo", "deployment/web")
    assert done in (await kubectl("rollout", "status", "deployment/web", "--timeout=60s")).stdout
    assert "COLOR" not in (await kubectl("get", "deployment", "web", "-o", "yaml")).stdout
    await kubectl("rollout", "restart", "deployment/web")
    assert done in (await kubectl("rollout", "status", "deployment/web", "--timeout=60s")).stdout

    await kubectl("scale", "deployment/web", "--replicas=2")
    two = "--for=jsonpath={.status.readyReplicas}=2"
    await kubectl("wait", "deployment/web", two, "--timeout=60s")
    lines = (await kubectl("get", "deployments")).stdout.splitlines()
    assert lines[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert lines[1].split()[:4] == ["web", "2/2", "2", "2"]
    lines = (await kubectl("get", "pods", "-l", "app=web", "-o", "wide")).stdout.splitlines()
    assert lines[0].split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    described = (await kubectl("describe", "deployment", "web")).stdout
    assert "ScalingReplicaSet" in described
    described = (await kubectl("describe", "pods", "-l", "app=web")).stdout
    assert "Started" in described
    await kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert (await kubectl("get", "pods", "-l", "app=web", "-o", "name")).stdout == ""
