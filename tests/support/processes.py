"""Processes of this machine: which are there, and that they are gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from beamlit_operator.cli.processes import descendants


def family(pid: int) -> dict[int, str]:
    """A process and everything below it, with their command lines."""
    found = {}
    for each in (pid, *descendants(pid)):
        try:
            words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        found[each] = b" ".join(words).decode(errors="replace")[:200]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object], *, within: float, state: Callable[[], str]) -> None:
    """Waits for a condition, and says how things stand when the deadline passes."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.05)


def none_left(processes: dict[int, str], *, within: float) -> None:
    """Waits until all these processes are gone."""
    wait_until(
        lambda: not any(map(is_alive, processes)),
        within=within,
        state=lambda: f"still there: { {p: c for p, c in processes.items() if is_alive(p)} }",
    )
