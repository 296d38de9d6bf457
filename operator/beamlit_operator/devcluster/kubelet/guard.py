"""Ends every pod process when the cluster's process ends, however that happens.

This file is also a program: a tiny child of the cluster that reads process group numbers from its
standard input and, when that closes, kills them all. So nothing survives a SIGKILL of the cluster.
Children that left their group are found by a mark in their environment, where ``/proc`` exists.
It must import nothing but the standard library's core: it starts with ``python -I -S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time

MARK = "BEAMLIT_CLUSTER_PROCESS"
"""Environment variable in every process of a pod: the cluster's token, then the container's."""


class Guard:
    """The cluster's side of the guard."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts the guarding process, in a session of its own so that Ctrl-C spares it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            __file__,
            self.token,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """Takes a process group under guard."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group has ended; its number may be somebody else's soon."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(line.encode())

    async def stop(self) -> None:
        """Lets the guard do its work for what is left, and waits for it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()


def kill_group(group: int, signal_number: int = signal.SIGKILL) -> None:
    """Signals a process group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal_number)


def kill_marked(mark: str) -> int:
    """Kills every process whose mark begins with ``mark``; returns how many there were."""
    needle = f"{MARK}={mark}".encode()
    found = 0
    try:
        entries = os.listdir("/proc")
    except OSError:
        return 0
    for entry in entries:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if not any(part.startswith(needle) for part in file.read().split(b"\0")):
                    continue
            os.kill(int(entry), signal.SIGKILL)
            found += 1
        except OSError:
            continue
    return found


def main(token: str) -> None:
    """Reads groups until the cluster is gone, then kills them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        kill_group(group)
    # A process may fork while the others are looked for: until nothing is found.
    for _ in range(50):
        if not kill_marked(token):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
