"""How many threads may wait for stores, and for whose.

A thread that waits for a store cannot be ended: one whose store sends a byte now and then waits for
as long as the store likes. So what one workspace's stores keep must not be what others need.

| threads that were given up and still wait | another one for the same          |
|-------------------------------------------|-----------------------------------|
| as many as one place may keep             | place is not begun                |
| as many as one workspace may keep         | workspace is not begun            |
| as many as all together may keep          | anybody is not begun              |
"""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar

ASKER: ContextVar[str] = ContextVar("whose origin is asked for", default="")
"""The workspace, for all that its look begins."""


class Waiting:
    """Counts the threads that nobody waits for any more."""

    def __init__(self, *, of_place: int, of_asker: int, of_all: int) -> None:
        self._of_place = of_place
        self._of_asker = of_asker
        self._of_all = of_all
        self._lock = threading.Lock()
        self._places: Counter[tuple[str, str]] = Counter()
        self._askers: Counter[str] = Counter()

    def begin(self, place: str) -> Waiter | None:
        """Whoever is to wait for a place; None if too many wait for it already."""
        asker = ASKER.get()
        with self._lock:
            full = (
                self._places[asker, place] >= self._of_place
                or self._askers[asker] >= self._of_asker
                or self._askers.total() >= self._of_all
            )
        return None if full else Waiter(self, asker, place)

    def count(self, waiter: Waiter, number: int) -> None:
        """Adds a thread that was given up, or takes it away."""
        # Subtracting removes what is zero: nothing grows with the places that there were.
        with self._lock:
            self._places[waiter.asker, waiter.place] += number
            self._askers[waiter.asker] += number
            self._places = +self._places
            self._askers = +self._askers


class Waiter:
    """One thread."""

    def __init__(self, waiting: Waiting, asker: str, place: str) -> None:
        self.asker = asker
        self.place = place
        self._waiting = waiting
        self._lock = threading.Lock()
        self._ended = False
        self._given_up = False

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            if not self._ended and not self._given_up:
                self._given_up = True
                self._waiting.count(self, 1)

    def end(self) -> None:
        """It ended."""
        with self._lock:
            self._ended = True
            if self._given_up:
                self._given_up = False
                self._waiting.count(self, -1)
