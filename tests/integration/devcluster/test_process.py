"""The embedded cluster as a process: started, driven over HTTPS, stopped, killed, started again."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import PODS, ApiError, HttpClient, connect

MARKER = "EMBEDDED_CLUSTER_TEST"

# Leaves its group and its session: the hardest kind of process to find again.
STRAY = (
    "import subprocess, sys, time\n"
    "code = 'import time; time.sleep(600)'\n"
    "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)"
)


class Started:
    """A cluster process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> str:
        """Returns the line it prints when it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "beamlit_operator.devcluster"),
            *("--data-dir", str(self.folder), *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        return line.decode()

    async def client(self) -> HttpClient:
        return await connect(self.folder / "kubeconfig")

    async def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    found = Started(tmp_path / "cluster")
    try:
        yield found
    finally:
        if found.process is not None and found.process.returncode is None:
            await found.end(signal.SIGKILL)


async def eventually(check: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not in {seconds} s: {what}")


async def run_stray(client: HttpClient, make_pod: Any, mark: str) -> None:
    container = {"env": [{"name": MARKER, "value": mark}]}
    await client.create(PODS, make_pod("stray", "-c", STRAY, container=container), "default")

    async def running() -> bool:
        try:
            found = await client.get(PODS, "stray", "default")
        except ApiError:
            return False
        return bool(found.get("status", {}).get("phase") == "Running")

    await eventually(running, "pod running")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_no_process_survives_the_cluster(
    started: Started, make_pod: Any, find_processes: Any, number: int
) -> None:
    mark = f"{MARKER}={started.folder}"
    line = await started.start()
    assert line.strip() == f"ready: export KUBECONFIG={started.folder / 'kubeconfig'}"
    async with await started.client() as client:
        await run_stray(client, make_pod, str(started.folder))
        await eventually(lambda: len(find_processes(mark)) >= 2, "pod and its stray child")
    code = await started.end(number)
    assert code == (-9 if number == signal.SIGKILL else 0)
    await eventually(lambda: not find_processes(mark), "no process left")


async def test_a_killed_cluster_continues_where_it_was(
    started: Started, make_pod: Any, find_processes: Any
) -> None:
    mark = f"{MARKER}={started.folder}"
    await started.start()
    async with await started.client() as client:
        await run_stray(client, make_pod, str(started.folder))
    await started.end(signal.SIGKILL)
    await eventually(lambda: not find_processes(mark), "no process left")
    await started.start()
    async with await started.client() as client:

        async def restarted() -> bool:
            found = await client.get(PODS, "stray", "default")
            (status,) = found["status"]["containerStatuses"]
            return bool(status["restartCount"] == 1 and "running" in status["state"])

        await eventually(restarted, "the container restarted")
    assert len(find_processes(mark)) >= 1
    assert await started.end(signal.SIGTERM) == 0
    await eventually(lambda: not find_processes(mark), "no process left")


async def test_a_wrong_nodes_file_is_refused_with_entry_and_field(
    started: Started, tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("nodes:\n  - name: a\n    capacity: {cpu: lots}\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beamlit_operator.devcluster"),
        *("--data-dir", str(tmp_path / "c"), "--nodes", str(nodes)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "nodes[0].capacity[cpu]: 'lots' is not a quantity" in errors.decode()
    assert "Traceback" not in errors.decode()
