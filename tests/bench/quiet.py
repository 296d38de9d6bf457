"""Rounds that count only when the machine was quiet: other processes distort what is measured.

Reads Linux' /proc: the busy time of the machine, less that of the processes under measurement.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TICKS = os.sysconf("SC_CLK_TCK")
MOST_FOREIGN = 0.1
"""Cores that other processes may use during a round that counts."""


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used."""
    total = 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_megabytes(pid: int) -> float:
    """Memory that only this process uses (private pages), in MiB."""
    private = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            private += int(line.split()[1])
    return private / 1024


def quiet_round(work: Callable[[], T], *, root: int, tries: int = 5) -> tuple[T, bool]:
    """Runs ``work`` until a run was undisturbed, at most ``tries`` times.

    Returns the last result, and whether its round was quiet.
    """
    for attempt in range(1, tries + 1):
        busy, own, started = _busy_seconds(), _own_seconds(root), time.monotonic()
        result = work()
        elapsed = time.monotonic() - started
        foreign = (_busy_seconds() - busy) - (_own_seconds(root) - own)
        quiet = foreign / elapsed <= MOST_FOREIGN
        if quiet or attempt == tries:
            return result, quiet
    raise AssertionError("tries must be at least 1")


def _own_seconds(root: int) -> float:
    """What the process and its descendants have used, those included that have ended since."""
    fields = _stat(root)
    ended = (int(fields[13]) + int(fields[14])) / TICKS if fields else 0.0
    return cpu_seconds(tree(root)) + ended


def _busy_seconds() -> float:
    numbers = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(n) for n in numbers)
    return (user + nice + system + irq + softirq) / TICKS


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (the name may hold spaces)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
