"""Nodes that come and go while the cluster runs."""

from __future__ import annotations

from typing import Any

from beamlit_operator.kube import NODES, PODS, SECRETS

SLEEP = ("-c", "import time; time.sleep(60)")


async def phase(lab: Any, name: str) -> str:
    (found,) = await lab.pods(app=name)
    return str(found.get("status", {}).get("phase"))


async def test_a_node_applied_by_hand_takes_pods_and_its_deletion_removes_them(
    lab: Any, make_pod: Any, find_processes: Any
) -> None:
    labels = {"beamlit.dev/pretend-node": "true", "planet": "mars"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "rover", "labels": labels}}
    await lab.client.create(NODES, node)
    container = {"env": [{"name": "WHO", "value": "on-mars"}]}
    body = make_pod("far", *SLEEP, nodeSelector={"planet": "mars"}, container=container)
    await lab.client.create(PODS, body)

    async def running() -> bool:
        return await phase(lab, "far") == "Running"

    await lab.until("running on the new node", running)
    assert await lab.condition_of_node("rover", "Ready") == "True"
    assert len(find_processes("WHO=on-mars")) == 1
    await lab.client.delete(NODES, "rover")

    async def gone() -> bool:
        return not await lab.pods(app="far") and not find_processes("WHO=on-mars")

    await lab.until("pod and process gone", gone)


async def test_a_device_is_given_to_one_pod_and_then_to_the_next(lab: Any, make_pod: Any) -> None:
    container = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    for name in ("first", "second"):
        await lab.client.create(PODS, make_pod(name, *SLEEP, container=container))

    async def first_runs() -> bool:
        return await phase(lab, "first") == "Running"

    await lab.until("first running", first_runs)

    async def refusal() -> str:
        (found,) = await lab.pods(app="second")
        for item in found.get("status", {}).get("conditions") or ():
            if item["type"] == "PodScheduled" and item["status"] == "False":
                return str(item["message"])
        return ""

    message = await lab.until("second refused", refusal)
    assert message == "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    await lab.client.delete(PODS, "first", "default")

    async def second_runs() -> bool:
        return await phase(lab, "second") == "Running"

    await lab.until("second running", second_runs)


async def test_a_pod_waits_for_the_secret_of_its_volume_and_says_so(
    lab: Any, make_pod: Any
) -> None:
    body = make_pod(
        "keys",
        "-c",
        "print(open('/etc/keys/token').read())",
        container={"volumeMounts": [{"name": "keys", "mountPath": "/etc/keys"}]},
        volumes=[{"name": "keys", "secret": {"secretName": "keys"}}],
        restartPolicy="Never",
    )
    await lab.client.create(PODS, body)
    text = 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found'

    async def told() -> bool:
        return f"FailedMount: {text}" in await lab.events("keys")

    await lab.until("FailedMount event", told)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": "default"},
        "stringData": {"token": "t0ken"},
    }
    await lab.client.create(SECRETS, secret)

    async def done() -> bool:
        return await phase(lab, "keys") == "Succeeded"

    await lab.until("succeeded", done)
    assert await lab.log("keys") == "t0ken\n"
