"""A runtime that a cluster adds serves models: pods run, requests are answered."""

from __future__ import annotations

import asyncio
import json

from tests.support.chart import SYSTEM

ROW = """
image: beamlit.dev/python:3
command: [python]
args: ["{models}/server.py"]
ready: /ready
env: {VERSION: VALUE}
"""


def config_map(value: str) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "tiny-runtimes",
            "namespace": SYSTEM,
            "labels": {"beamlit.com/runtimes": "true"},
        },
        "data": {"tiny-server": ROW.replace("VALUE", value)},
    }
    return json.dumps(body)


async def test_a_runtime_of_the_clusters_own_answers_and_a_changed_row_takes_over(workspace):
    kubectl = workspace.stack.kubectl
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=json.dumps(space))
    await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=config_map("one"))
    try:
        await workspace.apply("Environment", "production", {"policies": []})
        await workspace.secret()
        await workspace.model()
        spec = {"model": "tiny", "runtime": {"type": "tiny-server"}}
        await workspace.apply("ModelDeployment", "tiny", spec)
        await workspace.until_ready("Idle")
        status, answer = await workspace.call()
        assert (status, answer["version"]) == (200, "one")
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=config_map("two"))

        async def answers_of_two():
            return (await workspace.call())[1].get("version") == "two"

        async with asyncio.timeout(60):
            while not await answers_of_two():
                await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(kubectl, "delete", "configmap", "tiny-runtimes", "-n", SYSTEM)
