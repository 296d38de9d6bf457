"""Our own work queue: which object to reconcile next, and when.

kopf swallows the errors of event handlers and retries nothing, so retries live here. The rules are
those of client-go's rate-limited workqueue:

- a key that is added many times before it is worked on is worked on once;
- one worker per key at a time; a key that is added *during* its work is worked on again afterwards,
  so no event is lost;
- work that fails comes back after a delay that doubles with every failure of that key, with jitter;
- of the keys that are ready the urgent go first, then those that something happened to, then those
  that are only looked at because something else changed that holds for thousands; but one in
  :data:`TURN` is taken from behind, so that nothing starves;
- work may ask to come back after a delay (for what no event announces); of several delays the
  earliest holds.

Times are monotonic seconds from an injected clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from beamlit_operator.logs import about

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

Work = Callable[[K], Awaitable[float | None]]
"""Reconciles one key; returns after how many seconds to come back, or None to wait for events."""


TURN = 8
"""Of so many keys that are taken, one is from a lane behind, if any waits there."""

URGENT, USUAL, LATER = range(3)
"""The lanes, as they go."""


class RetryError(Exception):
    """Work failed in an expected way and wants to be retried; logged in one line without a trace.

    ``after`` overrides the backoff, in seconds.
    """

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds after the 1st, 2nd, ... failure: doubling from ``first`` up to ``last``."""

    first: float = 0.5
    last: float = 300.0
    jitter: float = 0.2

    def delay(self, failures: int, *, chance: float) -> float:
        """The delay after so many failures; ``chance`` in [0, 1) places it within the jitter."""
        plain = min(self.first * 2.0 ** min(failures - 1, 32), self.last)
        return plain * (1.0 - self.jitter + 2.0 * self.jitter * chance)


@dataclass(frozen=True, slots=True)
class Done(Generic[K]):
    """One finished piece of work, for metrics: seconds waited, seconds worked, and its error."""

    key: K
    waited: float
    worked: float
    error: BaseException | None


class WorkQueue(Generic[K]):
    """Keys to reconcile, and the workers that do it. Use on one event loop."""

    def __init__(
        self,
        work: Work[K],
        *,
        workers: int = 8,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_done: Callable[[Done[K]], None] | None = None,
        urgent: Callable[[K], bool] = lambda _: False,
        fields: Callable[[K], Mapping[str, object]] = lambda _: {},
    ) -> None:
        """``fields`` gives what log lines carry that are written during the work on a key."""
        self._work = work
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._chance = chance
        self._on_done = on_done
        self._urgent = urgent
        self._fields = fields
        # Ready keys in order of arrival, by lane. A key that went to a lane further ahead is still
        # in the one behind, where it counts no more: `_ready` has the truth, with the time at which
        # the key became ready.
        self._lanes: tuple[deque[K], deque[K], deque[K]] = (deque(), deque(), deque())
        self._taken = 0
        self._ready: dict[K, tuple[float, int]] = {}
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        # Delayed keys: the heap may hold outdated entries, `_due` has the truth.
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._tick = itertools.count()
        self._changed = asyncio.Event()
        self._progress: float | None = None

    # What callers ask for.

    def add(self, key: K, *, later: bool = False) -> None:
        """The key has to be worked on, now; with ``later`` after those that were added without."""
        if key in self._working:
            self._again.add(key)
            return
        lane = URGENT if self._urgent(key) else LATER if later else USUAL
        known = self._ready.get(key)
        if known is None or lane < known[1]:
            # A delayed return is kept: it may be for another cause than this event.
            self._ready[key] = (known[0] if known is not None else self._clock(), lane)
            self._lanes[lane].append(key)
            self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """The key has to be worked on in so many seconds, unless that is planned earlier."""
        due = self._clock() + max(seconds, 0.0)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._tick), key))
            self._changed.set()

    def forget(self, key: K) -> None:
        """The object is gone: no failures are remembered and no return is planned."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    # What metrics and health ask for.

    def __len__(self) -> int:
        """Keys that are ready and wait for a worker."""
        return len(self._ready)

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working)

    @property
    def oldest(self) -> float:
        """Seconds for which the key that waits longest has waited; 0 when none waits."""
        heads = [self._ready[lane[0]][0] for lane in map(self._waiting, range(3)) if lane]
        return self._clock() - min(heads) if heads else 0.0

    @property
    def still(self) -> float:
        """Seconds since work last began or ended; 0 before :meth:`run`."""
        return 0.0 if self._progress is None else self._clock() - self._progress

    @property
    def hurried(self) -> bool:
        """Whether an urgent key waits for a worker."""
        return bool(self._waiting(URGENT))

    @property
    def idle(self) -> bool:
        """Whether nothing is ready and nothing is worked on (delayed keys may exist)."""
        return not self._ready and not self._working

    # The engine.

    async def run(self) -> None:
        """Works until cancelled; work in progress is cancelled with it."""
        self._progress = self._clock()
        async with asyncio.TaskGroup() as group:
            free = asyncio.Semaphore(self._workers)
            while True:
                await free.acquire()
                key, waited = await self._next()
                task = group.create_task(self._one(key, waited))
                task.add_done_callback(lambda _: free.release())

    async def _next(self) -> tuple[K, float]:
        """The next key that is ready, and how long it waited."""
        while True:
            self._promote()
            if self._ready:
                key = self._choose().popleft()
                since, _ = self._ready.pop(key)
                self._working.add(key)
                return key, self._clock() - since
            self._changed.clear()
            wait = self._heap[0][0] - self._clock() if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _choose(self) -> deque[K]:
        """The lane to take the next key from; one waits."""
        self._taken += 1
        turn, rest = divmod(self._taken, TURN)
        order = (URGENT, USUAL, LATER)
        if rest == 0:
            order = (USUAL, LATER, URGENT) if turn % 2 else (LATER, USUAL, URGENT)
        return next(lane for lane in map(self._waiting, order) if lane)

    def _waiting(self, number: int) -> deque[K]:
        """A lane, with a key that still waits in it at its head, if there is one."""
        lane = self._lanes[number]
        while lane and self._ready.get(lane[0], (0.0, -1))[1] != number:
            lane.popleft()
        return lane

    def _promote(self) -> None:
        """Moves the delayed keys whose time has come among the ready ones."""
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    async def _one(self, key: K, waited: float) -> None:
        with about(**self._fields(key)):
            await self._worked(key, waited)

    async def _worked(self, key: K, waited: float) -> None:
        started = self._progress = self._clock()
        error: Exception | None = None
        try:
            after = await self._work(key)
        except Exception as caught:
            error = caught
            self._failed(key, caught)
        else:
            self._failures.pop(key, None)
            if after is not None:
                self.add_after(key, after)
        finally:
            self._progress = self._clock()
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
        if self._on_done is not None:
            self._on_done(Done(key, waited, self._clock() - started, error))

    def _failed(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures, chance=self._chance())
        if isinstance(error, RetryError):
            delay = error.after if error.after is not None else delay
            text = "%s: %s (attempt %d, again in %.1f s)"
            log.warning(text, key, error, failures, delay)
        else:
            text = "%s failed (attempt %d, again in %.1f s)"
            log.error(text, key, failures, delay, exc_info=error)
        self.add_after(key, delay)
