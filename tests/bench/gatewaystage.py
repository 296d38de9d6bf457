"""What the gateway's benchmarks run: an API server full of deployments, and a real gateway."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.inventory import Inventory
from tests.bench.quiet import tree

from beamlit_operator.gateway.process import find_envoy

PROXY_CORE, OTHER_CORE = 0, 1
"""What is measured has a core of its own; callers, pods and the agent share the other."""

PREDICTION = json.dumps({"outputs": [{"name": "predict", "shape": [1], "data": [2]}]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pin(pid: int, core: int) -> None:
    """Keeps all threads of a process on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    wanted = {cores[core % len(cores)]}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), wanted)


@contextlib.contextmanager
def process(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the block, and killed if it does not end."""
    with subprocess.Popen([str(part) for part in command], text=True, **options) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def wait_for(url: str, running: subprocess.Popen[str], *, within: float = 120.0) -> None:
    """Until ``url`` answers 200.

    Raises:
        RuntimeError: the process ended, or the time passed.
    """
    end = time.monotonic() + within
    while time.monotonic() < end:
        if running.poll() is not None:
            raise RuntimeError(f"{running.args} ended with {running.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise RuntimeError(f"{url} did not answer within {within} s")


def envoy(config: dict[str, Any], folder: Path, name: str) -> list[str | Path]:
    """The command that runs Envoy with one thread and a static configuration."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    options = ["--config-path", path, "--concurrency", "1", "--disable-hot-restart"]
    return [find_envoy(), *options, "--log-level", "error"]


def http_filter(name: str, **fields: Any) -> dict[str, Any]:
    """One of Envoy's HTTP filters; ``name`` is the last part of its package, then its message."""
    kind = f"type.googleapis.com/envoy.extensions.filters.http.{name}"
    return {"name": name, "typed_config": {"@type": kind, **fields}}


ROUTER = http_filter("router.v3.Router")
WHOLE_BODY = http_filter("buffer.v3.Buffer", max_request_bytes=2**20)
"""Answers once the body is there. Envoy else answers at once, and closes the connection."""


def listener(
    port: int, route: dict[str, Any], *, filters: Sequence[dict[str, Any]] = (ROUTER,)
) -> dict[str, Any]:
    """An HTTP listener with one route for everything."""
    extensions = "type.googleapis.com/envoy.extensions.filters"
    return {
        "name": "main",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "http",
                        "typed_config": {
                            "@type": f"{extensions}.network.http_connection_manager.v3"
                            ".HttpConnectionManager",
                            "stat_prefix": "main",
                            "route_config": {
                                "virtual_hosts": [
                                    {
                                        "name": "all",
                                        "domains": ["*"],
                                        "routes": [{"match": {"prefix": "/"}, **route}],
                                    }
                                ]
                            },
                            "http_filters": list(filters),
                        },
                    }
                ]
            }
        ],
    }


@contextlib.contextmanager
def model_server(folder: Path, *, answer: str = PREDICTION) -> Iterator[tuple[str, int]]:
    """A pod that answers at once: compiled, so that it is never what is measured.

    ``{port}`` in the answer is the pod's own.
    """
    port = free_port()
    body = {"inline_string": answer.replace("{port}", str(port))}
    route = {"direct_response": {"status": 200, "body": body}}
    config = {
        "static_resources": {"listeners": [listener(port, route, filters=(WHOLE_BODY, ROUTER))]}
    }
    with process(envoy(config, folder, "model-server")) as running:
        wait_for(f"http://127.0.0.1:{port}/", running)
        pin(running.pid, OTHER_CORE)
        yield "127.0.0.1", port


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """One gateway: its addresses, processes, and how long it took to be ready."""

    address: str
    agent_address: str
    pid: int
    ready_seconds: float
    kubeconfig: Path
    inventory: Inventory

    @property
    def envoy_pid(self) -> int:
        for pid in tree(self.pid)[1:]:
            if Path(f"/proc/{pid}/comm").read_text().strip().startswith("envoy"):
                return pid
        raise RuntimeError("the gateway's Envoy does not run")


@contextlib.contextmanager
def api_server(inventory: Inventory, upstream: tuple[str, int]) -> Iterator[Path]:
    """An API server that holds the inventory; answers its kubeconfig."""
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-api-") as name:
        command = [sys.executable, "-m", "tests.bench.apionly", name]
        command += [str(inventory.count), str(inventory.awake), f"{upstream[0]}:{upstream[1]}"]
        with process(command, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            if running.stdout.readline().strip() != "ready":
                raise RuntimeError("the API server could not be filled")
            yield Path(name) / "kubeconfig"


@contextlib.contextmanager
def gateway(
    kubeconfig: Path, inventory: Inventory, *, pinned: bool = True, authentication: bool = False
) -> Iterator[RunningGateway]:
    """A gateway as ``beamlit dev`` runs it, with one Envoy thread."""
    ports = {name: free_port() for name in ("listen", "admin", "xds-listen", "envoy-admin")}
    command = [sys.executable, "-m", "beamlit_operator.gateway", "--kubeconfig", str(kubeconfig)]
    for name, port in ports.items():
        command += [f"--{name}", f"127.0.0.1:{port}"]
    command += ["--concurrency", "1", "--drain-time", "1", "--drain-delay", "0"]
    command += ["--log-level", "error"]
    if authentication:
        command += ["--authentication", "--authentication-listen", f"127.0.0.1:{free_port()}"]
    started = time.monotonic()
    with process(command) as running:
        agent = f"http://127.0.0.1:{ports['admin']}"
        wait_for(f"{agent}/readyz", running)
        found = RunningGateway(
            f"http://127.0.0.1:{ports['listen']}",
            agent,
            running.pid,
            time.monotonic() - started,
            kubeconfig,
            inventory,
        )
        if pinned:
            pin(found.envoy_pid, PROXY_CORE)
            pin(found.pid, OTHER_CORE)
        yield found
