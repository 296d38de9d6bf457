"""Asking pods how far they are, over real HTTP, with a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from tests.unit.controllers.test_progress import DONE, RUNNING, pod

from beamlit_operator.api import labels
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.progress import SETTLE, Fetched
from beamlit_operator.controllers.starts import (
    FIRST_POLL,
    POLL_EVERY,
    SLOWEST_POLL,
    Starts,
    pause_after,
)
from beamlit_operator.kube import Json
from beamlit_operator.workloads.pods import PROGRESS_PORT_VARIABLE

KEY = Key(Kind.MODEL_DEPLOYMENT, Workspace("team"), "iris")


class World:
    """Pods that fetch, and the one who asks them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.news: list[Key] = []
        self.answer: object = {"fetchedBytes": 30, "totalBytes": 100}
        self.asked = 0
        self.starts = Starts(self.news.append, clock=lambda: self.now, tick=0.005)
        self.port = 0

    def pod(self, state: Json = RUNNING, *, address: str = "127.0.0.1") -> Json:
        found = pod(state)
        found["metadata"]["labels"] = {labels.REVISION: "iris-1"}
        found["status"]["podIP"] = address
        variable = {"name": PROGRESS_PORT_VARIABLE, "value": str(self.port)}
        found["spec"]["initContainers"][0]["env"] = [variable]
        return found

    def look(self, *pods: Json) -> object:
        told, _ = self.starts.look(KEY, pods)
        return told.get("iris-1")

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        if isinstance(self.answer, str):
            return web.Response(text=self.answer)
        return web.json_response(self.answer)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    world = World()
    app = web.Application()
    app.router.add_get("/", world.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    world.port = runner.addresses[0][1]
    task = asyncio.create_task(world.starts.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_a_pod_that_fetches_for_long_is_asked_and_its_bytes_are_told() -> None:
    async with world() as w:
        w.look(w.pod())
        assert w.starts.polled == 1
        w.now += FIRST_POLL
        assert w.look(w.pod()) is not None
        await w.until(lambda: w.news)
        told = w.look(w.pod())
        assert told.fetched == Fetched(30, 100)  # type: ignore[attr-defined]
        # Little more is no news, much more is.
        w.news.clear()
        for part, is_news in ((32, False), (36, True)):
            w.answer = {"fetchedBytes": part, "totalBytes": 100}
            before = w.asked
            w.now += POLL_EVERY
            await w.until(lambda before=before: w.asked > before)
            w.now += POLL_EVERY
            await w.until(lambda before=before: w.asked > before + 1)
            assert bool(w.news) is is_news
        w.answer = {"fetchedBytes": 60, "totalBytes": 100, "waiting": 1}
        w.news.clear()
        w.now += POLL_EVERY
        await w.until(lambda: w.news)
        assert w.look(w.pod()).fetched == Fetched(60, 100, elsewhere=True)  # type: ignore[attr-defined]
        w.look(w.pod(DONE))
        assert w.starts.polled == 0


async def test_answers_that_cannot_be_believed_change_nothing() -> None:
    async with world() as w:
        for number, nonsense in enumerate(
            (
                [1],
                "[" * 10_000,
                "not JSON",
                {"fetchedBytes": 5, "totalBytes": 1},
                {"fetchedBytes": True, "totalBytes": 2},
            ),
            1,
        ):
            w.answer = nonsense
            w.look(w.pod())
            w.now += 1000
            await w.until(lambda number=number: w.asked >= number)
        w.now += SETTLE
        told = w.look(w.pod())
        assert told.fetched is None  # type: ignore[attr-defined]
        assert w.news == []


def test_a_pod_that_does_not_answer_is_asked_less_and_less() -> None:
    pauses = [pause_after(silences) for silences in range(40)]
    assert pauses[:4] == [POLL_EVERY, 2 * POLL_EVERY, 4 * POLL_EVERY, 8 * POLL_EVERY]
    assert set(pauses[4:]) == {SLOWEST_POLL}


async def test_only_addresses_of_pods_that_fetch_are_asked() -> None:
    w = World()
    w.port = 15820
    for state in (w.pod(DONE), w.pod(address=""), w.pod(address="metadata.internal/"), pod()):
        w.look(state)
        assert w.starts.polled == 0
    w.look(w.pod())
    w.starts.forget(KEY)
    assert w.starts.polled == 0
