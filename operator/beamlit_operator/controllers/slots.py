"""Who looks at a store next, when more want to than may.

| the origin                                                | comes        | may have of all slots |
|-----------------------------------------------------------|--------------|-----------------------|
| nothing is known of it: a model waits for it              | first        | all                   |
| it is known: its turn, or the operator began again        | next         | all                   |
| it failed the last time, and nothing here changed since   | last         | half                  |

So a new Model does not wait behind the thousands that an operator looks at when it starts, and
those whose stores let one wait for a timeout each time do not keep the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Rank(IntEnum):
    """What is known of an origin."""

    NEW = 0
    KNOWN = 1
    FAILED = 2


class Slots:
    """So many looks at once. Use on one event loop."""

    def __init__(self, at_once: int) -> None:
        self._most = {rank: at_once for rank in Rank} | {Rank.FAILED: max(1, at_once // 2)}
        self._at_once = at_once
        self._busy = dict.fromkeys(Rank, 0)
        self._waiting: dict[Rank, deque[asyncio.Future[None]]] = {rank: deque() for rank in Rank}

    @asynccontextmanager
    async def of(self, rank: Rank) -> AsyncIterator[None]:
        """Waits for a slot, and has it until the end of the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[rank].append(turn)
        self._serve()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._busy[rank] -= 1
            self._serve()

    def _serve(self) -> None:
        for rank, waiting in self._waiting.items():
            while waiting and self._has_room(rank):
                turn = waiting.popleft()
                if not turn.done():
                    self._busy[rank] += 1
                    turn.set_result(None)

    def _has_room(self, rank: Rank) -> bool:
        return sum(self._busy.values()) < self._at_once and self._busy[rank] < self._most[rank]
