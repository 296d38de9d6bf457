"""One system for all tests of this folder; each test has a workspace of its own in it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.stack import ACCESS_KEY, SECRET_KEY, Stack, running_stack
from yarl import URL

from beamlit_operator.kube import (
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    ApiError,
    HttpClient,
    Json,
    connect,
    resource_of,
)

_numbers = itertools.count(1)
API = "beamlit.com/v1alpha1"
FINAL = ("StartFailed", "NoPlacement", "PolicyNotFound", "PlacementOutdated")
"""Reasons of a 503 that a moment's patience does not change."""

SETTLED = 90.0
"""Seconds within which the system must be where a test expects it."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("system")) as stack:
        yield stack


@dataclass
class Workspace:
    """A namespace, and what a user does in it."""

    name: str
    stack: Stack
    client: HttpClient
    http: aiohttp.ClientSession
    _made: list[Json] = field(default_factory=list)

    async def apply(
        self,
        kind: str,
        name: str,
        spec: Json | None = None,
        *,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        **top: Any,
    ) -> Json:
        """Applies an object, as ``kubectl apply --server-side`` would."""
        api_version = "v1" if kind in ("Secret", "ConfigMap") else API
        metadata: Json = {"name": name, "namespace": self.name, "labels": labels or {}}
        if annotations:
            metadata["annotations"] = annotations
        body: Json = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **top}
        if spec is not None:
            body["spec"] = spec
        return await self.client.apply(resource_of(api_version, kind), body, field_manager="test")

    async def delete(self, kind: str, name: str) -> None:
        await self.client.delete(resource_of(API, kind), name, self.name)

    async def quickstart(self, name: str = "tiny", **deployment: Any) -> None:
        """An Environment without policies, a Model, its Secret and a ModelDeployment."""
        await self.apply("Environment", "production", {"policies": []})
        await self.secret()
        await self.model(name)
        await self.deployment(name, **deployment)
        await self.until(lambda md: ready(md)["reason"], name)

    async def secret(self) -> None:
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        await self.apply("Secret", "store", stringData=keys, type="Opaque")

    async def model(
        self,
        name: str = "tiny",
        *,
        uri: str = "s3://models/tiny",
        store: str = "",
        region: str = "us-east-1",
    ) -> None:
        s3 = {
            "uri": uri,
            "endpoint": store or self.stack.store,
            "region": region,
            "credentialsSecretRef": {"name": "store"},
        }
        await self.apply("Model", name, {"origin": {"s3": s3}})

    async def deployment(
        self, model: str = "tiny", *, envs: dict[str, str] | None = None, **spec: Any
    ) -> None:
        variables = [{"name": name, "value": value} for name, value in (envs or {}).items()]
        node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        runtime = {
            "image": "beamlit.dev/python:3",
            "command": ["python"],
            "args": ["/mnt/models/server.py"],
            "envs": [node, *variables],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        }
        await self.apply("ModelDeployment", model, {"model": model, "runtime": runtime, **spec})

    async def get(self, name: str = "tiny") -> Json:
        return await self.client.get(MODEL_DEPLOYMENTS, name, self.name)

    async def pods(self) -> list[Json]:
        return (await self.client.list(PODS, self.name)).items

    async def until(
        self, condition: Callable[[Json], object], name: str = "tiny", *, within: float = SETTLED
    ) -> Json:
        """Waits until the ModelDeployment is so; says how it is when it does not become so."""
        deadline = time.monotonic() + within
        current: Json = {}
        while True:
            try:
                current = await self.get(name)
                if condition(current):
                    return current
            except ApiError as error:
                if not error.not_found:
                    raise
            assert time.monotonic() < deadline, f"{current}\n{self.stack.logs()}"
            await asyncio.sleep(0.05)

    async def until_ready(self, reason: str, name: str = "tiny") -> Json:
        return await self.until(lambda md: ready(md)["reason"] == reason, name)

    async def call(
        self,
        path: str = "/predict",
        *,
        model: str = "tiny",
        query: str = "",
        body: bytes = b"{}",
        known: bool = True,
    ) -> tuple[int, Json]:
        """One request to an endpoint: the status and the decoded body.

        A ``known`` one gets some grace: the gateway learns of a deployment some milliseconds after
        its status was written; on a machine that does much else, later.
        """
        url = URL(f"{self.stack.gateway}/{self.name}/models/{model}{path}{query}", encoded=True)
        deadline = time.monotonic() + 20
        while True:
            async with self.http.post(
                url, data=body, headers=self.stack.caller_headers
            ) as response:
                answer = response.status, await response.json()
            unsettled = response.status in (404, 503) and reason_of(answer[1]) not in FINAL
            if not known or not unsettled or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(0.02)


async def served(workspace: Workspace, *, model: str = "tiny") -> Json:
    """The answer of what serves again: until the gateway has heard so, it gives the old reason."""
    deadline = time.monotonic() + SETTLED
    while True:
        status, body = await workspace.call(model=model)
        if status == 200:
            return body
        assert time.monotonic() < deadline, f"{status} {body}\n{workspace.stack.logs()}"
        await asyncio.sleep(0.1)


class UnderWay:
    """Requests that are with their pods: they say that they are, and end when the test says so."""

    def __init__(self, folder: Path) -> None:
        self._begun, self._end = folder / "begun", folder / "end"
        self.begins, self.ends = f"begins={self._begun}", f"ends={self._end}"

    async def begun(self, count: int = 1) -> None:
        """Waits until so many are with their pods."""
        async with asyncio.timeout(SETTLED):
            while not self._begun.exists() or self._begun.read_text().count("\n") < count:
                await asyncio.sleep(0.02)

    def end(self) -> None:
        self._end.touch()


@pytest.fixture
def under_way(tmp_path: Path) -> UnderWay:
    return UnderWay(tmp_path)


def reason_of(answer: Json) -> str:
    return str(answer.get("error", {}).get("reason", ""))


def ready(deployment: Json) -> Json:
    """The condition Ready, empty strings where there is none yet."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            return condition
    return {"status": "", "reason": "", "message": ""}


@pytest.fixture
async def workspace(stack) -> AsyncIterator[Workspace]:
    name = f"team-{next(_numbers)}"
    async with await connect(stack.kubeconfig) as client, aiohttp.ClientSession() as http:
        await client.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        yield Workspace(name, stack, client, http)
        await client.delete(NAMESPACES, name)
