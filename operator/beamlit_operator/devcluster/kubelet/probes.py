"""Probes: one attempt of each kind, and what a series of attempts means."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from beamlit_operator.devcluster.kubelet.guard_program import kill_group
from beamlit_operator.kube import Json

EAGER_PERIOD = 0.1
"""Seconds between attempts while a container has not become ready (or started) yet.

A kubelet waits a whole ``periodSeconds`` between attempts, so that a server that is up after 1.1 s
is noticed after 10. On a laptop that wait would be most of a cold start. Between the declared
moments attempts are therefore made whose success counts and whose failure does not: thresholds,
events and restarts keep the declared pace.
"""

SLOW_EAGER_PERIOD = 0.25
"""The same for containers that take longer than :data:`EAGER_FOR` seconds."""

EAGER_FOR = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of a probe, with Kubernetes' defaults."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @staticmethod
    def of(probe: Json) -> Settings:
        def number(name: str, default: int) -> int:
            return int(probe.get(name) or default)

        return Settings(
            number("initialDelaySeconds", 0),
            number("periodSeconds", 10),
            number("timeoutSeconds", 1),
            number("successThreshold", 1),
            number("failureThreshold", 3),
        )


@dataclass(frozen=True, slots=True)
class Series:
    """Attempts so far. ``verdict`` is None until a threshold is reached for the first time."""

    verdict: bool | None = None
    successes: int = 0
    failures: int = 0

    def after(self, success: bool, settings: Settings, *, eager: bool = False) -> Series:
        """The series with one more attempt.

        | attempt          | successes | failures | verdict becomes                   |
        |------------------|-----------|----------|-----------------------------------|
        | success          | +1        | 0        | True at the success threshold     |
        | failure          | 0         | +1       | False at the failure threshold    |
        | eager success    | as success, but only if one success is enough            |||
        | eager failure    | unchanged | unchanged| unchanged                         |
        """
        if eager and (not success or settings.success_threshold > 1):
            return self
        if success:
            count = self.successes + 1
            verdict = True if count >= settings.success_threshold else self.verdict
            return Series(verdict, count, 0)
        count = self.failures + 1
        verdict = False if count >= settings.failure_threshold else self.verdict
        return replace(self, verdict=verdict, successes=0, failures=count)


@dataclass(frozen=True, slots=True)
class Target:
    """What probes of one container are made against."""

    address: str
    ports: Mapping[str, int]
    environment: Mapping[str, str]
    folder: Path
    rewrite: Callable[[str], str]

    def port(self, value: int | str) -> int:
        """A port by number or by the name the container gives it."""
        if isinstance(value, str) and not value.isdigit():
            if value not in self.ports:
                raise ProbeError(f"couldn't find port: {value}")
            return self.ports[value]
        return int(value)


class ProbeError(Exception):
    """An attempt failed; the text is kubelet's output."""


async def attempt(
    probe: Json, target: Target, session: aiohttp.ClientSession, *, timeout: float
) -> None:
    """One attempt.

    Raises:
        ProbeError: it failed.
    """
    kinds: dict[str, Callable[[], Awaitable[None]]] = {
        "httpGet": lambda: _http(probe["httpGet"], target, session),
        "tcpSocket": lambda: _tcp(probe["tcpSocket"], target),
        "exec": lambda: run(probe["exec"]["command"], target),
        "grpc": lambda: _grpc(probe["grpc"], target, timeout),
    }
    kind = next((name for name in kinds if probe.get(name) is not None), None)
    if kind is None:
        raise ProbeError("missing probe handler")
    try:
        await asyncio.wait_for(kinds[kind](), timeout)
    except TimeoutError as error:
        raise ProbeError(f"{kind} timed out after {timeout:g}s") from error


async def _http(action: Json, target: Target, session: aiohttp.ClientSession) -> None:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = action.get("host") or target.address
    path = str(action.get("path") or "/")
    url = f"{scheme}://{host}:{target.port(action['port'])}/{path.removeprefix('/')}"
    headers = {item["name"]: item["value"] for item in action.get("httpHeaders") or ()}
    headers.setdefault("User-Agent", "kube-probe/1.34")
    try:
        async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer:
            if not 200 <= answer.status < 400:
                raise ProbeError(f"HTTP probe failed with statuscode: {answer.status}")
    except (aiohttp.ClientError, OSError) as error:
        raise ProbeError(f'Get "{url}": {error}') from error


async def _tcp(action: Json, target: Target) -> None:
    host, port = action.get("host") or target.address, target.port(action["port"])
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ProbeError(f"dial tcp {host}:{port}: connect: {why}") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def run(command: Sequence[str], target: Target) -> None:
    """Runs a command beside a container, in its environment.

    Raises:
        ProbeError: it could not be run, or its exit code was not 0.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(target.rewrite(part) for part in command),
            env=dict(target.environment),
            cwd=target.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ProbeError(f"exec {command[0]}: {error.strerror or error}") from error
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        kill_group(process.pid)
        await process.wait()
        raise
    if process.returncode:
        raise ProbeError(output.decode(errors="replace")[:1024] or f"exit {process.returncode}")


async def _grpc(action: Json, target: Target, timeout: float) -> None:
    """``grpc.health.v1.Health/Check``; its two messages are simple enough to write by hand."""
    import grpc

    name = str(action.get("service") or "").encode()
    request = b"\n" + bytes([len(name)]) + name if name else b""
    address = f"{target.address}:{target.port(action['port'])}"
    async with grpc.aio.insecure_channel(address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = await check(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise ProbeError(f"rpc error: {error.code().name}: {error.details()}") from error
    if answer != b"\x08\x01":
        raise ProbeError("service unhealthy (responded with something other than SERVING)")
