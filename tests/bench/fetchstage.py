"""The servers and the programs of ``make bench-fetch``: how they are started, timed and asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gatewaystage import free_port
from tests.support.hub import HubServer

TOOLS = Path(__file__).parents[2] / "build" / "fetchtools" / "bin"
"""Where ``make bench-fetch`` puts the programs to compare with."""

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-example"}
REPO = "org/model"

# A process starts with the peak memory of the one that it was forked from (getrusage(2)). So there
# is a small one in between, which also takes the time.
_LAUNCHER = """
import os, sys, time
report, *command = sys.argv[1:]
started = time.perf_counter()
pid = os.posix_spawn(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - started
with open(report, "w") as file:
    file.write(f"{os.waitstatus_to_exitcode(status)} {seconds} {usage.ru_maxrss}")
"""


@dataclass(frozen=True)
class Run:
    """One program, once: how long it took, and the most memory it had."""

    seconds: float
    mebibytes: float


class ProgramFailedError(Exception):
    """A program of the comparison ended with an error; what it said is in the message."""


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> Run:
    """Runs a program to its end.

    Raises:
        ProgramFailedError: it failed.
    """
    program = shutil.which(command[0]) or str(command[0])
    with tempfile.TemporaryFile() as said, tempfile.NamedTemporaryFile("r") as report:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, report.name, program]
        subprocess.run(
            [*launcher, *(str(part) for part in command[1:])],
            env={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), **environment},
            stdout=said,
            stderr=said,
            check=True,
        )
        code, seconds, kibibytes = report.read().split()
        if code != "0":
            said.seek(0)
            words = said.read().decode(errors="replace")[-2000:]
            raise ProgramFailedError(f"{command[0]} ended with {code}: {words}")
    return Run(float(seconds), int(kibibytes) / 1024)


def ours(uri: str, into: Path, endpoint: str) -> list[str | Path]:
    command = [sys.executable, "-m", "beamlit_operator.origins", uri, into]
    return [*command, "--endpoint", endpoint]


def aws(uri: str, into: Path, endpoint: str) -> list[str | Path]:
    command = [TOOLS / "aws", "--endpoint-url", endpoint, "s3", "cp", uri, into]
    return [*command, "--recursive", "--quiet"]


def aws_variables() -> dict[str, str]:
    return {**KEYS, "AWS_REGION": "us-east-1"}


class _Served:
    """A directory that ``rclone`` serves in a process of its own, from the page cache."""

    def __init__(self, protocol: str, folder: Path, *options: str) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        address = ("--addr", f"127.0.0.1:{port}", "--config", "")
        self._process = subprocess.Popen(
            [str(TOOLS / "rclone"), "serve", protocol, *address, *options, str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def sent(self) -> int:
        """Bytes it has written to its callers so far (proc_pid_io(5); it writes nothing else)."""
        lines = Path(f"/proc/{self._process.pid}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("wchar")).split()[1])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Store(_Served):
    """An S3 server over a directory."""

    def __init__(self, folder: Path) -> None:
        keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
        super().__init__("s3", folder, "--auth-key", keys, "--etag-hash", "MD5")


@contextmanager
def stored(folder: Path) -> Iterator[Store]:
    """A store, once it has computed the digests that are the ETags; it keeps them."""
    store = Store(folder)
    listing = ["s3", "ls", "--recursive", "s3://models"]
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                run([TOOLS / "aws", "--endpoint-url", store.endpoint, *listing], aws_variables())
                break
            except ProgramFailedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield store
    finally:
        store.stop()


@contextmanager
def hub_stored(folder: Path, files: Mapping[str, bytes], *, large: str) -> Iterator[str]:
    """A Hub with one repository; yields its endpoint. As the real one it has its large file served
    by a content network, which is a program of its own here, so that no Python is in the way."""
    with HubServer() as hub:
        commit = hub.add(REPO, dict(files))
        target = folder / "large" / REPO / "-" / commit / large
        target.parent.mkdir(parents=True)
        target.write_bytes(files[large])
        network = _Served("http", folder)
        hub.content_network = network.endpoint
        try:
            yield hub.endpoint
        finally:
            network.stop()


def settled(store: Store) -> int:
    """What the store has sent, once it stopped: it notices a little later that a caller died."""
    last, now = -1, store.sent()
    while now != last:
        time.sleep(0.03)
        last, now = now, store.sent()
    return now
