"""A fetch that is told to end while a store keeps it waiting ends at once, and is gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.flakystore import FlakyStore
from tests.support.webstore import WebStore

from .conftest import KEYS

PART = 16 * 2**20
CONTENT = os.urandom(2 * PART)  # two ranges, of which either may be asked for first
ENDS = pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])

# Of a shell's job in the background a child inherits that interrupts are ignored.
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from beamlit_operator.origins.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def held(s3: Any, s3_endpoint: str) -> Iterator[tuple[FlakyStore, threading.Event]]:
    """A store that sends one range only, until it is told to go on."""
    s3.put_object(Bucket="models", Key="m/weights", Body=CONTENT)
    go_on = threading.Event()
    with FlakyStore(s3_endpoint) as store:
        store.before_get = lambda number: number == 1 or go_on.wait(120)
        try:
            yield store, go_on
        finally:
            go_on.set()


@contextmanager
def fetching(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        env={**os.environ, **KEYS, "AWS_REGION": "us-east-1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def noted(directory: Path) -> int:
    """Blocks of the model that the next fetch does not bring again."""
    records = directory.glob(".beamlit/work-*/parts/*.done")
    return sum(record.read_text().count("\n") for record in records)


def wait_for(process: subprocess.Popen[str], directory: Path, *, blocks: int) -> None:
    deadline = time.monotonic() + 60
    while noted(directory) < blocks:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{noted(directory)} blocks are there"
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], told: signal.Signals) -> tuple[int, str]:
    """The code and the words of a process that gets a signal, which it must not keep waiting."""
    started = time.monotonic()
    process.send_signal(told)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 12, "it waited for the store, which is given 20 s"
    return process.returncode, said


@ENDS
def test_a_fetch_from_s3_ends_at_once_and_the_next_goes_on(
    held: tuple[FlakyStore, threading.Event], tmp_path: Path, told: signal.Signals, code: int
) -> None:
    store, go_on = held
    command = ("s3://models/m", tmp_path / "m", "--endpoint", store.endpoint)
    with fetching(*command) as process:
        wait_for(process, tmp_path / "m", blocks=16)
        status, said = ended(process, told)

    assert status == code
    assert "interrupted; the next call goes on where this one was" in said
    assert "Traceback" not in said
    assert not (tmp_path / "m/weights").exists()
    go_on.set()
    asked = store.gets
    with fetching(*command) as again:
        _, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
    assert (tmp_path / "m/weights").read_bytes() == CONTENT
    assert store.gets - asked == 1, "one range was there"


@ENDS
def test_a_fetch_from_a_web_server_ends_at_once(
    tmp_path: Path, told: signal.Signals, code: int
) -> None:
    with WebStore(files={"weights": CONTENT}, stall_at=[2 * 2**20]) as store:
        digest = "00" * 32
        with fetching(store.url("weights"), tmp_path, "--sha256", digest) as process:
            wait_for(process, tmp_path, blocks=1)
            status, said = ended(process, told)
    assert status == code
    assert "interrupted" in said
    assert "Traceback" not in said
