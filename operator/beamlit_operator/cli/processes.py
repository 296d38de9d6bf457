"""Runs programs for as long as this one runs: none is left behind, whatever ends it.

Each program is a process group of its own, so that Ctrl-C in a terminal reaches only us and we end
them in order. On Linux the kernel ends them when we are killed (``PR_SET_PDEATHSIG``), and what
they leave behind becomes our child (``PR_SET_CHILD_SUBREAPER``), so that it can be ended too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

GRACE = 10.0
"""Seconds a program has to end by itself before it is killed."""

TAIL_LINES = 15
"""Lines of a dead program's log that are shown."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to run; ``env`` is added to our own environment."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class ProgramDiedError(Exception):
    """A program ended that should have kept running."""

    def __init__(self, name: str, status: int, *, log: Path) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"the {name} {how}")
        self.name = name
        self.status = status
        self.log = log

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its log."""
        return last_lines(self.log)


class Supervisor:
    """Starts programs and ends them in reverse order. Their output goes to ``logs/NAME.log``."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._exits: dict[str, asyncio.Task[int]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of every program that was started."""
        return {name: process.pid for name, process in self._running.items()}

    def log_of(self, name: str) -> Path:
        """The file a program's output goes to."""
        return self._logs / f"{name}.log"

    async def start(self, program: Program) -> None:
        """Starts a program; returns at once.

        Raises:
            OSError: it cannot be executed.
        """
        with self.log_of(program.name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **program.env},
                start_new_session=True,
                preexec_fn=_end_with_parent(os.getpid()),
            )
        self._running[program.name] = process
        self._exits[program.name] = asyncio.create_task(process.wait())

    async def wait(self) -> None:
        """Waits until one of the programs ends, which none should.

        Raises:
            ProgramDiedError: one did.
        """
        if not self._exits:
            return
        done, _ = await asyncio.wait(self._exits.values(), return_when=asyncio.FIRST_COMPLETED)
        self._raise_for(done)

    def check(self) -> None:
        """Raises :class:`ProgramDiedError` if one of the programs has ended."""
        self._raise_for({task for task in self._exits.values() if task.done()})

    def _raise_for(self, done: set[asyncio.Task[int]]) -> None:
        for name, task in self._exits.items():
            if task in done:
                raise ProgramDiedError(name, task.result(), log=self.log_of(name))

    async def until(self, condition: Callable[[], object], *, what: str, within: float) -> None:
        """Waits until ``condition()`` holds, while every program runs.

        Raises:
            ProgramDiedError: a program ended first.
            TimeoutError: it did not hold within that many seconds.
        """
        deadline = time.monotonic() + within
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {within:g} s")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends every program, the last started first, and its whole process group."""
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            exited = self._exits.pop(name)
            with contextlib.suppress(ProcessLookupError):
                if process.returncode is None:
                    process.terminate()
            await asyncio.wait({exited}, timeout=GRACE)
            # Its session may hold more than itself; when it is gone this finds nothing.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await exited


def last_lines(log: Path) -> tuple[str, ...]:
    """The last lines of a log file, none if it is not there."""
    try:
        with log.open(errors="replace") as lines:
            return tuple(line.rstrip() for line in deque(lines, maxlen=TAIL_LINES))
    except OSError:
        return ()


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """What the new process does before it becomes the program: asks to end when we do."""
    if _libc is None:
        return None
    prctl = _libc.prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # We may have died before the request was made.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


def adopt_orphans() -> None:
    """From now on, processes whose parent dies below us become our children (Linux only)."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(*, within: float = 5.0) -> tuple[int, ...]:
    """Kills every process below this one and waits for them; returns those that were killed.

    For the very end of a command that called :func:`adopt_orphans`: nothing may be left.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            time.sleep(0.02)
    return tuple(sorted(killed))


def _descendants(root: int) -> set[int]:
    """The live processes below ``root``, from /proc; zombies are not counted."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name may hold spaces and parentheses: the state and parent follow the last one.
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.parent.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found
