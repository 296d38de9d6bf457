"""Pods and Deployments of the suite, and waiting for what becomes of them.

Everything is seen through the API: the addresses of pods need not be reachable from here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    ApiError,
    HttpClient,
    Json,
)

PATIENCE = 60.0
"""Seconds: a real cluster pulls the image first."""

SLEEP = "import time; time.sleep(600)"

SERVE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def container(image: str, code: str, /, **more: Any) -> Json:
    """A container named ``main`` that runs Python code."""
    return {"name": "main", "image": image, "command": ["python", "-u", "-c", code], **more}


@dataclass
class Workspace:
    """A namespace on a cluster that runs pods."""

    client: HttpClient
    namespace: str
    image: str

    def pod(
        self, name: str, code: str = SLEEP, /, *, main: Json | None = None, **spec: Any
    ) -> Json:
        """A pod that runs ``code``; ``main`` has more fields of its container."""
        return {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "containers": [container(self.image, code, **(main or {}))],
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": "Never",
                **spec,
            },
        }

    def deployment(self, name: str, code: str = SLEEP, /, *, main: Json | None = None, **spec: Any):
        """A Deployment of such pods."""
        template = self.pod(name, code, main=main)["spec"] | {"restartPolicy": "Always"}
        labels = {"app": name}
        return {
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": template},
                **spec,
            },
        }

    async def start(self, pod: Json) -> str:
        """Creates the pod; returns its name."""
        return (await self.client.create(PODS, pod, self.namespace))["metadata"]["name"]

    async def get(self, name: str) -> Json:
        return await self.client.get(PODS, name, self.namespace)

    async def pods(self, app: str) -> list[Json]:
        """The pods with this label that nobody has deleted."""
        selector = f"app={app}"
        found = await self.client.list(PODS, self.namespace, label_selector=selector)
        return [pod for pod in found.items if "deletionTimestamp" not in pod["metadata"]]

    async def replica_sets(self, app: str) -> dict[str, Json]:
        """The ReplicaSets of a Deployment by revision."""
        selector = f"app={app}"
        found = await self.client.list(REPLICA_SETS, self.namespace, label_selector=selector)
        key = "deployment.kubernetes.io/revision"
        return {item["metadata"]["annotations"][key]: item for item in found.items}

    async def log(self, name: str, **query: str) -> str:
        """What the pod's container has said so far."""
        path = f"{PODS.path(self.namespace, name)}/log"
        try:
            response = await self.client.request("GET", path, query=query)
        except ApiError as error:
            if error.status in (400, 404):  # not started yet, or no such earlier one
                return ""
            raise
        return (await response.read()).decode()

    async def until(self, check: Callable[[], Awaitable[Any]], *, within: float = PATIENCE) -> Any:
        """The first true value of ``check``; fails with the state of the pods."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if value := await check():
                return value
            await asyncio.sleep(0.03)
        pods = (await self.client.list(PODS, self.namespace)).items
        events = (await self.client.list(EVENTS, self.namespace)).items
        state = [(p["metadata"]["name"], p["spec"].get("nodeName"), p["status"]) for p in pods]
        told = [(e["involvedObject"]["name"], e.get("reason"), e.get("message")) for e in events]
        raise AssertionError(f"{check.__qualname__}: not in {within} s; {state}; {told}")

    async def until_phase(self, name: str, phase: str) -> Json:
        async def check() -> Any:
            pod = await self.get(name)
            return pod if pod["status"].get("phase") == phase else None

        check.__qualname__ = f"{name} is {phase}"
        return await self.until(check)

    async def until_ready(self, name: str) -> Json:
        async def check() -> Any:
            pod = await self.get(name)
            return pod if condition(pod, "Ready") == "True" else None

        check.__qualname__ = f"{name} is ready"
        return await self.until(check)

    async def output(self, pod: Json) -> str:
        """Runs the pod to its good end; returns what it said."""
        name = await self.start(pod)

        async def ended() -> Any:
            status = (await self.get(name))["status"]
            return status if status.get("phase") in ("Succeeded", "Failed") else None

        status = await self.until(ended)
        text = await self.log(name)
        assert status["phase"] == "Succeeded", (status, text)
        return text

    async def until_rolled_out(self, name: str) -> Json:
        """The Deployment, once all its pods are of its template and available."""

        async def check() -> Any:
            item = await self.client.get(DEPLOYMENTS, name, self.namespace)
            status, wanted = item.get("status") or {}, item["spec"]["replicas"]
            numbers = ("replicas", "updatedReplicas", "availableReplicas")
            current = status.get("observedGeneration") == item["metadata"]["generation"]
            return item if current and all(status.get(n, 0) == wanted for n in numbers) else None

        check.__qualname__ = f"{name} is rolled out"
        return await self.until(check)

    async def node(self) -> str:
        """The name of a node that takes pods."""
        return (await ready_nodes(self.client))[0]


async def ready_nodes(client: HttpClient) -> list[str]:
    """The names of the nodes that take any pod."""
    return [
        node["metadata"]["name"]
        for node in (await client.list(NODES)).items
        if condition(node, "Ready") == "True"
        and not node["spec"].get("taints")
        and not node["spec"].get("unschedulable")
    ]


def condition(item: Json, kind: str) -> str:
    """The status of a condition, empty when it is not there."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in conditions if c["type"] == kind), "")


def main_status(pod: Json) -> Json:
    """The status of the container ``main``, empty when there is none yet."""
    statuses = pod["status"].get("containerStatuses") or ()
    return next((dict(s) for s in statuses if s["name"] == "main"), {})
