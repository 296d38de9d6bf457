"""Probes: when a pod counts as ready, and when a container is started again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import PODS

from .workloads import PATIENCE, SERVE, SLEEP, Workspace, condition, main_status

SERVE_GRPC = """
import concurrent.futures, grpc, os
def check(request, context):
    return b"\\x08\\x01"  # status: SERVING
handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(concurrent.futures.ThreadPoolExecutor())
handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port(os.environ["ADDRESS"] + ":8080")
server.start()
server.wait_for_termination()
"""


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@pytest.mark.parametrize(
    ("code", "probe"),
    [
        (SERVE, {"httpGet": {"path": "/", "port": "http"}}),
        (SERVE, {"tcpSocket": {"port": 8080}}),
        (SLEEP, {"exec": {"command": ["python", "-c", ""]}}),
        (SERVE_GRPC, {"grpc": {"port": 8080}}),
    ],
    ids=["http", "tcp", "exec", "grpc"],
)
async def test_a_pod_is_ready_once_its_probe_succeeds(
    workspace: Workspace, embedded: bool, code: str, probe: dict[str, Any]
) -> None:
    if "grpc" in probe and not embedded:
        pytest.skip("the plain Python image has no gRPC to serve")
    main = {
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    await workspace.start(workspace.pod("one", code, main=main))
    pod = await workspace.until_ready("one")
    assert condition(pod, "ContainersReady") == "True"
    assert main_status(pod)["ready"] is True


async def test_a_pod_is_ready_while_its_probe_succeeds_and_only_then(
    workspace: Workspace,
) -> None:
    """The container makes the file its probe looks for, and removes it when it has been seen."""
    code = """
import pathlib, time
mark, found = pathlib.Path('/mnt/work/mark'), pathlib.Path('/mnt/work/found')
time.sleep(0.5)
mark.touch()
while not found.exists():
    time.sleep(0.05)
time.sleep(2)
mark.unlink()
time.sleep(600)
"""
    look = """
import pathlib
folder = pathlib.Path('/mnt/work')
if not (folder / 'mark').exists():
    raise SystemExit(1)
(folder / 'found').touch()
"""
    probe = {
        "exec": {"command": ["python", "-c", look]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "timeoutSeconds": 30,
    }
    main = {
        "readinessProbe": probe,
        "volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}],
    }
    volumes = [{"name": "work", "emptyDir": {}}]
    before = await workspace.client.list(PODS, workspace.namespace)
    await workspace.start(workspace.pod("one", code, main=main, volumes=volumes))
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        async for event in workspace.client.watch(
            PODS, workspace.namespace, resource_version=before.resource_version
        ):
            if event.type == "MODIFIED":
                state = (event.object["status"]["phase"], condition(event.object, "Ready"))
                if state[0] == "Running" and state not in seen[-1:]:
                    seen.append(state)
                if len(seen) == 3:
                    return

    async with asyncio.timeout(PATIENCE):
        await follow()
    assert seen == [("Running", "False"), ("Running", "True"), ("Running", "False")]
    assert main_status(await workspace.get("one"))["restartCount"] == 0


async def test_a_failing_liveness_probe_restarts_the_container_and_is_told(
    workspace: Workspace, kubectl: Any
) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    pod = workspace.pod("one", main={"livenessProbe": probe}, restartPolicy="Always")
    await workspace.start(pod)

    async def restarted() -> Any:
        status = main_status(await workspace.get("one"))
        return status if status.get("restartCount", 0) >= 1 else None

    status = await workspace.until(restarted)
    assert status["lastState"]["terminated"]["exitCode"] in (137, 143)
    told = (await kubectl("get", "events", "--field-selector=reason=Unhealthy")).stdout
    assert "Liveness probe failed" in told


async def test_a_startup_probe_holds_the_liveness_probe_back(workspace: Workspace) -> None:
    """Liveness alone would end this container: its first failure is one too many."""
    slow = "import time; time.sleep(2)\n" + SERVE
    look = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    main = {
        "startupProbe": {**look, "failureThreshold": 60},
        "livenessProbe": {**look, "failureThreshold": 1, "timeoutSeconds": 5},
    }
    await workspace.start(workspace.pod("one", slow, main=main, restartPolicy="Always"))

    async def started() -> Any:
        status = main_status(await workspace.get("one"))
        return status if status.get("started") else None

    assert (await workspace.until(started))["restartCount"] == 0
