"""The cluster's side of the guard, which ends every pod process however the cluster ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from beamlit_operator.devcluster.kubelet import guard_program


class Guard:
    """Starts the guarding process and tells it what to guard; see ``guard_program``."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it in a session of its own, so that Ctrl-C spares it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            guard_program.__file__,
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
