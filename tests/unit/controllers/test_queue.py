"""The work queue: deduplication, one worker per key, backoff, and that no event is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from beamlit_operator.controllers.queue import Backoff, Done, RetryError, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def running(queue: WorkQueue[str], check: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.create_task(queue.run())
    try:
        async with asyncio.timeout(60):
            await check()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_key_added_many_times_is_worked_on_once() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str](work)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    await running(queue, turns)
    assert seen == ["a", "b"]
    assert queue.idle


async def test_an_event_during_work_is_not_lost() -> None:
    release = asyncio.Event()
    started = asyncio.Event()
    count = 0

    async def work(_: str) -> None:
        nonlocal count
        count += 1
        started.set()
        await release.wait()

    queue = WorkQueue[str](work)

    async def check() -> None:
        queue.add("a")
        await started.wait()
        queue.add("a")
        queue.add("a")
        assert (count, queue.working) == (1, 1)
        release.set()
        await turns()
        assert count == 2

    await running(queue, check)


async def test_a_key_is_never_worked_on_twice_at_once() -> None:
    at_once: dict[str, int] = {}
    most = 0

    async def work(key: str) -> None:
        nonlocal most
        at_once[key] = at_once.get(key, 0) + 1
        most = max(most, at_once[key])
        queue.add(key)
        await asyncio.sleep(0)
        at_once[key] -= 1

    queue = WorkQueue[str](work, workers=4)
    queue.add("a")
    queue.add("b")
    await running(queue, lambda: turns(100))
    assert most == 1


async def test_no_more_keys_are_worked_on_than_there_are_workers() -> None:
    release = asyncio.Event()
    active = 0

    async def work(_: str) -> None:
        nonlocal active
        active += 1
        await release.wait()

    queue = WorkQueue[str](work, workers=3)
    for n in range(10):
        queue.add(str(n))

    async def check() -> None:
        await turns()
        assert active == 3
        release.set()
        await turns(50)
        assert active == 10

    await running(queue, check)


async def test_failed_work_comes_back_later_each_time_and_success_resets_it() -> None:
    clock = Clock()
    runs: list[float] = []
    broken = True

    async def work(_: str) -> None:
        runs.append(clock.now)
        if broken:
            raise RetryError("not yet")

    queue = WorkQueue[str](work, clock=clock, chance=lambda: 0.5, backoff=Backoff(first=1.0))

    async def advance(seconds: float) -> None:
        clock.now += seconds
        queue.add_after("other", 1e9)  # wakes the engine, which waits in real time
        queue.forget("other")
        await turns()

    async def check() -> None:
        nonlocal broken
        queue.add("a")
        await turns()
        assert len(runs) == 1
        await advance(0.9)
        assert len(runs) == 1
        await advance(0.2)
        assert len(runs) == 2
        await advance(1.9)
        assert len(runs) == 2
        broken = False
        await advance(0.2)
        assert len(runs) == 3
        broken = True
        queue.add("a")
        await turns()
        await advance(1.1)
        assert len(runs) == 5

    await running(queue, check)


async def test_work_can_ask_to_come_back_and_the_earliest_time_holds() -> None:
    clock = Clock()
    runs = 0

    async def work(_: str) -> float:
        nonlocal runs
        runs += 1
        return 60.0

    queue = WorkQueue[str](work, clock=clock)

    async def check() -> None:
        nonlocal runs
        queue.add("a")
        await turns()
        queue.add_after("a", 5.0)
        clock.now += 5.0
        queue.add_after("b", 1e9)
        await turns()
        assert runs == 2
        queue.forget("a")
        clock.now += 1000.0
        queue.add_after("c", 1e9)
        await turns()
        assert runs == 2

    await running(queue, check)


async def test_a_real_delay_wakes_the_engine_by_itself() -> None:
    done = asyncio.Event()

    async def work(_: str) -> None:
        done.set()

    queue = WorkQueue[str](work)

    async def check() -> None:
        queue.add_after("a", 0.01)
        await done.wait()

    await running(queue, check)


async def test_finished_work_is_reported_with_its_error() -> None:
    reports: list[Done[str]] = []

    async def work(key: str) -> None:
        if key == "bad":
            raise ValueError("boom")

    queue = WorkQueue[str](work, on_done=reports.append)
    queue.add("bad")
    queue.add("good")
    await running(queue, turns)
    assert {r.key: type(r.error) for r in reports} == {"bad": ValueError, "good": type(None)}


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [(1, 0.5, 1.0), (2, 0.5, 2.0), (4, 0.5, 8.0), (100, 0.5, 60.0), (1, 0.0, 0.8)],
)
def test_backoff_doubles_up_to_its_limit_within_its_jitter(
    failures: int, chance: float, seconds: float
) -> None:
    assert Backoff(1.0, 60.0).delay(failures, chance=chance) == pytest.approx(seconds)


async def test_urgent_keys_go_first_and_the_others_do_not_starve() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str](work, workers=1, urgent=lambda key: key.startswith("u"))
    for name in ("a", "b", *(f"u{i}" for i in range(10))):
        queue.add(name)
    assert queue.hurried
    await running(queue, lambda: turns(100))
    assert seen[:7] == [f"u{i}" for i in range(7)]
    assert seen[7] == "a"
    assert seen[-1] == "b"
    assert not queue.hurried


async def test_what_is_only_looked_at_again_waits_for_what_something_happened_to() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str](work, workers=1)
    for number in range(30):
        queue.add(f"later{number}", later=True)
    queue.add("usual")
    queue.add("later29")
    queue.add("later29", later=True)
    assert len(queue) == 31
    await running(queue, lambda: turns(200))
    assert seen[:2] == ["usual", "later29"]
    assert seen[2:] == [f"later{number}" for number in range(29)]
    assert queue.idle
    assert queue.oldest == 0.0


async def test_what_is_only_looked_at_again_does_not_starve() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str](work, workers=1, urgent=lambda key: key.startswith("u"))
    queue.add("later", later=True)
    for number in range(20):
        queue.add(f"a{number}")
        queue.add(f"u{number}")
    await running(queue, lambda: turns(200))
    assert seen.index("a0") < 8
    assert seen.index("later") < 16
    assert len(seen) == 41


async def test_a_key_that_was_moved_ahead_is_worked_on_once_and_can_come_back() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str](work, workers=1)
    queue.add("a", later=True)
    queue.add("b", later=True)
    queue.add("b")
    await running(queue, lambda: turns(50))
    assert seen == ["b", "a"]
    queue.add("b", later=True)
    await running(queue, lambda: turns(50))
    assert seen == ["b", "a", "b"]
