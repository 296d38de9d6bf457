"""A whole embedded cluster per test module, and the few things tests do with it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.cluster import DevCluster, Options
from beamlit_operator.devcluster.kubelet import Settings
from beamlit_operator.devcluster.kubelet.backoff import BackOff
from beamlit_operator.kube import DEPLOYMENTS, EVENTS, NODES, PODS, Json, KubeClient

PATIENCE = 60.0

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("ANSWER", "hello").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
print("serving", flush=True)
server.serve_forever()
"""
"""A web server that binds every address, as servers in containers do."""

PYTHON = "beamlit.dev/python:3"


@dataclass
class Lab:
    """A running cluster and short ways to use it."""

    cluster: DevCluster

    @property
    def client(self) -> KubeClient:
        return self.cluster.client

    async def pods(self, **labels: str) -> list[Json]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = await self.client.list(PODS, "default", label_selector=selector or None)
        return found.items

    async def events(self, name: str) -> list[str]:
        found = await self.client.list(EVENTS, "default")
        return [
            f"{item['reason']}: {item['message']}"
            for item in found.items
            if item["involvedObject"]["name"].startswith(name)
        ]

    async def until(
        self,
        what: str,
        check: Callable[[], Awaitable[Any]],
        *,
        seconds: float = PATIENCE,
    ) -> Any:
        """The first true value of ``check``; fails with the cluster's state when time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = await check()
            if value:
                return value
            await asyncio.sleep(0.01)
        state = [(pod["metadata"]["name"], pod.get("status")) for pod in await self.pods()]
        raise AssertionError(f"not in {seconds} s: {what}; pods: {state}")

    async def condition_of_node(self, name: str, type: str) -> str:
        item = await self.client.get(NODES, name)
        for found in (item.get("status") or {}).get("conditions") or ():
            if found["type"] == type:
                return str(found["status"])
        return ""

    async def available(self, name: str, *, seconds: float = PATIENCE) -> None:
        async def check() -> bool:
            item = await self.client.get(DEPLOYMENTS, name, "default")
            status = item.get("status") or {}
            wanted = item["spec"].get("replicas", 1)
            return (
                status.get("observedGeneration") == item["metadata"]["generation"]
                and status.get("updatedReplicas", 0) == wanted
                and status.get("replicas", 0) == wanted
                and status.get("availableReplicas", 0) == wanted
            )

        await self.until(f"deployment {name} available", check, seconds=seconds)

    async def log(self, pod: str, **options: Any) -> str:
        stream = await self.cluster.workloads.kubelet.logs("default", pod, **options)
        return b"".join([part async for part in stream]).decode()


def pod(name: str, *args: str, **spec: Any) -> Json:
    """A pod with one Python container ``c``; ``container`` holds more of its fields."""
    container = {"name": "c", "image": PYTHON, "args": list(args), **spec.pop("container", {})}
    labels = spec.pop("labels", {"app": name})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [container], **spec},
    }


def deployment(name: str, *, replicas: int = 1, answer: str = "hello", **container: Any) -> Json:
    """A Deployment of the web server above, with a readiness probe."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [
                        {
                            "name": "c",
                            "image": PYTHON,
                            "args": ["-c", SERVER],
                            "env": [{"name": "ANSWER", "value": answer}],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                            **container,
                        }
                    ],
                },
            },
        },
    }


def processes_with(text: str) -> list[int]:
    """Processes of this machine whose environment holds ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A cluster with short back-offs."""
    quick = BackOff(first=0.3, longest=1.0)
    settings = Settings(restarts=quick, pulls=quick, missing_retry=0.1)
    options = Options(tmp_path / "cluster", kubelet=settings, image_cache=tmp_path / "images")
    async with DevCluster(options) as cluster:
        yield Lab(cluster)
        # Controllers, scheduler and kubelet see the stored objects themselves.
        for collection in cluster._api._store.collections:
            for entry in collection.objects.values():
                stored = json.loads(entry.encoded(entry.obj["apiVersion"]))
                assert entry.obj == stored, "a reader has changed a stored object"


@pytest.fixture
def make_pod() -> Callable[..., Json]:
    return pod


@pytest.fixture
def make_deployment() -> Callable[..., Json]:
    return deployment


@pytest.fixture
def find_processes() -> Callable[[str], list[int]]:
    return processes_with
