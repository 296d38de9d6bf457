"""The workload side against an API that misbehaves, and over HTTPS as against a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.devcluster.cluster import Options, Workloads
from beamlit_operator.kube import DEPLOYMENTS, PODS, ApiError, KubeClient, connect

REFUSALS = [
    (409, "Conflict"),
    (429, "TooManyRequests"),
    (500, "InternalError"),
    (0, "Unreachable"),
]


class Flaky:
    """A client whose calls fail now and then, before or after the deed, and whose watches drop."""

    def __init__(self, inner: KubeClient, *, share: float) -> None:
        self._inner = inner
        self._share = share
        self._random = random.Random(7)
        self.failures = 0

    def _maybe_fail(self) -> None:
        if self._random.random() < self._share:
            self.failures += 1
            status, reason = self._random.choice(REFUSALS)
            raise ApiError(status, reason, "the test made this fail")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._maybe_fail()
            result = await method(*args, **kwargs)
            # The deed is done, but the answer is lost.
            self._maybe_fail()
            return result

        return call

    async def watch(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for event in self._inner.watch(*args, **kwargs):
            yield event
            if self._random.random() < self._share:
                self.failures += 1
                gone = self._random.random() < 0.5
                raise ApiError(410 if gone else 0, "Expired" if gone else "Unreachable", "dropped")


@contextlib.asynccontextmanager
async def working(client: Any, folder: Path) -> AsyncIterator[Workloads]:
    workloads = Workloads(client, Options(folder, image_cache=folder / "images"))
    running = asyncio.create_task(workloads.run())
    try:
        await asyncio.wait_for(workloads.wait_ready(), 60)
        yield workloads
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def rolled_out(client: KubeClient, name: str, *, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    status: Any = None
    pods: list[Any] = []
    while asyncio.get_running_loop().time() < deadline:
        item = await client.get(DEPLOYMENTS, name, "default")
        status, wanted = item.get("status") or {}, item["spec"]["replicas"]
        pods = (await client.list(PODS, "default")).items
        if (
            status.get("observedGeneration") == item["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == wanted
            and status.get("availableReplicas", 0) == wanted
            and len(pods) == wanted
        ):
            return
        await asyncio.sleep(0.02)
    left = [(each["metadata"], each.get("status", {}).get("phase")) for each in pods]
    raise AssertionError(f"{name} did not roll out in {seconds} s: {status}; pods: {left}")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    found = ApiServer(data_dir=tmp_path / "api")
    await found.start("127.0.0.1", 0)
    try:
        yield found
    finally:
        await found.stop()


async def test_rollouts_end_right_when_every_tenth_call_fails(
    server: ApiServer, tmp_path: Path, make_deployment: Any
) -> None:
    async with working(server.client, tmp_path / "setup") as setup:
        await setup.register()
    flaky = Flaky(server.client, share=0.05)
    async with working(flaky, tmp_path / "work"):
        await server.client.create(DEPLOYMENTS, make_deployment("web", replicas=3))
        await rolled_out(server.client, "web", seconds=60)
        patch = {"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}}
        await server.client.merge_patch(DEPLOYMENTS, "web", patch, "default")
        await rolled_out(server.client, "web", seconds=60)
        scale = {"spec": {"replicas": 0}}
        await server.client.merge_patch(DEPLOYMENTS, "web", scale, "default")
        await rolled_out(server.client, "web", seconds=60)
    assert flaky.failures > 10


async def test_the_same_controllers_and_kubelet_work_over_https(
    server: ApiServer, tmp_path: Path, make_deployment: Any
) -> None:
    async with (
        await connect(server.kubeconfig(tmp_path / "kubeconfig")) as client,
        working(client, tmp_path / "work") as workloads,
    ):
        await workloads.register()
        await client.create(DEPLOYMENTS, make_deployment("web", replicas=2))
        await rolled_out(client, "web", seconds=60)


async def test_controllers_that_were_away_catch_up(
    server: ApiServer, tmp_path: Path, make_deployment: Any
) -> None:
    async with working(server.client, tmp_path / "work") as workloads:
        await workloads.register()
        await server.client.create(DEPLOYMENTS, make_deployment("web", replicas=2))
        await rolled_out(server.client, "web", seconds=60)
    patch = {"spec": {"replicas": 1, "template": {"metadata": {"labels": {"version": "2"}}}}}
    await server.client.merge_patch(DEPLOYMENTS, "web", patch, "default")
    async with working(server.client, tmp_path / "work"):
        await rolled_out(server.client, "web", seconds=60)
