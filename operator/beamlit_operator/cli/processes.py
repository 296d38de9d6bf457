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
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 10.0
"""Seconds a program has to end by itself before it is killed."""

REVIVALS, WITHIN = 5, 60.0
"""A kept program may end so often within so many seconds; once more, and it counts as broken."""

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
    """Starts programs and ends them in reverse order. Their output goes to ``logs/NAME.log``.

    A program that ends by itself ends the work (`while_running`), unless it is to be kept.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._told: Callable[[ProgramDiedError], None] = lambda _: None
        # When each program that is kept was started again, monotonic seconds.
        self._kept: dict[str, deque[float]] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._exits: dict[str, asyncio.Task[None]] = {}
        self._a_death = asyncio.Event()
        self._death: ProgramDiedError | None = None
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of every program that runs."""
        return {name: process.pid for name, process in self._running.items()}

    def log_of(self, name: str) -> Path:
        """The file a program's output goes to."""
        return self._logs / f"{name}.log"

    async def start(self, program: Program) -> None:
        """Starts a program; returns at once.

        Raises:
            OSError: it cannot be executed.
        """
        process = await self._spawn(program, mode="wb")
        self._running[program.name] = process
        self._exits[program.name] = asyncio.create_task(self._follow(program, process))

    def keep(self, *names: str, told: Callable[[ProgramDiedError], None]) -> None:
        """From now on these are started again when they end, as a cluster would do.

        ``told`` hears of each such end.
        """
        self._told = told
        self._kept.update({name: deque(maxlen=REVIVALS) for name in names})

    async def _spawn(self, program: Program, *, mode: str) -> asyncio.subprocess.Process:
        with self.log_of(program.name).open(mode) as log:
            return await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **program.env},
                start_new_session=True,
                preexec_fn=_end_with_parent(os.getpid()),
            )

    async def _follow(self, program: Program, process: asyncio.subprocess.Process) -> None:
        name = program.name
        while True:
            status = await process.wait()
            if name not in self._running or self._death is not None:
                return
            death = ProgramDiedError(name, status, log=self.log_of(name))
            if not self._is_revived(name):
                self._death = death
                self._a_death.set()
                return
            _kill_group(process)
            process = await self._spawn(program, mode="ab")
            if name not in self._running:
                # Everything was stopped while it started.
                _kill_group(process)
                await process.wait()
                return
            self._running[name] = process
            self._told(death)

    def _is_revived(self, name: str) -> bool:
        revivals = self._kept.get(name)
        if revivals is None:
            return False
        now = time.monotonic()
        often = len(revivals) == REVIVALS and now - revivals[0] < WITHIN
        revivals.append(now)
        return not often

    async def while_running(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work, which is cancelled when one of the programs ends.

        Raises:
            ProgramDiedError: one did.
        """
        task = asyncio.create_task(work)
        death = asyncio.create_task(self._a_death.wait())
        try:
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            death.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        # The death explains whatever the work ran into because of it.
        if self._death is not None:
            if not task.cancelled():
                task.exception()
            raise self._death
        return task.result()

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
            _kill_group(process)
            await exited


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


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
        for pid in descendants(os.getpid()):
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


def descendants(root: int) -> set[int]:
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
