"""Watches: exactly what happened, in order, from a version on."""

from __future__ import annotations

import asyncio

import pytest

from beamlit_operator.kube import CONFIG_MAPS, ApiError, HttpClient, WatchEvent

from .objects import config_map


async def _collect(
    client: HttpClient, namespace: str, version: str, count: int, *, labels: str | None = None
) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    async with asyncio.timeout(60):
        async for event in client.watch(
            CONFIG_MAPS, namespace, resource_version=version, label_selector=labels
        ):
            if event.type != "BOOKMARK" and event.object["metadata"]["name"].startswith("w-"):
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_watch_reports_what_happened_since_a_version_in_order(
    client: HttpClient, namespace: str
) -> None:
    start = (await client.list(CONFIG_MAPS, namespace)).resource_version
    await client.create(CONFIG_MAPS, config_map("w-1", a="1"), namespace)
    await client.merge_patch(CONFIG_MAPS, "w-1", {"data": {"a": "2"}}, namespace)
    await client.create(CONFIG_MAPS, config_map("w-2"), namespace)
    await client.delete(CONFIG_MAPS, "w-1", namespace)
    events = await _collect(client, namespace, start, 4)
    seen = [(e.type, e.object["metadata"]["name"]) for e in events]
    assert seen == [("ADDED", "w-1"), ("MODIFIED", "w-1"), ("ADDED", "w-2"), ("DELETED", "w-1")]
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))
    assert events[1].object["data"] == {"a": "2"}


async def test_nothing_is_lost_between_list_and_watch_while_others_write(
    client: HttpClient, namespace: str
) -> None:
    async def write() -> None:
        for number in range(40):
            await client.create(CONFIG_MAPS, config_map(f"w-{number}"), namespace)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    listed = await client.list(CONFIG_MAPS, namespace)
    names = {i["metadata"]["name"] for i in listed.items if i["metadata"]["name"].startswith("w-")}
    rest = 40 - len(names)
    events = await _collect(client, namespace, listed.resource_version, rest) if rest else []
    await writing
    assert {e.object["metadata"]["name"] for e in events}.isdisjoint(names)
    assert len(events) + len(names) == 40


async def test_an_object_that_ceases_to_match_is_deleted_for_the_watcher(
    client: HttpClient, namespace: str
) -> None:
    start = (await client.list(CONFIG_MAPS, namespace)).resource_version
    body = config_map("w-1")
    await client.create(CONFIG_MAPS, body, namespace)
    for label in ({"on": "yes"}, {"more": "x"}, {"on": None}):
        await client.merge_patch(CONFIG_MAPS, "w-1", {"metadata": {"labels": label}}, namespace)
    events = await _collect(client, namespace, start, 3, labels="on=yes")
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_watch_without_version_begins_with_what_exists(
    client: HttpClient, namespace: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("w-1"), namespace)
    events = await _collect(client, namespace, "0", 1)
    assert (events[0].type, events[0].object["metadata"]["name"]) == ("ADDED", "w-1")


async def test_a_watch_ends_at_its_timeout_with_a_bookmark(
    client: HttpClient, namespace: str
) -> None:
    start = (await client.list(CONFIG_MAPS, namespace)).resource_version
    events = [
        event
        async for event in client.watch(
            CONFIG_MAPS, namespace, resource_version=start, timeout_seconds=1
        )
    ]
    assert all(int(e.object["metadata"]["resourceVersion"]) >= int(start) for e in events)


async def test_a_version_from_before_the_history_is_gone(
    client: HttpClient, namespace: str, embedded: bool
) -> None:
    if not embedded:
        pytest.skip("a real cluster's history is minutes long")
    made = await client.create(CONFIG_MAPS, config_map("w-1", n="0"), namespace)
    start = made["metadata"]["resourceVersion"]
    for number in range(4200):
        await client.merge_patch(CONFIG_MAPS, "w-1", {"data": {"n": str(number)}}, namespace)
    with pytest.raises(ApiError) as caught:
        await _collect(client, namespace, start, 1)
    assert caught.value.gone
