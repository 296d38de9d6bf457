"""The whole system as processes that a test may kill: cluster, gateway, operator, S3 store."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import boto3
from moto.server import ThreadedMotoServer
from tests.support.hub import HubServer
from tests.support.ports import free_port
from tests.support.processes import is_alive

from beamlit_operator.cli.processes import descendants

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("modelserver.py")
ACCESS_KEY, SECRET_KEY = "testing", "testing-secret"
START_WITHIN = 120.0

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Stack:
    """Everything that ``beamlit dev`` runs, each part under a name, to be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "cluster" / "kubeconfig"
        self.operator_kubeconfig = self.gateway_kubeconfig = self.kubeconfig
        self.cluster_flags: tuple[str, ...] = ()
        self.gateway_flags: tuple[str, ...] = ()
        self.caller_headers: dict[str, str] = {}
        # Workspaces with a claim of that name have a cache, in which nothing stays that is unused.
        cache = ("--cache-claim", "cache", "--cache-limit", "0", "--cache-tidy-pause", "1")
        self.operator_flags: tuple[str, ...] = ("--no-leader-election", *cache)
        self._gateway_port, self._admin_port, self._operator_port = (free_port() for _ in range(3))
        self.operator = f"http://127.0.0.1:{self._operator_port}"
        self._xds_port, self._envoy_port = free_port(), free_port()
        self.gateway = f"http://127.0.0.1:{self._gateway_port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.store = ""
        self.hub = HubServer()

    def start(self) -> None:
        self.start_stores()
        self.start_cluster()
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            self.kubectl("apply", "-f", str(crd))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self.prepare()
        self.start_gateway()
        self.start_operator()

    def start_stores(self) -> None:
        """Where models come from: an S3 store with one of them, and a Hub."""
        self._store.start()
        host, port = self._store.get_host_and_port()
        self.store = f"http://{host}:{port}"
        self.s3().create_bucket(Bucket="models")
        self.s3().upload_file(str(SERVER), "models", "tiny/server.py")
        self.hub.__enter__()

    def start_cluster(self) -> None:
        data = str(self.folder / "cluster")
        quick = ("--autoscaler-sync", "1")
        self._spawn("cluster", "devcluster", "--data-dir", data, *quick, *self.cluster_flags)
        self.until(self.kubeconfig.exists, "the API server")

    def prepare(self) -> None:
        """What has to be in the cluster before anything of ours runs; for subclasses."""

    def stop(self) -> None:
        started = {
            pid
            for process in self._processes.values()
            if process.poll() is None
            for pid in (process.pid, *descendants(process.pid))
        }
        # The operator first, so that it does not report what ends; what pods run in last.
        order = {"operator": 0, "cluster": 2}
        for name in sorted(self._processes, key=lambda name: order.get(name, 1)):
            process = self._processes[name]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._store.stop()
        if self.hub.endpoint:
            self.hub.__exit__()
        # Not counted: what has ended and waits for process 1, which it fell to, to notice.
        self.left_over = [pid for pid in started if is_alive(pid)]

    def start_gateway(self) -> None:
        self._spawn(
            "gateway",
            "gateway",
            *("--kubeconfig", str(self.gateway_kubeconfig)),
            *("--listen", f"127.0.0.1:{self._gateway_port}"),
            *("--admin", f"127.0.0.1:{self._admin_port}"),
            *("--xds-listen", f"127.0.0.1:{self._xds_port}"),
            *("--envoy-admin", f"127.0.0.1:{self._envoy_port}"),
            *("--drain-time", "1", "--drain-delay", "0", "--start-deadline", "60"),
            *self.gateway_flags,
        )
        self.until(lambda: answers(f"http://127.0.0.1:{self._admin_port}/readyz"), "the gateway")

    def start_operator(self) -> None:
        self.spawn_operator()
        self.until_operator()

    def spawn_operator(self) -> None:
        """Starts the operator and does not wait for it."""
        self._spawn(
            "operator",
            "controllers",
            *("--kubeconfig", str(self.operator_kubeconfig), "--gateway-url", self.gateway),
            *("--gateway-load", f"http://127.0.0.1:{self._admin_port}/load"),
            *("--listen", f"127.0.0.1:{self._operator_port}", *self.operator_flags),
            *("--scale-to-zero-grace", "2"),
            *("--hub-endpoint", self.hub.endpoint),
        )

    def until_operator(self) -> None:
        self.until(
            lambda: answers(f"http://127.0.0.1:{self._operator_port}/readyz"), "the operator"
        )

    def metrics(self, name: str) -> str:
        """What Prometheus would read of the gateway or the operator."""
        port = {"gateway": self._admin_port, "operator": self._operator_port}[name]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return str(response.read().decode())

    def kill(self, name: str) -> None:
        """Ends a part without warning, as an out-of-memory kill would."""
        self._processes[name].kill()
        self._processes[name].wait()

    def end(self, name: str) -> None:
        """Ends a part as Kubernetes ends a pod."""
        self._processes[name].terminate()
        self._processes[name].wait(30)

    def pid(self, name: str) -> int:
        """The process of a part."""
        return self._processes[name].pid

    def is_down(self, name: str) -> bool:
        return self._processes[name].poll() is not None

    def s3(self):
        return boto3.client(
            "s3",
            endpoint_url=self.store,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + START_WITHIN
        while not condition():
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            assert not dead, f"{dead} ended while waiting for {what}:{self.logs()}"
            assert time.monotonic() < deadline, f"{what} is not there:{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """The ends of all logs, to print when something is wrong."""
        return "".join(
            f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}"
            for log in sorted(self.folder.glob("*.log"))
        )

    def _spawn(self, name: str, module: str, *arguments: str) -> None:
        self.spawn(name, sys.executable, "-m", f"beamlit_operator.{module}", *arguments)

    def spawn(self, name: str, *command: str) -> None:
        """Starts a part, which ends with this process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )


S = TypeVar("S", bound=Stack)


@contextmanager
def running_stack(folder: Path, kind: type[S] = Stack) -> Iterator[S]:
    """A stack until the end of the block; fails when a process of it is left afterwards."""
    stack = kind(folder)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
    assert not stack.left_over, f"processes are left: {stack.left_over}"
