"""How much cpu and memory the pods' processes use, from ``/proc``.

A container is the process it began as, all of its session, and all descendants of these. Cpu is
what they and the children they waited for have used; memory is what is theirs alone (resident
without shared pages), which is close to what a cgroup's working set is. A process that leaves the
session and whose parents end is not counted. Nothing is measured unless somebody asks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.devcluster.timestamps import now_utc
from beamlit_operator.devcluster.usage import PodUse, Use
from beamlit_operator.kube import ObjectKey

PROC = Path("/proc")

LONGEST_WINDOW = 40.0
"""Seconds: an older measurement says nothing of now, and a new one is made."""

SHORTEST_WINDOW = 1.0
"""Seconds: what was measured less long ago is the answer still; the kernel counts hundredths."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``/proc/PID/stat``: seconds of cpu, with those of children waited for."""

    pid: int
    parent: int
    session: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one container, at one moment."""

    at: float
    cpu_seconds: float
    bytes: int


Pids = Mapping[ObjectKey, Mapping[str, int]]
"""The first process of every container that runs, by pod and name."""


class UsageMeter:
    """Measures on demand; a :data:`~beamlit_operator.devcluster.usage.UsageProvider`."""

    def __init__(
        self,
        pids: Callable[[], Pids],
        *,
        proc: Path = PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pids = pids
        self._proc = proc
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: dict[int, Counters] = {}
        self._answer: dict[ObjectKey, PodUse] = {}
        self._answered = -LONGEST_WINDOW

    async def __call__(self) -> Mapping[ObjectKey, PodUse]:
        """The use of every pod that runs; empty where there is no ``/proc``."""
        async with self._lock:
            if self._clock() - self._answered >= SHORTEST_WINDOW:
                self._answer = await self._measure()
                self._answered = self._clock()
            return self._answer

    async def _measure(self) -> dict[ObjectKey, PodUse]:
        pods = self._pids()
        wanted = {pid for containers in pods.values() for pid in containers.values()}
        now = await self._read(wanted)
        before = {
            pid: seen
            for pid, seen in self._last.items()
            if pid in now
            and seen.cpu_seconds <= now[pid].cpu_seconds
            and now[pid].at - seen.at <= LONGEST_WINDOW
        }
        if now.keys() - before.keys():
            # A rate needs two looks; whoever was looked at before keeps the longer window.
            before = {**now, **before}
            await asyncio.sleep(SHORTEST_WINDOW)
            now = await self._read(wanted)
        self._last = now
        moment, found = now_utc(), {}
        for pod, containers in pods.items():
            if containers and all(pid in now and pid in before for pid in containers.values()):
                first = next(iter(containers.values()))
                found[pod] = PodUse(
                    moment,
                    now[first].at - before[first].at,
                    {name: _use(before[pid], now[pid]) for name, pid in containers.items()},
                )
        return found

    async def _read(self, pids: set[int]) -> dict[int, Counters]:
        if not pids:
            return {}
        return await asyncio.to_thread(counters, pids, proc=self._proc, now=self._clock())


def _use(before: Counters, now: Counters) -> Use:
    # Less than before: a process that nobody waited for took its seconds along.
    used = max(now.cpu_seconds - before.cpu_seconds, 0.0)
    return Use(used / max(now.at - before.at, 1e-3), now.bytes)


def counters(pids: Iterable[int], *, proc: Path = PROC, now: float) -> dict[int, Counters]:
    """What the containers that began with these processes have used; those that ended are left
    out."""
    processes = {each.pid: each for each in _processes(proc)}
    children: defaultdict[int, list[int]] = defaultdict(list)
    sessions: defaultdict[int, list[int]] = defaultdict(list)
    for each in processes.values():
        children[each.parent].append(each.pid)
        sessions[each.session].append(each.pid)
    found = {}
    for pid in pids:
        if pid not in processes:
            continue
        members, waiting = {pid}, [pid, *sessions[pid]]
        while waiting:
            member = waiting.pop()
            members.add(member)
            waiting += (child for child in children[member] if child not in members)
        found[pid] = Counters(
            now,
            sum(processes[each].cpu_seconds for each in members),
            sum(_own_bytes(proc, each) for each in members),
        )
    return found


def _processes(proc: Path) -> Iterable[Process]:
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        entries = os.listdir(proc)
    except OSError:
        return
    for entry in entries:
        if not entry.isdigit():
            continue
        try:
            text = (proc / entry / "stat").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        # The name in parentheses may hold anything. man 5 proc: state, ppid, pgrp, session, ...,
        # utime, stime, cutime and cstime are fields 14 to 17.
        fields = text[text.rindex(b")") + 2 :].split()
        cpu = sum(int(field) for field in fields[11:15]) / ticks
        yield Process(int(entry), int(fields[1]), int(fields[3]), cpu)


def _own_bytes(proc: Path, pid: int) -> int:
    try:
        resident, shared = (proc / str(pid) / "statm").read_bytes().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
