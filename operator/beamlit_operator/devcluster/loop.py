"""A deduplicating work queue and the loop that drives one controller.

Keys in, one call of ``reconcile`` at a time per key; whatever changes meanwhile makes the key run
once more. Failures are retried per key with exponential back-off and jitter.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from beamlit_operator.kube import ApiError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_RETRY = 0.01
"""Seconds before the first new attempt of a key that failed; doubles up to :data:`LAST_RETRY`."""

LAST_RETRY = 15.0

WORKERS = 8
"""Keys of one controller in work at the same time."""


class KeyLoop(Generic[K]):
    """Calls ``reconcile(key)`` for every added key until cancelled.

    ``reconcile`` returns the seconds after which the key is due again by itself, or None.
    """

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        self._name = name
        self._reconcile = reconcile
        self._queue: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Asks for one call soon; a key already waiting is not added twice."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Asks for one call in ``seconds``, unless one is asked for or planned before that."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        planned = self._timers.get(key)
        if key in self._waiting or (planned is not None and planned.when() <= due):
            return
        if planned is not None:
            planned.cancel()
        self._timers[key] = loop.call_at(due, self.add, key)

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            self._working.add(key)
            delay = await self._attempt(key)
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)

    async def _attempt(self, key: K) -> float | None:
        try:
            delay = await self._reconcile(key)
        except ApiError as error:
            # A conflict only means that a newer state is on its way.
            level = logging.DEBUG if error.conflict or error.not_found else logging.WARNING
            log.log(level, "%s %s: %s", self._name, key, error)
            return error.retry_after or self._next_retry(key)
        except Exception:
            log.exception("%s %s failed", self._name, key)
            return self._next_retry(key)
        self._failures.pop(key, None)
        return delay

    def _next_retry(self, key: K) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_RETRY * 2.0 ** min(failures, 20), LAST_RETRY)
        return delay * random.uniform(0.8, 1.2)  # noqa: S311
