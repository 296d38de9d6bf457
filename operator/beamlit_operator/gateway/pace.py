"""Work that is repeated whenever something changed, but never takes more than its share of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SHARE = 0.05
"""The most of a core that the work may take, whatever the rate of changes. Envoy takes about five
times as long to read a route table as the agent to build it."""

LONGEST_PAUSE = 2.0
"""Seconds a change may wait at worst."""


class Pace:
    """Runs ``work`` soon after it was asked for, and again only after a pause in proportion to what
    it took the last time. Many requests in between are one."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Something changed. At rest the work is done at once."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._not_before), self._run)

    def close(self) -> None:
        """Nothing is done any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._timer = None
        began = time.thread_time()
        try:
            self._work()
        finally:
            pause = (time.thread_time() - began) * (1 / SHARE - 1)
            loop = asyncio.get_running_loop()
            self._not_before = loop.time() + min(pause, LONGEST_PAUSE)
