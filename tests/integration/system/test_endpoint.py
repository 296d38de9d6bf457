"""What a deployment says of its endpoint, from the manifest to the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

import grpc

from beamlit_operator.kube import ENDPOINT_SLICES

from .conftest import SETTLED, Workspace

SERVER = Path(__file__).parents[2] / "support" / "grpcmodel.py"


async def test_a_grpc_model_is_woken_by_a_grpc_call(workspace: Workspace) -> None:
    prefix = f"{workspace.name}-grpc"
    workspace.stack.s3().upload_file(str(SERVER), "models", f"{prefix}/server.py")
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.secret()
    await workspace.model(uri=f"s3://models/{prefix}")
    runtime = {
        "image": "beamlit.dev/python:3",
        "command": ["python"],
        "args": ["/mnt/models/server.py"],
        "appProtocol": "kubernetes.io/h2c",
        "envs": [{"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    await workspace.apply("ModelDeployment", "tiny", {"model": "tiny", "runtime": runtime})
    resting = await workspace.until_ready("Idle")
    (revision,) = resting["status"]["revisions"]
    assert revision["appProtocol"] == "kubernetes.io/h2c"
    options = [("grpc.default_authority", f"tiny.{workspace.name}.svc")]
    address = workspace.stack.gateway.removeprefix("http://")
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        say = channel.unary_unary("/model/Say")
        deadline = time.monotonic() + SETTLED
        while (await _outcome(say(b"cold", timeout=60))) != b"said cold":
            # The gateway learns of a deployment milliseconds after its status was written.
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert await _outcome(say(b"warm", timeout=60)) == b"said warm"
    slices = await workspace.client.list(ENDPOINT_SLICES, workspace.name)
    spoken = {port.get("appProtocol") for each in slices.items for port in each["ports"]}
    assert spoken == {"kubernetes.io/h2c"}


async def _outcome(call: Awaitable[bytes]) -> bytes:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if not any(
            word in str(error.details()) for word in ("Resolving", "nothing is served here")
        ):
            raise
        return b""


async def test_replicas_at_their_limit_are_joined_by_others(workspace: Workspace) -> None:
    """The target of 100 requests would never be met where a replica takes one at a time."""
    await workspace.quickstart(
        endpoint={"maxConcurrency": 1, "maxQueued": 100},
        serverlessConfig={"stableWindow": "6s", "maxNumReplicas": 3},
    )
    stop = asyncio.Event()

    async def keep_calling() -> set[int]:
        seen = set()
        while not stop.is_set():
            seen.add((await workspace.call(query="?seconds=0.2"))[0])
        return seen

    callers = [asyncio.create_task(keep_calling()) for _ in range(6)]
    await workspace.until(lambda md: md.get("status", {}).get("readyReplicas", 0) >= 2)
    stop.set()
    assert set().union(*await asyncio.gather(*callers)) == {200}
