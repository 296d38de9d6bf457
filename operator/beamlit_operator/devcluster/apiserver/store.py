"""The objects: one counter of versions, one collection per resource, a bounded history for watches.

Stored objects are immutable: whoever changes one builds a new one (sharing what stayed the same)
and commits it. Everything here is synchronous and runs on the event loop, so a commit, its event
and what watchers see are one step.
"""

from __future__ import annotations

import json
import marshal
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from beamlit_operator.devcluster.apiserver import event_versions
from beamlit_operator.devcluster.apiserver.errors import expired
from beamlit_operator.kube import Json

HISTORY = 4096
"""Events kept per collection; a watch from before them is answered 410."""

SNAPSHOTS = 16
"""Paged lists that may be under way per collection; an older continue token is answered 410."""

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Key(NamedTuple):
    """An object's place in its collection; ``namespace`` is empty for cluster-scoped ones."""

    namespace: str
    name: str


def duplicate(value: Any) -> Any:
    """A deep copy of JSON; marshal is some ten times faster than copy.deepcopy."""
    return marshal.loads(marshal.dumps(value))  # noqa: S302 - our own bytes


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Entry:
    """One version of one object, encoded at most once per served ``apiVersion``."""

    __slots__ = ("_encoded", "key", "obj", "version")

    def __init__(self, key: Key, obj: Json, version: int) -> None:
        self.key = key
        self.obj = obj
        self.version = version
        self._encoded: dict[str, bytes] = {}

    def encoded(self, api_version: str) -> bytes:
        """The object's JSON as served under ``api_version``."""
        known = self._encoded.get(api_version)
        if known is None:
            head = {"kind": self.obj["kind"], "apiVersion": api_version}
            known = encode({**head, **self.view(api_version), "apiVersion": api_version})
            self._encoded[api_version] = known
        return known

    def item(self, api_version: str) -> bytes:
        """As :meth:`encoded`, without kind and ``apiVersion``: how typed lists have their items."""
        head = encode({"kind": self.obj["kind"], "apiVersion": api_version})
        return b"{" + self.encoded(api_version)[len(head) :]

    def view(self, api_version: str) -> Json:
        """The object under ``api_version``; shared, never to be modified."""
        if self.obj["apiVersion"] == api_version:
            return self.obj
        if api_version == event_versions.NEW:
            return event_versions.shown(self.obj)
        return {**self.obj, "apiVersion": api_version}

    def copy(self, api_version: str) -> Json:
        """A copy the caller may modify."""
        return cast("Json", duplicate(self.view(api_version)))


@dataclass(frozen=True, slots=True)
class Event:
    """One change: ``before`` is None for ADDED; ``entry`` of DELETED has the deletion's version."""

    type: EventType
    entry: Entry
    before: Entry | None


@dataclass(slots=True, eq=False)
class Collection:
    """All objects of one resource, in all namespaces and served versions."""

    resource: str
    objects: dict[Key, Entry] = field(default_factory=dict)
    namespaces: dict[str, dict[str, Entry]] = field(default_factory=dict)
    history: deque[Event] = field(default_factory=lambda: deque(maxlen=HISTORY))
    forgotten: int = 0
    """The newest version whose event is no longer in ``history``."""
    listeners: set[Callable[[Event], None]] = field(default_factory=set)
    snapshots: OrderedDict[int, list[Entry]] = field(default_factory=OrderedDict)

    def select(self, namespace: str | None) -> Iterator[Entry]:
        """The entries of one namespace (None: all), in no order."""
        if namespace is None:
            yield from self.objects.values()
        else:
            yield from self.namespaces.get(namespace, {}).values()

    def since(self, version: int) -> list[Event]:
        """The events after ``version``, oldest first.

        Raises:
            ApiError: 410 when some of them are forgotten.
        """
        if version < self.forgotten:
            raise expired(f"too old resource version: {version} ({self.forgotten})")
        found: list[Event] = []
        for event in reversed(self.history):
            if event.entry.version <= version:
                break
            found.append(event)
        found.reverse()
        return found

    def put(self, entry: Entry) -> Entry | None:
        """Places ``entry`` without an event; returns what it replaced."""
        before = self.objects.get(entry.key)
        self.objects[entry.key] = entry
        self.namespaces.setdefault(entry.key.namespace, {})[entry.key.name] = entry
        return before

    def drop(self, key: Key) -> Entry:
        """Removes the object at ``key`` without an event."""
        entry = self.objects.pop(key)
        names = self.namespaces[key.namespace]
        del names[key.name]
        if not names:
            del self.namespaces[key.namespace]
        return entry

    def record(self, event: Event) -> None:
        """Keeps ``event`` for late watchers and tells the present ones."""
        if len(self.history) == self.history.maxlen:
            self.forgotten = self.history[0].entry.version
        self.history.append(event)
        for listener in tuple(self.listeners):
            listener(event)


class Journal:
    """What a store writes its changes to; this one forgets them."""

    def write(self, resource: str, event: Event) -> None:
        """Called for every commit, before anybody sees it."""

    def close(self) -> None:
        """No more writes will follow."""


class Store:
    """All collections under one version counter."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.version = 1
        self.journal = journal or Journal()
        self._collections: dict[str, Collection] = {}
        self._floor = 0
        self.observers: list[Callable[[str, Event], None]] = []
        """Called after every commit with the resource and the event; for indexes."""

    def collection(self, resource: str) -> Collection:
        """The collection of ``plural.group``; made when first asked for."""
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = Collection(resource, forgotten=self._floor)
        return found

    @property
    def collections(self) -> tuple[Collection, ...]:
        """Every collection that was ever used."""
        return tuple(self._collections.values())

    def commit(self, resource: str, key: Key, obj: Json) -> Entry:
        """Stores ``obj`` (whose metadata this call may complete with its new version)."""
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        entry = Entry(key, obj, self.version)
        collection = self.collection(resource)
        before = collection.objects.get(key)
        event = Event("ADDED" if before is None else "MODIFIED", entry, before)
        self.journal.write(resource, event)
        collection.put(entry)
        self._announce(collection, event)
        return entry

    def remove(self, resource: str, key: Key) -> Entry:
        """Deletes the object for good; returns its last state, at the deletion's version."""
        self.version += 1
        collection = self.collection(resource)
        before = collection.drop(key)
        metadata = {**before.obj["metadata"], "resourceVersion": str(self.version)}
        entry = Entry(key, {**before.obj, "metadata": metadata}, self.version)
        event = Event("DELETED", entry, before)
        self.journal.write(resource, event)
        self._announce(collection, event)
        return entry

    def _announce(self, collection: Collection, event: Event) -> None:
        collection.record(event)
        for observer in self.observers:
            observer(collection.resource, event)

    def restore(self, resource: str, key: Key, obj: Json, version: int) -> None:
        """Places an object read back from the journal."""
        self.version = max(self.version, version)
        self.collection(resource).put(Entry(key, obj, version))

    def forget_before(self) -> None:
        """After a restart: watches from before now cannot be continued."""
        self._floor = self.version
        for collection in self._collections.values():
            collection.forgotten = self.version
