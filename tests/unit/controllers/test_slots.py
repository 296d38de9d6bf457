"""Who looks at a store next, when more want to than may."""

from __future__ import annotations

import asyncio

import pytest

from beamlit_operator.controllers.slots import Rank, Slots


class Crowd:
    """Some who look at stores, each until it is told to end."""

    def __init__(self, at_once: int) -> None:
        self.slots = Slots(at_once)
        self.looking: list[str] = []
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, rank: Rank, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._look(rank, name))
        await self._turns()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await self._turns()

    async def _look(self, rank: Rank, name: str) -> None:
        async with self.slots.of(rank):
            self.looking.append(name)
            self.order.append(name)
            await self._ends[name].wait()
            self.looking.remove(name)

    async def _turns(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_a_new_origin_does_not_wait_behind_those_that_are_looked_at_at_a_start() -> None:
    crowd = Crowd(2)
    await crowd.come(Rank.KNOWN, *(f"known-{number}" for number in range(5000)))
    await crowd.come(Rank.NEW, "new")
    assert crowd.looking == ["known-0", "known-1"]
    await crowd.end("known-0")
    assert crowd.looking == ["known-1", "new"]
    for task in crowd.tasks.values():
        task.cancel()


async def test_origins_whose_stores_let_one_wait_have_half_of_the_slots() -> None:
    crowd = Crowd(4)
    await crowd.come(Rank.FAILED, "dead-0", "dead-1", "dead-2")
    assert crowd.looking == ["dead-0", "dead-1"]
    await crowd.come(Rank.KNOWN, "known-0", "known-1", "known-2")
    assert crowd.looking == ["dead-0", "dead-1", "known-0", "known-1"]
    await crowd.end("dead-0")
    assert crowd.looking == ["dead-1", "known-0", "known-1", "known-2"]
    await crowd.end("known-0", "known-1", "known-2")
    assert crowd.looking == ["dead-1", "dead-2"]
    await crowd.end("dead-1", "dead-2")
    assert crowd.looking == []


@pytest.mark.parametrize("rank", list(Rank))
async def test_one_that_is_alone_is_served_whatever_is_known_of_it(rank: Rank) -> None:
    crowd = Crowd(1)
    await crowd.come(rank, "only")
    assert crowd.looking == ["only"]
    await crowd.end("only")


async def test_who_gives_up_leaves_the_slot_to_others() -> None:
    crowd = Crowd(1)
    await crowd.come(Rank.NEW, "first", "gives-up", "last")
    crowd.tasks["gives-up"].cancel()
    await crowd.end("first")
    assert crowd.looking == ["last"]
    crowd.tasks["last"].cancel()
    await crowd.come(Rank.NEW, "later")
    assert crowd.looking == ["last", "later"], "its block was left by an exception, its slot too"
    await crowd.end("later")


async def test_who_gives_up_at_the_moment_of_its_turn_takes_none_along() -> None:
    crowd = Crowd(1)
    await crowd.come(Rank.NEW, "first", "second")
    crowd._ends["first"].set()
    while crowd.looking:
        await asyncio.sleep(0)
    crowd.tasks["second"].cancel()
    await crowd.come(Rank.NEW, "third")
    assert crowd.looking == ["third"]
    await crowd.end("third")
