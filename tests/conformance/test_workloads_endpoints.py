"""EndpointSlices: which pods of a Service may be called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import ENDPOINT_SLICES, PODS, SERVICES, Json

from .workloads import SLEEP, Workspace

SLOW_END = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit(0)))
print('up')
while True:
    time.sleep(0.05)
"""


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


async def _serve(workspace: Workspace, **spec: Any) -> None:
    body = {
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
            **spec,
        },
    }
    await workspace.client.create(SERVICES, body, workspace.namespace)


async def _slices(workspace: Workspace) -> list[Json]:
    found = await workspace.client.list(
        ENDPOINT_SLICES,
        workspace.namespace,
        label_selector="kubernetes.io/service-name=web,team=a",
    )
    return found.items


async def _endpoint(workspace: Workspace) -> Json:
    """The only endpoint, empty when there is none."""
    found = [e for item in await _slices(workspace) for e in item.get("endpoints") or ()]
    assert len(found) <= 1, found
    return found[0] if found else {}


async def test_a_ready_pod_is_listed_with_its_port_and_place(workspace: Workspace) -> None:
    await _serve(workspace)
    main = {"ports": [{"name": "web", "containerPort": 8080}]}
    await workspace.start(workspace.pod("web", main=main))
    pod = await workspace.until_ready("web")

    async def ready() -> Any:
        found = await _endpoint(workspace)
        return found if found and found["conditions"]["ready"] else None

    found = await workspace.until(ready)
    assert found["addresses"] == [pod["status"]["podIP"]]
    assert found["nodeName"] == pod["spec"]["nodeName"]
    target = {key: found["targetRef"][key] for key in ("kind", "name", "uid")}
    assert target == {"kind": "Pod", "name": "web", "uid": pod["metadata"]["uid"]}
    (item,) = await _slices(workspace)
    port = item["ports"][0]
    assert (port["name"], port["port"], port["protocol"]) == ("http", 8080, "TCP")
    assert item["metadata"]["ownerReferences"][0]["kind"] == "Service"


@pytest.mark.parametrize("publish", [False, True])
async def test_a_pod_that_is_not_ready_is_listed_as_such_unless_published(
    workspace: Workspace, publish: bool
) -> None:
    await _serve(workspace, publishNotReadyAddresses=publish)
    probe = {"exec": {"command": ["python", "-c", "raise SystemExit(1)"]}, "timeoutSeconds": 5}
    main = {"readinessProbe": probe, "ports": [{"name": "web", "containerPort": 8080}]}
    await workspace.start(workspace.pod("web", SLEEP, main=main))

    async def listed() -> Any:
        return await _endpoint(workspace)

    found = await workspace.until(listed)
    assert found["conditions"] == {"ready": publish, "serving": False, "terminating": False}


async def test_a_pod_that_is_leaving_serves_but_is_not_ready(workspace: Workspace) -> None:
    await _serve(workspace)
    main = {"ports": [{"name": "web", "containerPort": 8080}]}
    pod = workspace.pod("web", SLOW_END, main=main, terminationGracePeriodSeconds=20)
    await workspace.start(pod)

    async def ready() -> Any:
        found = await _endpoint(workspace)
        return found and found["conditions"]["ready"] and "up" in await workspace.log("web")

    await workspace.until(ready)
    await workspace.client.delete(PODS, "web", workspace.namespace)

    async def draining() -> Any:
        found = await _endpoint(workspace)
        return found if found and found["conditions"]["terminating"] else None

    found = await workspace.until(draining)
    assert found["conditions"] == {"ready": False, "serving": True, "terminating": True}

    async def gone() -> bool:
        return not await _endpoint(workspace)

    await workspace.until(gone)
