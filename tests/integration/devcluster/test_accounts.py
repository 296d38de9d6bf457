"""The official clients in a pod, configured as in any cluster: by what is in the pod."""

from __future__ import annotations

from typing import Any

from beamlit_operator.kube import PODS

SYNCHRONOUS = """
from kubernetes import client, config
config.load_incluster_config()
for pod in client.CoreV1Api().list_namespaced_pod("default").items:
    print(pod.metadata.name, pod.spec.service_account_name)
"""

ASYNCHRONOUS = """
import asyncio, pathlib
from beamlit_operator.kube import PODS, connect
async def main():
    async with await connect() as found:
        for pod in (await found.list(PODS, "default")).items:
            print(pod["metadata"]["name"], pod["spec"]["serviceAccountName"])
asyncio.run(main())
"""


async def _ends_well(lab: Any, make_pod: Any, name: str, code: str) -> None:
    await lab.client.create(PODS, make_pod(name, "-c", code, restartPolicy="Never"))

    async def ended() -> bool:
        found = await lab.client.get(PODS, name, "default")
        return found["status"].get("phase") in ("Succeeded", "Failed")

    await lab.until("ended", ended)
    assert await lab.log(name) == f"{name} default\n"
    await lab.client.delete(PODS, name, "default")


async def test_the_official_client_finds_the_cluster_from_inside_a_pod(
    lab: Any, make_pod: Any
) -> None:
    await _ends_well(lab, make_pod, "synchronous", SYNCHRONOUS)


async def test_our_client_finds_the_cluster_from_inside_a_pod(lab: Any, make_pod: Any) -> None:
    await _ends_well(lab, make_pod, "asynchronous", ASYNCHRONOUS)


async def test_a_token_is_readable_by_its_owner_only(lab: Any, make_pod: Any) -> None:
    code = """
import os
path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
print(oct(os.stat(path).st_mode & 0o777))
"""
    await lab.client.create(PODS, make_pod("mode", "-c", code, restartPolicy="Never"))

    async def ended() -> bool:
        found = await lab.client.get(PODS, "mode", "default")
        return bool(found["status"].get("phase") == "Succeeded")

    await lab.until("ended", ended)
    assert await lab.log("mode") == "0o600\n"
