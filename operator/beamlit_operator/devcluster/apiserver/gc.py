"""Garbage collection: dependents go when their owners do.

An index follows owner references by uid, so that finding dependents never scans. Per key on the
queue the truth table is

    object is            its owners                what happens
    owner gone           -                         dependents are looked at
    dependent            all absent                deleted in the background
    dependent            some absent, some live    the absent references are dropped
    being deleted        foreground                deleted once no blocking dependent is left
    being deleted        orphan                    dependents lose the reference, then it goes
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.patches import MERGE_PATCH
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.removing import FOREGROUND, ORPHAN, Deletion
from beamlit_operator.devcluster.apiserver.store import Entry, Event, Key
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.kube import ApiError, Json

log = logging.getLogger(__name__)

Place = tuple[str, Key]
"""A resource (``plural.group``) and a key in it."""

_OPTIONS = Options(manager="garbage-collector", user=component("garbage-collector"))

RETRY = 0.5
"""Seconds until a failed step is tried again."""


class GarbageCollector:
    """Observes every commit and works on a queue of places."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._uids: dict[str, Place] = {}
        self._dependents: dict[str, set[Place]] = defaultdict(set)
        self._queue: asyncio.Queue[Place] = asyncio.Queue()
        self._queued: set[Place] = set()

    def load(self) -> None:
        """Indexes what is in the store already."""
        for collection in self._api.store.collections:
            for entry in collection.objects.values():
                self._index(collection.resource, entry)
        for collection in self._api.store.collections:
            for entry in collection.objects.values():
                metadata = entry.obj["metadata"]
                if metadata.get("ownerReferences") or metadata.get("deletionTimestamp"):
                    self._add((collection.resource, entry.key))

    def _add(self, place: Place) -> None:
        if place not in self._queued:
            self._queued.add(place)
            self._queue.put_nowait(place)

    def _index(self, resource: str, entry: Entry) -> None:
        metadata = entry.obj["metadata"]
        place = (resource, entry.key)
        self._uids[metadata["uid"]] = place
        for owner in metadata.get("ownerReferences") or ():
            self._dependents[owner["uid"]].add(place)

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit; cheap for objects without owners and dependents."""
        metadata = event.entry.obj["metadata"]
        place = (resource, event.entry.key)
        uid = metadata["uid"]
        owners = metadata.get("ownerReferences") or ()
        before = event.before.obj["metadata"] if event.before is not None else {}
        known = before.get("ownerReferences") or ()
        if event.type == "DELETED":
            self._uids.pop(uid, None)
            for owner in {o["uid"] for o in (*owners, *known)}:
                self._unlink(owner, place)
                # The owner may be waiting for its last dependent.
                if owner in self._uids:
                    self._add(self._uids[owner])
            for dependent in self._dependents.get(uid, ()):
                self._add(dependent)
            return
        if event.type == "ADDED":
            self._uids[uid] = place
        if owners is not known and owners != known:
            for owner in known:
                self._unlink(owner["uid"], place)
                if owner["uid"] in self._uids:
                    self._add(self._uids[owner["uid"]])
            for owner in owners:
                self._dependents[owner["uid"]].add(place)
            if owners:
                self._add(place)
        if metadata.get("deletionTimestamp") and metadata.get("finalizers") != before.get(
            "finalizers"
        ):
            self._add(place)

    def _unlink(self, uid: str, place: Place) -> None:
        places = self._dependents.get(uid)
        if places is not None:
            places.discard(place)
            if not places:
                del self._dependents[uid]

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            place = await self._queue.get()
            self._queued.discard(place)
            try:
                await self._work(place)
            except ApiError as error:
                if not error.not_found:
                    log.debug("collecting %s: %s; trying again", place, error)
                    asyncio.get_running_loop().call_later(RETRY, self._add, place)
            except Exception:
                log.exception("collecting %s failed", place)
            # Others get their turn even while thousands of objects go.
            await asyncio.sleep(0)

    def _entry(self, place: Place) -> Entry | None:
        return self._api.store.collection(place[0]).objects.get(place[1])

    async def _work(self, place: Place) -> None:
        entry = self._entry(place)
        if entry is None:
            return
        metadata = entry.obj["metadata"]
        if metadata.get("deletionTimestamp"):
            finalizers = metadata.get("finalizers") or ()
            if FOREGROUND in finalizers:
                await self._foreground(place, entry)
            elif ORPHAN in finalizers:
                await self._orphan(place, entry)
        else:
            await self._dependent(place, entry)

    async def _dependent(self, place: Place, entry: Entry) -> None:
        owners = entry.obj["metadata"].get("ownerReferences") or []
        if not owners:
            return
        present = [owner for owner in owners if self._exists(owner, entry)]
        waiting = [owner for owner in present if self._waits(owner)]
        if present and len(present) > len(waiting):
            gone = [owner for owner in owners if owner not in present or owner in waiting]
            if gone:
                await self._set_owners(place, entry, [o for o in present if o not in waiting])
            return
        policy = (
            "Foreground" if waiting and self._dependents.get(entry.obj["metadata"]["uid"]) else None
        )
        await self._delete(place, entry, policy=policy)

    def _exists(self, owner: Json, entry: Entry) -> bool:
        """Whether the owner is there, in the same namespace or cluster-scoped."""
        place = self._uids.get(owner["uid"])
        if place is None:
            return False
        return place[1].namespace in ("", entry.key.namespace) and place[1].name == owner["name"]

    def _waits(self, owner: Json) -> bool:
        """Whether the owner is being deleted and waits for its dependents."""
        entry = self._entry(self._uids[owner["uid"]])
        if entry is None:
            return False
        metadata = entry.obj["metadata"]
        return bool(
            metadata.get("deletionTimestamp") and FOREGROUND in (metadata.get("finalizers") or ())
        )

    async def _foreground(self, place: Place, entry: Entry) -> None:
        uid = entry.obj["metadata"]["uid"]
        blocking = False
        for dependent in tuple(self._dependents.get(uid, ())):
            found = self._entry(dependent)
            if found is None:
                continue
            self._add(dependent)
            references = found.obj["metadata"].get("ownerReferences") or ()
            blocking = blocking or any(
                o["uid"] == uid and o.get("blockOwnerDeletion") for o in references
            )
        if not blocking:
            await self._drop_finalizer(place, entry, FOREGROUND)

    async def _orphan(self, place: Place, entry: Entry) -> None:
        uid = entry.obj["metadata"]["uid"]
        for dependent in tuple(self._dependents.get(uid, ())):
            found = self._entry(dependent)
            if found is not None:
                owners = found.obj["metadata"].get("ownerReferences") or []
                await self._set_owners(dependent, found, [o for o in owners if o["uid"] != uid])
        await self._drop_finalizer(place, entry, ORPHAN)

    async def _drop_finalizer(self, place: Place, entry: Entry, name: str) -> None:
        left = [f for f in entry.obj["metadata"].get("finalizers") or () if f != name]
        await self._patch(place, entry, {"finalizers": left or None})

    async def _set_owners(self, place: Place, entry: Entry, owners: list[Json]) -> None:
        await self._patch(place, entry, {"ownerReferences": owners or None})

    async def _patch(self, place: Place, entry: Entry, metadata: Json) -> None:
        served = self._api.registry.by_resource(place[0])
        if served is None:
            return
        body = {
            "metadata": {
                **metadata,
                "uid": entry.obj["metadata"]["uid"],
                "resourceVersion": entry.obj["metadata"]["resourceVersion"],
            }
        }
        await self._api.patch(served, entry.key, body, MERGE_PATCH, _OPTIONS)

    async def _delete(self, place: Place, entry: Entry, *, policy: str | None) -> None:
        served = self._api.registry.by_resource(place[0])
        if served is None:
            return
        metadata = entry.obj["metadata"]
        deletion = Deletion(
            propagation="Foreground" if policy else None,
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
        )
        await self._api.delete(served, entry.key, deletion, _OPTIONS)
