"""The program as it is started: ``python -m beamlit_operator.gateway``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from tests.integration.gateway.conftest import ModelServer, free_port, until
from tests.support.gatewayobjects import endpoint_slice, model_deployment

from beamlit_operator.kube import ENDPOINT_SLICES, MODEL_DEPLOYMENTS, Json

STARTED = 60.0
"""Seconds a process may take to start: imports take long where others want the processor too."""


@asynccontextmanager
async def api_server(*objects: tuple[object, Json]) -> AsyncIterator[str]:
    """Lists these objects and never changes: all the program needs of a cluster here."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
            return response
        items = [body for resource, body in objects if request.path == resource.path()]  # type: ignore[attr-defined]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


class Program:
    """The program and where it listens."""

    def __init__(self, directory: Path, server: str) -> None:
        self.listen, self.admin, self.xds, self.envoy_admin = (free_port() for _ in range(4))
        self._kubeconfig = directory / "kubeconfig"
        context = {"cluster": "c", "user": "u"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": context}],
            "current-context": "c",
        }
        self._kubeconfig.write_text(json.dumps(config))

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "beamlit_operator.gateway"),
            *("--kubeconfig", str(self._kubeconfig), "--listen", f"127.0.0.1:{self.listen}"),
            *("--admin", f"127.0.0.1:{self.admin}", "--xds-listen", f"127.0.0.1:{self.xds}"),
            *("--envoy-admin", f"127.0.0.1:{self.envoy_admin}", "--concurrency", "1"),
            *("--drain-time", "10", "--drain-delay", "0"),
            *arguments,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def ready(self, http: aiohttp.ClientSession) -> None:
        async def answers() -> bool:
            try:
                async with http.get(f"http://127.0.0.1:{self.admin}/readyz") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(answers, what="the program is ready", deadline=STARTED)

    def envoys(self) -> list[int]:
        """The Envoys of this program that run."""
        return [pid for pid in _processes() if str(self.xds) in _bootstrap_of(pid)]


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _bootstrap_of(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return Path(arguments[arguments.index("--config-path") + 1]).read_text()
    except (OSError, ValueError):
        return ""


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _objects(server: ModelServer) -> list[tuple[object, Json]]:
    pods = [(server.host, server.port)]
    return [
        (MODEL_DEPLOYMENTS, model_deployment("iris", traffic={"iris-1": 100})),
        (ENDPOINT_SLICES, endpoint_slice("iris-1", pods, deployment="iris")),
    ]


async def test_it_serves_and_at_sigterm_finishes_what_is_in_flight(
    tmp_path: Path, server: ModelServer
) -> None:
    async with (
        api_server(*_objects(server)) as api,
        aiohttp.ClientSession() as http,
    ):
        program = Program(tmp_path, api)
        async with program.running() as process:
            await program.ready(http)
            envoys = program.envoys()
            assert len(envoys) == 1
            url = f"http://127.0.0.1:{program.listen}/demo/models/iris?wait=1"
            caller = asyncio.create_task(_status(http, url))
            await until(lambda: len(server.requests) == 1, what="the request arrived")
            process.terminate()
            # It waits for the request: the log says so before anything ends.
            assert process.stderr is not None
            while b"draining" not in (await asyncio.wait_for(process.stderr.readline(), 30)):
                pass
            server.release.set()
            assert await caller == 200
            assert await asyncio.wait_for(process.wait(), 30) == 0
        await until(lambda: all(map(_gone, envoys)), what="Envoy is gone")


async def test_killed_outright_it_leaves_no_envoy(tmp_path: Path, server: ModelServer) -> None:
    async with (
        api_server(*_objects(server)) as api,
        aiohttp.ClientSession() as http,
    ):
        program = Program(tmp_path, api)
        async with program.running() as process:
            await program.ready(http)
            envoys = program.envoys()
            assert len(envoys) == 1
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: all(map(_gone, envoys)), what="Envoy is gone")


async def test_a_port_that_is_taken_is_said_in_readiness(
    tmp_path: Path, server: ModelServer
) -> None:
    async with (
        api_server(*_objects(server)) as api,
        aiohttp.ClientSession() as http,
    ):
        program = Program(tmp_path, api)
        taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", program.listen)
        async with taken, program.running():

            async def says_so() -> bool:
                try:
                    async with http.get(f"http://127.0.0.1:{program.admin}/readyz") as response:
                        return response.status == 503 and str(program.listen) in (
                            await response.text()
                        )
                except aiohttp.ClientError:
                    return False

            await until(says_so, what="readiness names the port", deadline=STARTED)


async def test_the_bootstrap_can_be_printed_for_an_envoy_run_by_somebody_else(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beamlit_operator.gateway", "--print-bootstrap"),
        *("--gateway-id", "pod-7", "--xds-listen", "127.0.0.1:18000"),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(printed)["node"]["id"] == "pod-7"


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status
