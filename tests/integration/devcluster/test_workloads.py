"""Workloads through the API, as real processes."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

from beamlit_operator.kube import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    ApiError,
)


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:8080/", timeout=30) as answer:
        return str(answer.read().decode())


async def test_a_deployment_becomes_available_and_answers_at_its_endpoints(
    lab: Any, make_deployment: Any
) -> None:
    await lab.client.create(SERVICES, service("web"))
    await lab.client.create(DEPLOYMENTS, make_deployment("web", replicas=2, answer="yes"))
    await lab.available("web")

    async def ready_addresses() -> list[str]:
        slices = await lab.client.list(
            ENDPOINT_SLICES, "default", label_selector="kubernetes.io/service-name=web,team=a"
        )
        ready = [
            endpoint["addresses"][0]
            for item in slices.items
            for endpoint in item["endpoints"]
            if endpoint["conditions"]["ready"]
        ]
        return ready if len(ready) == 2 else []

    addresses = await lab.until("two ready endpoints", ready_addresses)
    assert len(set(addresses)) == 2
    for address in addresses:
        assert await asyncio.to_thread(fetch, address) == "yes"


async def test_a_rolling_update_replaces_every_pod_and_never_drops_below_its_bound(
    lab: Any, make_deployment: Any
) -> None:
    body = make_deployment("web", replicas=2, answer="one")
    body["spec"]["strategy"] = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    await lab.client.create(DEPLOYMENTS, body)
    await lab.available("web")
    before = {pod["metadata"]["uid"] for pod in await lab.pods(app="web")}
    least = 2
    update = asyncio.Event()

    async def watch_availability() -> None:
        nonlocal least
        while not update.is_set():
            item = await lab.client.get(DEPLOYMENTS, "web", "default")
            least = min(least, item["status"].get("availableReplicas", 0))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch_availability())
    body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "two"
    patch = {"spec": {"template": body["spec"]["template"]}}
    await lab.client.merge_patch(DEPLOYMENTS, "web", patch, "default")
    await lab.available("web")
    update.set()
    await watching
    assert least == 2
    pods = [pod for pod in await lab.pods(app="web") if "deletionTimestamp" not in pod["metadata"]]
    assert not before & {pod["metadata"]["uid"] for pod in pods}
    assert await asyncio.to_thread(fetch, pods[0]["status"]["podIP"]) == "two"
    sets = await lab.client.list(REPLICA_SETS, "default", label_selector="app=web")
    assert sorted(item["spec"]["replicas"] for item in sets.items) == [0, 2]
    item = await lab.client.get(DEPLOYMENTS, "web", "default")
    assert item["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


async def test_a_pod_that_is_deleted_leaves_its_endpoints_before_it_ends(
    lab: Any, make_pod: Any
) -> None:
    slow_end = (
        "import signal, time, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.5), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    body = make_pod(
        "web", "-c", slow_end, container={"ports": [{"name": "http", "containerPort": 80}]}
    )
    await lab.client.create(SERVICES, service("web"))
    await lab.client.create(PODS, body)

    async def endpoint() -> Any:
        found = await lab.client.list(ENDPOINT_SLICES, "default")
        return next((e for item in found.items for e in item["endpoints"] or ()), None)

    async def ready() -> bool:
        found = await endpoint()
        return bool(found and found["conditions"]["ready"]) and "up" in await lab.log("web")

    await lab.until("ready endpoint", ready)
    await lab.client.delete(PODS, "web", "default")

    async def draining() -> Any:
        found = await endpoint()
        return found if found and found["conditions"]["terminating"] else None

    found = await lab.until("terminating endpoint", draining)
    assert found["conditions"] == {"ready": False, "serving": True, "terminating": True}

    async def gone() -> bool:
        return not await lab.pods(app="web") and await endpoint() is None

    await lab.until("pod and endpoint gone", gone)


async def test_a_crashing_container_backs_off_and_says_why(lab: Any, make_pod: Any) -> None:
    container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    await lab.client.create(
        PODS,
        make_pod(
            "bad", "-c", "import sys; print('no model here'); sys.exit(3)", container=container
        ),
    )

    async def looping() -> Any:
        (found,) = await lab.pods(app="bad")
        (status,) = found.get("status", {}).get("containerStatuses") or ({},)
        waiting = status.get("state", {}).get("waiting", {})
        return status if waiting.get("reason") == "CrashLoopBackOff" else None

    status = await lab.until("crash loop", looping)
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert "no model here" in status["lastState"]["terminated"]["message"]
    assert "back-off" in status["state"]["waiting"]["message"]
    assert "no model here" in await lab.log("bad", previous=True)

    async def told() -> bool:
        return any(line.startswith("BackOff") for line in await lab.events("bad"))

    await lab.until("BackOff event", told)


async def test_a_missing_secret_is_named_and_the_pod_starts_when_it_appears(
    lab: Any, make_pod: Any
) -> None:
    reference = {"secretKeyRef": {"name": "creds", "key": "token"}}
    container = {"env": [{"name": "TOKEN", "valueFrom": reference}]}
    code = "import os, time; print(os.environ['TOKEN'], flush=True); time.sleep(60)"
    await lab.client.create(PODS, make_pod("needy", "-c", code, container=container))

    async def waiting() -> Any:
        (found,) = await lab.pods(app="needy")
        (status,) = found.get("status", {}).get("containerStatuses") or ({},)
        state = status.get("state", {}).get("waiting", {})
        return state if state.get("reason") == "CreateContainerConfigError" else None

    state = await lab.until("config error", waiting)
    assert state["message"] == 'secret "creds" not found'
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "creds", "namespace": "default"},
        "data": {"token": "czNjcmV0"},
    }
    await lab.client.create(SECRETS, secret)

    async def running() -> bool:
        try:
            return "s3cret" in await lab.log("needy")
        except ApiError:
            return False

    await lab.until("the container's own words", running)
    assert all("s3cret" not in line for line in await lab.events("needy"))


async def test_an_unschedulable_pod_says_why_and_is_placed_when_a_node_appears(
    lab: Any, make_pod: Any
) -> None:
    body = make_pod("far", "-c", "import time; time.sleep(60)", nodeSelector={"planet": "mars"})
    await lab.client.create(PODS, body)

    async def refused() -> Any:
        (found,) = await lab.pods(app="far")
        for item in found.get("status", {}).get("conditions") or ():
            if item["type"] == "PodScheduled" and item["status"] == "False":
                return item
        return None

    condition = await lab.until("unschedulable", refused)
    assert condition["reason"] == "Unschedulable"
    assert condition["message"] == (
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    )
    await lab.client.merge_patch(NODES, "eu-west", {"metadata": {"labels": {"planet": "mars"}}})

    async def runs() -> bool:
        (found,) = await lab.pods(app="far")
        return bool(found["status"]["phase"] == "Running")

    await lab.until("running", runs)
    (found,) = await lab.pods(app="far")
    assert found["spec"]["nodeName"] == "eu-west"


async def test_an_unknown_image_says_how_to_map_it(lab: Any, make_pod: Any) -> None:
    body = make_pod("odd", container={"image": "nginx:1.29"})
    await lab.client.create(PODS, body)
    reasons = set()

    async def refused() -> Any:
        (found,) = await lab.pods(app="odd")
        (status,) = found.get("status", {}).get("containerStatuses") or ({},)
        state = status.get("state", {}).get("waiting", {})
        reasons.add(state.get("reason"))
        both = {"ErrImagePull", "ImagePullBackOff"} <= reasons  # it goes from one to the other
        return state if both and state.get("reason") == "ImagePullBackOff" else None

    state = await lab.until("pull error and back-off", refused)
    assert "docker.io/library/nginx" in state["message"]
    assert "--images" in state["message"]


async def test_a_deployment_scaled_to_zero_and_back_keeps_its_replica_set(
    lab: Any, make_deployment: Any
) -> None:
    await lab.client.create(DEPLOYMENTS, make_deployment("web"))
    await lab.available("web")
    for replicas in (0, 1):
        scale = {"spec": {"replicas": replicas}}
        await lab.client.merge_patch(DEPLOYMENTS, "web", scale, "default", subresource="scale")

        async def settled(replicas: int = replicas) -> bool:
            item = await lab.client.get(DEPLOYMENTS, "web", "default")
            pods = await lab.pods(app="web")
            ready = item["status"].get("readyReplicas", 0)
            return bool(ready == replicas and len(pods) == replicas)

        await lab.until(f"{replicas} replicas", settled)
    sets = await lab.client.list(REPLICA_SETS, "default")
    assert len(sets.items) == 1
