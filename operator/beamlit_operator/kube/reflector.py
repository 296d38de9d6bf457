"""Keeps a copy of one collection of the cluster, and tells who cares about each change.

The same idea as client-go's Reflector: LIST, then WATCH from the list's resourceVersion; on 410 or
a lost connection LIST again and report the difference. A consumer sees every object's latest state
and never misses a deletion.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from beamlit_operator.kube.client import ApiError, Json, KubeClient
from beamlit_operator.kube.resources import Resource

log = logging.getLogger(__name__)

FIRST_RETRY = 0.25
"""Seconds before the first new attempt after a failure; doubles up to :data:`LAST_RETRY`."""

LAST_RETRY = 10.0


class ObjectKey(NamedTuple):
    """Identifies an object of one kind; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object: ``old`` is None when it is new, ``new`` when it is gone."""

    key: ObjectKey
    old: Json | None
    new: Json | None


class Reflector(Mapping[ObjectKey, Json]):
    """A read-only mapping that follows one collection while :meth:`run` runs.

    Objects in it are shared: never modify one.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: Callable[[Change], None] | None = None,
        keep: Callable[[Json], Json] = lambda item: item,
    ) -> None:
        """``on_change`` is called on the event loop for every difference, and must not block.

        ``keep`` says what is kept of an object, with its name, namespace and resourceVersion. That
        is also what ``Change.old`` has; ``Change.new`` is the object as it arrived.
        """
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change
        self._keep = keep
        self._objects: dict[ObjectKey, Json] = {}
        self._synced = asyncio.Event()
        self._version: str | None = None
        self._heard: float | None = None

    def __getitem__(self, key: ObjectKey) -> Json:
        return self._objects[key]

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    async def wait_synced(self) -> None:
        """Returns once the collection was listed for the first time."""
        await self._synced.wait()

    @property
    def synced(self) -> bool:
        """Whether the collection was listed at least once."""
        return self._synced.is_set()

    @property
    def resource(self) -> Resource:
        """What is followed."""
        return self._resource

    @property
    def silent(self) -> float:
        """Seconds since the API server last told anything: a listing, a change, a bookmark, or the
        orderly end of a watch (at its timeout, so every five minutes at the latest). Infinite
        before the first listing."""
        if self._heard is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._heard

    async def run(self) -> None:
        """Follows the collection until cancelled; survives every API error."""
        delay = FIRST_RETRY
        while True:
            try:
                if self._version is None:
                    self._version = await self._relist()
                    delay = FIRST_RETRY
                started = asyncio.get_running_loop().time()
                await self._follow(self._version)
                self._hear()
                delay = FIRST_RETRY
                if asyncio.get_running_loop().time() - started < FIRST_RETRY:
                    # Something between us and the server cuts every watch short.
                    await asyncio.sleep(FIRST_RETRY)
            except ApiError as error:
                if error.gone and self._version is not None:
                    self._version = None
                    continue
                log.warning("watch of %s failed: %s", self._resource.plural, error)
                if error.status:
                    self._version = None
                # Jitter: many watchers of one restarted server must not return in step.
                await asyncio.sleep(error.retry_after or delay * random.uniform(0.8, 1.2))  # noqa: S311
                delay = min(delay * 2, LAST_RETRY)

    async def _relist(self) -> str:
        present: set[ObjectKey] = set()

        def take(item: Json) -> Json:
            key = _key_of(item)
            present.add(key)
            known = self._objects.get(key)
            if known is None or _version_of(known) != _version_of(item):
                self._put(key, item)
            return {}

        result = await self._client.list(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            each=take,
        )
        for key in [key for key in self._objects if key not in present]:
            self._put(key, None)
        self._synced.set()
        self._hear()
        return result.resource_version

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()

    async def _follow(self, version: str) -> None:
        async for event in self._client.watch(
            self._resource,
            self._namespace,
            resource_version=version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            self._hear()
            # Kept per event: a lost connection resumes after the last one seen, not before it.
            self._version = _version_of(event.object)
            if event.type == "DELETED":
                self._put(_key_of(event.object), None)
            elif event.type != "BOOKMARK":
                self._put(_key_of(event.object), event.object)

    def _put(self, key: ObjectKey, new: Json | None) -> None:
        old = self._objects.pop(key, None) if new is None else self._objects.get(key)
        if new is not None:
            self._objects[key] = self._keep(new)
        elif old is None:
            return
        if self._on_change is not None:
            try:
                self._on_change(Change(key, old, new))
            except Exception:
                log.exception("a consumer failed on a change of %s %s", self._resource.kind, key)


async def synced(reflectors: Iterable[Reflector], *, within: float) -> bool:
    """Waits until all were listed once, for so many seconds; whether they were."""
    try:
        async with asyncio.timeout(within):
            for reflector in reflectors:
                await reflector.wait_synced()
    except TimeoutError:
        return False
    return True


def identity_of(item: Json) -> Json:
    """What a reflector has to keep of an object to tell what changed, for those who keep the rest
    in a form of their own."""
    names = ("namespace", "name", "uid", "resourceVersion", "generation")
    return {"metadata": {name: v for name in names if (v := item["metadata"].get(name))}}


def _key_of(item: Json) -> ObjectKey:
    metadata = item["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _version_of(item: Json) -> str:
    return str(item["metadata"].get("resourceVersion", ""))
