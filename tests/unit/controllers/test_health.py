"""When a restart of the operator helps, and when it is ready: both tables of the module."""

from __future__ import annotations

import asyncio

import pytest

from beamlit_operator.controllers.health import (
    STALE_AFTER,
    STUCK_AFTER,
    Vitals,
    not_alive,
    not_ready,
)
from beamlit_operator.controllers.queue import WorkQueue

LONG = STUCK_AFTER + 1


@pytest.mark.parametrize(
    ("oldest", "idle", "working", "alive"),
    [
        (0.0, 0.0, True, True),
        (0.0, LONG, True, True),
        (LONG, 1.0, True, True),
        (LONG, LONG, False, True),
        (LONG, LONG, True, False),
    ],
    ids=["at rest", "nothing to do", "slow", "stands by", "stuck"],
)
def test_only_one_that_is_stuck_is_not_alive(
    oldest: float, idle: float, working: bool, alive: bool
) -> None:
    vitals = Vitals(working=working, oldest=oldest, idle=idle)
    assert (not_alive(vitals) == "") is alive


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, ""),
        ({"listed": False, "unsynced": 3}, "first listing is under way"),
        ({"unsynced": 2}, "2 watches have no first listing"),
        ({"webhook": False}, "no certificate"),
        ({"silent": {"pods": STALE_AFTER - 1}}, ""),
        ({"silent": {"pods": STALE_AFTER + 5, "nodes": 3.0}}, "watch of pods"),
    ],
)
def test_what_is_missing_is_said(more: dict, says: str) -> None:
    missing = not_ready(Vitals(working=True, oldest=0, idle=0, **more))
    assert says in missing
    assert bool(missing) is bool(says)


async def test_an_operator_whose_requests_all_time_out_is_alive() -> None:
    """A frozen API server: workers end in errors, keys wait long, and a restart mends nothing."""
    now = 0.0

    async def work(_: str) -> None:
        nonlocal now
        now += 60.0
        raise TimeoutError

    queue = WorkQueue[str](work, workers=1, clock=lambda: now)
    for name in "abcdefgh":
        queue.add(name)
    task = asyncio.create_task(queue.run())
    worst = 0.0
    async with asyncio.timeout(60):
        while len(queue) > 1:
            await asyncio.sleep(0)
            worst = max(worst, queue.oldest)
            assert not not_alive(Vitals(working=True, oldest=queue.oldest, idle=queue.still))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert worst > STUCK_AFTER


async def test_an_operator_whose_workers_all_hang_is_not_alive() -> None:
    now = 0.0
    hang = asyncio.Event()

    async def work(_: str) -> None:
        await hang.wait()

    queue = WorkQueue[str](work, workers=2, clock=lambda: now)
    for name in "abc":
        queue.add(name)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(60):
        while queue.working < 2:
            await asyncio.sleep(0)
    now = LONG
    assert "no work has begun or ended" in not_alive(
        Vitals(working=True, oldest=queue.oldest, idle=queue.still)
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
