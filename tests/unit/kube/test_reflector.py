"""The reflector shows the latest state of a collection, whatever happens to the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from beamlit_operator.kube import (
    PODS,
    ApiError,
    ListResult,
    ObjectKey,
    Reflector,
    WatchEvent,
    reflector,
)


def pod(name: str, version: int) -> dict:
    return {"metadata": {"namespace": "team", "name": name, "resourceVersion": str(version)}}


class Script:
    """An API server that follows a script: each LIST and each WATCH takes the next entry."""

    def __init__(self, lists: list, watches: list) -> None:
        self.lists, self.watches = lists, watches
        self.since: list[str] = []

    async def list(self, resource, namespace=None, *, each, **_) -> ListResult:
        entry = self.lists.pop(0)
        if isinstance(entry, Exception):
            raise entry
        version, items = entry
        return ListResult([each(item) for item in items], str(version))

    async def watch(self, resource, namespace=None, *, resource_version, **_) -> AsyncIterator:
        self.since.append(resource_version)
        if not self.watches:
            await asyncio.Event().wait()
        for entry in self.watches.pop(0):
            if isinstance(entry, Exception):
                raise entry
            yield WatchEvent(*entry)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(reflector, "FIRST_RETRY", 0.001)


async def follow(script: Script, until) -> tuple[dict, list]:
    """Runs a reflector until ``until(objects)`` holds; returns its objects and the changes."""
    seen = []
    watcher = Reflector(script, PODS, on_change=seen.append)
    task = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(60):
            while not until(watcher, script):
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
    return dict(watcher), [(c.key.name, c.old is not None, c.new is not None) for c in seen]


def idle(_, script: Script) -> bool:
    return not script.lists and not script.watches


def settled(count: int):
    return lambda watcher, script: len(script.since) >= count and idle(watcher, script)


async def test_a_list_and_its_watch_give_the_latest_objects():
    script = Script(
        [(5, [pod("a", 1), pod("b", 2)])],
        [[("MODIFIED", pod("a", 6)), ("DELETED", pod("b", 7)), ("BOOKMARK", pod("", 9))]],
    )
    objects, changes = await follow(script, settled(2))
    assert objects == {ObjectKey("team", "a"): pod("a", 6)}
    assert changes == [
        ("a", False, True),
        ("b", False, True),
        ("a", True, True),
        ("b", True, False),
    ]
    assert script.since == ["5", "9"]


async def test_after_410_the_difference_of_the_new_list_is_reported():
    gone = ApiError(410, "Expired", "too old")
    script = Script([(1, [pod("a", 1), pod("b", 1)]), (9, [pod("b", 1), pod("c", 8)])], [[gone]])
    objects, changes = await follow(script, settled(2))
    assert sorted(key.name for key in objects) == ["b", "c"]
    assert sorted(changes[2:]) == [("a", True, False), ("c", False, True)]


async def test_a_lost_connection_resumes_where_it_was():
    lost = ApiError(0, "Unreachable", "connection reset")
    script = Script([(1, [])], [[("ADDED", pod("a", 4)), lost], [("ADDED", pod("b", 5))]])
    objects, _ = await follow(script, settled(3))
    assert len(objects) == 2
    assert script.since == ["1", "4", "5"]


async def test_a_server_that_fails_is_asked_again():
    broken = ApiError(500, "InternalError", "etcd is away")
    script = Script([broken, broken, (3, [pod("a", 3)])], [])
    objects, _ = await follow(script, settled(1))
    assert len(objects) == 1


async def test_a_consumer_that_fails_loses_nothing(caplog):
    script = Script([(1, [pod("a", 1), pod("b", 1)])], [])

    def fail(change):
        raise RuntimeError("consumer")

    watcher = Reflector(script, PODS, on_change=fail)
    task = asyncio.create_task(watcher.run())
    await asyncio.wait_for(watcher.wait_synced(), 60)
    task.cancel()
    assert watcher.synced
    assert len(watcher) == 2
    assert "a consumer failed" in caplog.text
