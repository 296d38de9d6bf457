"""One container attempt as a process group of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from beamlit_operator.devcluster.kubelet.guard import Guard
from beamlit_operator.devcluster.kubelet.guard_program import MARK, kill_group, kill_marked
from beamlit_operator.devcluster.kubelet.logs import ContainerLog

READ_SIZE = 64 * 1024

DRAIN_TIMEOUT = 1.0
"""Seconds the rest of the output may take after the end of the program."""


class StartError(Exception):
    """The program could not be started; the text is what the runtime would say."""


class Output:
    """Copies what comes out of a pipe to a log."""

    def __init__(self, descriptor: int, log: ContainerLog) -> None:
        self._descriptor = descriptor
        self._log = log
        self._done = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
        else:
            self._close()

    def _close(self) -> None:
        if not self._done.is_set():
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._log.close()
            self._done.set()

    async def finish(self) -> None:
        """Reads what is left; gives up on a pipe that somebody out of reach holds open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), DRAIN_TIMEOUT)
        self._close()


class ContainerProcess:
    """A running program whose output goes to a log. Create it with :meth:`start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, guard: Guard, output: Output, mark: str
    ) -> None:
        self._process = process
        self._guard = guard
        self._output = output
        self._mark = mark
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
        mark = f"{guard.token}.{uuid.uuid4().hex}"
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environment, MARK: mark},
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
        return cls(process, guard, Output(reading, log), mark)

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
        # Like process 1 of a container: when it ends, so does everything else in there, also what
        # left its group.
        kill_group(self._process.pid)
        await asyncio.to_thread(kill_marked, self._mark)
        self._guard.forget(self._process.pid)
        await self._output.finish()
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
