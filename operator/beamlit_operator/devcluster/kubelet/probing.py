"""The probes of one running container, side by side, as a stream of verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import aiohttp

from beamlit_operator.devcluster.kubelet.probes import (
    EAGER_FOR,
    EAGER_PERIOD,
    SLOW_EAGER_PERIOD,
    ProbeError,
    Series,
    Settings,
    Target,
    attempt,
)
from beamlit_operator.kube import Json

TICK = 0.005
"""Seconds an event loop may wake up early."""

Kind = Literal["Startup", "Readiness", "Liveness"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probes say now."""

    started: bool
    ready: bool
    event: str | None = None
    """Text of an Unhealthy event to record."""
    fatal: str | None = None
    """Set to the probe's kind when the container must be restarted."""
    grace: int | None = None
    """The probe's own termination grace in seconds."""


class Prober:
    """Follows one container from its start."""

    def __init__(self, spec: Json, target: Target, session: aiohttp.ClientSession) -> None:
        self._spec = spec
        self._target = target
        self._session = session
        self._started = False
        self._ready = False
        self._out: asyncio.Queue[Verdict] = asyncio.Queue()

    async def verdicts(self) -> AsyncIterator[Verdict]:
        """Startup first; then liveness and readiness. Without probes: started and ready at once."""
        work = asyncio.create_task(self._work())
        try:
            while True:
                yield await self._out.get()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _work(self) -> None:
        startup, readiness, liveness = (
            self._spec.get(name) for name in ("startupProbe", "readinessProbe", "livenessProbe")
        )
        if startup and not await self._until_started(startup):
            return
        self._started = True
        self._ready = not readiness
        self._say()
        async with asyncio.TaskGroup() as group:
            if readiness:
                group.create_task(self._follow("Readiness", readiness))
            if liveness:
                group.create_task(self._follow("Liveness", liveness))

    def _say(
        self, *, event: str | None = None, fatal: str | None = None, probe: Json | None = None
    ) -> None:
        grace = (probe or {}).get("terminationGracePeriodSeconds")
        self._out.put_nowait(Verdict(self._started, self._ready, event, fatal, grace))

    async def _until_started(self, probe: Json) -> bool:
        async for verdict in self._series("Startup", probe):
            if verdict:
                return True
            self._say(fatal="startup", probe=probe)
            return False
        return False

    async def _follow(self, kind: Kind, probe: Json) -> None:
        async for verdict in self._series(kind, probe):
            if kind == "Readiness":
                self._ready = verdict
                self._say()
            elif not verdict:
                self._say(fatal="liveness", probe=probe)
                return

    async def _series(self, kind: Kind, probe: Json) -> AsyncIterator[bool]:
        """Every change of the verdict. Attempts come at the declared period, and until the first
        success of a startup or readiness probe also in between (see ``EAGER_PERIOD``); the one at
        the very start is such an attempt too, since no program answers in its first millisecond.
        """
        loop = asyncio.get_running_loop()
        settings, series = Settings.of(probe), Series()
        impatient = kind != "Liveness"
        await asyncio.sleep(settings.initial_delay)
        began = loop.time()
        due = began + settings.period if impatient else began
        while True:
            eager = loop.time() < due - TICK
            message = await self._attempt(probe, settings)
            before = series.verdict
            series = series.after(message is None, settings, eager=eager)
            if message is not None and not eager:
                self._say(event=f"{kind} probe failed: {message}")
            if series.verdict is not None and series.verdict != before:
                yield series.verdict
            impatient = impatient and series.verdict is not True
            now = loop.time()
            if not eager:
                due = max(due + settings.period, now)
            pause = due - now
            if impatient:
                slow = now - began > EAGER_FOR
                pause = min(pause, SLOW_EAGER_PERIOD if slow else EAGER_PERIOD)
            await asyncio.sleep(max(pause, 0.0))

    async def _attempt(self, probe: Json, settings: Settings) -> str | None:
        try:
            await attempt(probe, self._target, self._session, timeout=settings.timeout)
        except ProbeError as error:
            return str(error)
        return None
