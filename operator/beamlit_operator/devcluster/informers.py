"""One shared reflector per kind, with indexes, for everything in the cluster's process.

Controllers, scheduler and kubelet all look at pods; they share one copy and one watch. Each index
is kept up to date with every change, so that finding the pods of one owner does not scan them all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable

from beamlit_operator.kube import Change, Json, KubeClient, ObjectKey, Reflector, Resource

Subscriber = Callable[[Change], None]

TRUSTED_FOR = 30.0
"""Seconds after which a write that never came back is forgotten: an object that was created and
deleted while the watch was broken is never shown. Client-go gives expectations five minutes."""

REMEMBERED_DELETIONS = 10_000
"""How many deleted uids :class:`RecentWrites` remembers; far more than can be on their way."""


class Index:
    """Objects by a value derived from them; each object may stand under several values."""

    def __init__(self, values_of: Callable[[Json], Iterable[str]]) -> None:
        self._values_of = values_of
        self._found: defaultdict[str, dict[ObjectKey, Json]] = defaultdict(dict)

    def __call__(self, change: Change) -> None:
        """Follows one change; meant to be subscribed."""
        if change.old is not None:
            for value in self._values_of(change.old):
                bucket = self._found.get(value)
                if bucket is not None:
                    bucket.pop(change.key, None)
                    if not bucket:
                        del self._found[value]
        if change.new is not None:
            for value in self._values_of(change.new):
                self._found[value][change.key] = change.new

    def get(self, value: str) -> list[Json]:
        """The objects that stand under ``value`` now."""
        return list(self._found.get(value, {}).values())


class RecentWrites:
    """What this process wrote and its reflector has not shown yet.

    Without it a controller that acts again before its own write came back through the watch would
    create a pod twice or hand out a node's room twice (client-go's "expectations" and kube-
    scheduler's "assumed pods").
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[str, tuple[Json, float]] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._shown: dict[str, int] = {}

    def wrote(self, item: Json) -> None:
        """Remembers the object that a create or patch returned."""
        uid = item["metadata"]["uid"]
        if uid not in self._deleted and self._shown.get(uid, -1) < _version(item):
            self._written[uid] = (item, self._clock() + TRUSTED_FOR)

    def __call__(self, change: Change) -> None:
        """Follows one change of the reflector; meant to be subscribed."""
        item = change.new or change.old
        if item is None:
            return
        uid = item["metadata"]["uid"]
        if change.new is None:
            self._shown.pop(uid, None)
            self._written.pop(uid, None)
            self._deleted[uid] = None
            if len(self._deleted) > REMEMBERED_DELETIONS:
                self._deleted.popitem(last=False)
            return
        self._shown[uid] = _version(item)
        written = self._written.get(uid)
        if written is not None and _version(written[0]) <= _version(item):
            del self._written[uid]

    def over(self, items: Iterable[Json], *, belongs: Callable[[Json], bool]) -> list[Json]:
        """``items`` as they will be once every write has come back.

        ``belongs`` tells which written objects are part of the collection asked for.
        """
        if not self._written:
            return list(items)
        result = {item["metadata"]["uid"]: item for item in items}
        for uid, (item, until) in list(self._written.items()):
            if until < self._clock():
                del self._written[uid]
            elif belongs(item):
                result[uid] = item
            else:
                result.pop(uid, None)
        return list(result.values())


class Informers:
    """The shared reflectors. Subscribe first, then :meth:`run`."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self._reflectors: dict[Resource, Reflector] = {}
        self._subscribers: defaultdict[Resource, list[Subscriber]] = defaultdict(list)

    def of(self, resource: Resource) -> Reflector:
        """The copy of one collection, over all namespaces."""
        if resource not in self._reflectors:
            self._reflectors[resource] = Reflector(
                self.client, resource, on_change=lambda change: self._tell(resource, change)
            )
        return self._reflectors[resource]

    def subscribe(self, resource: Resource, *subscribers: Subscriber) -> None:
        """Each subscriber is called for each change, in the order of subscription."""
        self.of(resource)
        self._subscribers[resource].extend(subscribers)

    def _tell(self, resource: Resource, change: Change) -> None:
        for subscriber in self._subscribers[resource]:
            subscriber(change)

    async def run(self) -> None:
        """Follows all collections until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors.values():
                group.create_task(reflector.run())

    async def wait_synced(self) -> None:
        """Returns once every collection was listed."""
        for reflector in self._reflectors.values():
            await reflector.wait_synced()


def _version(item: Json) -> int:
    """A resourceVersion as a number: they are ordered (KEP-5504), also on real clusters."""
    text = str(item["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
