"""``beamlit demo`` keeps what it promises, from an empty folder to zero replicas again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.processes import family, none_left
from tests.support.samplestore import sample_store_address

WITHIN = 180.0
"""Seconds: the two minutes it promises, and a slow machine. The image is pulled before."""

END_WITHIN = 40.0

PROMISED = (
    "us-east-1",
    "us-only",
    "australia",
    "overridden",
    "request in",
    "scaled up from zero",
    "model files fetched",
    "model server ready",
    "answered",
    "setosa",
    "virginica",
    "in us-east-1, as policy demands",
    "added by the gateway",
    "zero replicas, zero pods",
    "everything stopped, nothing is left running",
)


@pytest.fixture
def sample_store() -> Iterator[None]:
    """The right to use the sample store's address: there is one on a machine."""
    with sample_store_address():
        yield


BEAMLIT = (sys.executable, "-m", "beamlit_operator.cli.main")

pytestmark = [
    pytest.mark.usefixtures("sample_store", "mlserver_image"),
]


@pytest.fixture(scope="module")
def mlserver_image() -> None:
    """MLServer's image is on this machine."""
    subprocess.run([*BEAMLIT, "pull"], check=True, timeout=600)


def test_the_demo_shows_what_it_promises_and_ends_with_0() -> None:
    ran = subprocess.run(
        [*BEAMLIT, "demo"], capture_output=True, text=True, check=False, timeout=WITHIN
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    missing = [text for text in PROMISED if text not in ran.stdout]
    assert not missing, ran.stdout
    # Readable where there is no terminal: no control sequences, no log lines.
    assert "\x1b" not in ran.stdout
    assert ran.stderr == ""


@contextmanager
def demo_under_way(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[int, str]]]:
    """A demo whose cluster runs, with all its processes."""
    with subprocess.Popen(
        [*BEAMLIT, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "cluster, operator, gateway and S3 store run" in line:
                    break
            yield process, family(process.pid)
        finally:
            process.terminate()


@pytest.mark.long
def test_a_part_that_dies_fails_the_demo_which_says_so_and_keeps_the_logs(tmp_path: Path) -> None:
    with demo_under_way(tmp_path) as (process, processes):
        operator = next(p for p, c in processes.items() if "beamlit_operator.controllers" in c)
        os.kill(operator, signal.SIGKILL)
        _, errors = process.communicate(timeout=END_WITHIN)
        assert process.returncode == 1
    assert "beamlit: the operator was killed by signal 9" in errors
    (logs,) = tmp_path.glob("beamlit-demo-*/logs")
    assert f"The logs are kept in {logs}" in errors
    none_left(processes, within=20)


@pytest.mark.long
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path) -> None:
    with demo_under_way(tmp_path) as (process, processes):
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=END_WITHIN)
        assert process.returncode == 130, out + errors
    assert "nothing is left running" in out
    none_left(processes, within=20)
