"""Work that is repeated takes its share of time and no more."""

from __future__ import annotations

import asyncio
import time

from beamlit_operator.gateway.pace import SHARE, Pace


async def test_at_rest_a_change_is_done_at_once_and_changes_in_a_burst_together() -> None:
    done = asyncio.Event()
    runs: list[float] = []

    def work() -> None:
        runs.append(asyncio.get_running_loop().time())
        done.set()

    pace = Pace(work)
    began = asyncio.get_running_loop().time()
    for _ in range(100):
        pace.soon()
    assert runs == []
    await asyncio.wait_for(done.wait(), 60)
    assert len(runs) == 1
    assert runs[0] >= began


async def test_under_a_storm_of_changes_work_takes_no_more_than_its_share() -> None:
    spent = 0.0

    def work() -> None:
        nonlocal spent
        began = time.thread_time()
        while time.thread_time() - began < 0.01:
            pass
        spent += time.thread_time() - began

    pace = Pace(work)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (elapsed := loop.time() - began) < 1:
        pace.soon()
        await asyncio.sleep(0.001)
    pace.close()
    assert 0.01 <= spent <= SHARE * elapsed + 0.03


async def test_work_that_fails_is_done_again_when_something_changes() -> None:
    runs = 0
    done = asyncio.Event()

    def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("once")
        done.set()

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: errors.append(what))
    pace = Pace(work)
    pace.soon()
    while runs == 0:
        await asyncio.sleep(0.001)
    pace.soon()
    await asyncio.wait_for(done.wait(), 60)
    assert len(errors) == 1
