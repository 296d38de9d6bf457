"""What somebody sees who fetches by hand: a bar on a terminal, lines anywhere else."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.hub import HubServer

FILES = {"model.safetensors": os.urandom(3_000_000), "config.json": b"{}"}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SHOW_CURSOR = "\x1b[?25h"


class Terminal:
    """A fetch whose standard streams are a terminal of its own."""

    def __init__(self, hub: HubServer, target: Path, *, term: str = "xterm") -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "beamlit_operator.origins", "hf://org/model"]
            command += [str(target), "--endpoint", hub.endpoint]
            environment = {**os.environ, "TERM": term, "COLUMNS": "110"}
            # Whoever runs the tests in the background has it ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(sys.executable, command, environment)
        self.text = ""

    def read(self, until: str | None = None) -> str:
        """What it has written, up to its end or until ``until`` appeared."""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while until is None or until not in self.text:
                chunk = os.read(self._master, 65536)
                if not chunk:
                    break
                self.text += chunk.decode()
        return self.text

    def code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_one_bar_moves_and_one_line_remains(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    terminal = Terminal(hub, tmp_path / "m")
    text = terminal.read()
    assert terminal.code() == 0
    frames = [ESCAPE.sub("", each).strip() for each in text.split("\r")]
    bars = [each for each in frames if " of 2 files" in each]
    assert " 0%" in bars[0]
    assert "100%" in bars[-1]
    assert "2 of 2 files" in bars[-1]
    assert "2.9/2.9 MiB" in bars[-1]
    assert not [each for each in frames if each.startswith("fetching")]
    assert frames[-2].startswith("fetched hf://org/model") or frames[-1].startswith("fetched")
    assert SHOW_CURSOR in text


def test_a_terminal_that_cannot_draw_gets_lines(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    terminal = Terminal(hub, tmp_path / "m", term="dumb")
    assert "\x1b" not in terminal.read()
    assert terminal.code() == 0


def test_an_interrupt_ends_it_at_once_and_leaves_the_terminal_as_it_was(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.add("org/model", FILES)
    hub.stall.add("model.safetensors")
    terminal = Terminal(hub, tmp_path / "m")
    terminal.read(until="1 of 2 files")
    started = time.monotonic()
    os.kill(terminal.pid, signal.SIGINT)
    text = terminal.read()
    assert terminal.code() == 130
    assert time.monotonic() - started < 30  # less than it would wait for the store
    assert text.rindex(SHOW_CURSOR) < text.rindex("interrupted")


def test_in_a_pipe_there_are_plain_lines(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    command = [sys.executable, "-m", "beamlit_operator.origins", "hf://org/model"]
    ran = subprocess.run(
        [*command, str(tmp_path / "m"), "--endpoint", hub.endpoint],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in ran.stderr
    assert "\r" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("fetched hf://org/model")


def test_what_draws_is_not_imported_where_nobody_looks() -> None:
    script = "import sys, beamlit_operator.origins.__main__; print('rich' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
