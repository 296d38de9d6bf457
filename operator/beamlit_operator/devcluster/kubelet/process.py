"""One container attempt as a process group of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from beamlit_operator.devcluster.kubelet.guard import MARK, Guard, kill_group
from beamlit_operator.devcluster.kubelet.logs import ContainerLog

READ_SIZE = 64 * 1024


class StartError(Exception):
    """The program could not be started; the text is what the runtime would say."""


class ContainerProcess:
    """A running program whose output goes to a log. Create it with :meth:`start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, guard: Guard, drained: asyncio.Future[None]
    ) -> None:
        self._process = process
        self._guard = guard
        self._drained = drained
        self._ended: asyncio.Task[int] = asyncio.create_task(self._wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        log: ContainerLog,
        guard: Guard,
    ) -> ContainerProcess:
        """Starts ``command`` in its own session.

        Raises:
            StartError: there is no such program, or it cannot be run.
        """
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environment, MARK: guard.token},
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(reading)
            raise StartError(_explain(command[0], error)) from error
        finally:
            os.close(writing)
        guard.watch(process.pid)
        drained: asyncio.Future[None] = loop.create_future()
        os.set_blocking(reading, False)

        def readable() -> None:
            try:
                data = os.read(reading, READ_SIZE)
            except BlockingIOError:
                return
            if data:
                log.write(data)
                return
            loop.remove_reader(reading)
            os.close(reading)
            log.close()
            if not drained.done():
                drained.set_result(None)

        loop.add_reader(reading, readable)
        return cls(process, guard, drained)

    @property
    def pid(self) -> int:
        """The process, and the number of its group."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Signals the program alone, as a runtime signals process 1 of a container."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kills the program and everything in its group."""
        kill_group(self._process.pid)

    async def wait(self) -> int:
        """The exit code as a runtime gives it: 128 + n for a death by signal n."""
        return await asyncio.shield(self._ended)

    async def _wait(self) -> int:
        code = await self._process.wait()
        # Like process 1 of a container: when it ends, so does everything else in there.
        kill_group(self._process.pid)
        self._guard.forget(self._process.pid)
        await self._drained
        return code if code >= 0 else 128 - code


def _explain(program: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f'exec: "{program}": executable file not found in $PATH'
            if "/" not in program
            else f'exec: "{program}": stat {program}: no such file or directory'
        )
    if isinstance(error, PermissionError):
        return f'exec: "{program}": permission denied'
    return f'exec: "{program}": {error}'


STOP_SIGNAL = signal.SIGTERM
