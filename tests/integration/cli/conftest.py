"""A cluster as ``beamlit dev`` starts it, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.processes import family, wait_until
from tests.support.samplestore import sample_store_address

BEAMLIT = (sys.executable, "-m", "beamlit_operator.cli.main")
START_WITHIN = 120.0
END_WITHIN = 60.0
PULL_WITHIN = 600.0


@dataclass
class Dev:
    """A running ``beamlit dev``."""

    process: subprocess.Popen[str]
    folder: Path
    screen: Path
    """What it printed."""

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "140"}

    def run(self, *command: str, within: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs a command against the cluster."""
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=within,
        )

    def done(self, *command: str, within: float = 120.0) -> str:
        """Runs a command that must succeed; returns what it printed."""
        ran = self.run(*command, within=within)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}{self.logs()}"
        return ran.stdout

    def logs(self) -> str:
        """The ends of all logs, to print when something is wrong."""
        logs = [self.screen, *sorted((self.folder / "logs").glob("*.log"))]
        return "".join(f"\n--- {log}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def processes(self) -> dict[int, str]:
        """Everything that it started, itself included, with its command line."""
        return family(self.process.pid)


@contextmanager
def running_dev(folder: Path, *flags: str) -> Iterator[Dev]:
    """``beamlit dev`` until the end of the block, at the latest."""
    screen = folder.with_suffix(".screen")
    with screen.open("w") as out:
        process = subprocess.Popen(
            [*BEAMLIT, "dev", "--data-dir", str(folder), "--gateway-port", "0", *flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    dev = Dev(process, folder, screen)
    try:
        wait_until(
            lambda: "ready in" in screen.read_text() or process.poll() is not None,
            within=START_WITHIN,
            state=dev.logs,
        )
        assert process.poll() is None, dev.logs()
        yield dev
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_WITHIN)
        finally:
            process.kill()


@pytest.fixture
def sample_store() -> Iterator[None]:
    """The right to use the sample store's address: there is one on a machine."""
    with sample_store_address():
        yield


@pytest.fixture(scope="session")
def mlserver_image() -> None:
    """MLServer's image is on this machine."""
    subprocess.run([*BEAMLIT, "pull"], check=True, timeout=PULL_WITHIN)
