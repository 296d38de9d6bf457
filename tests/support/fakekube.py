"""An API server in memory: the `KubeClient` Protocol over a dict, with watches and scales.

For components that stand at the edge of a cluster. It keeps resource versions, tells watchers of
every change and refuses what is stale; it knows no schema and runs no controller. ``calls`` counts
what was asked of it, ``away`` makes every call fail as if the server were gone.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from beamlit_operator.kube import ApiError, Json, ListResult, Resource, WatchEvent

Key = tuple[str, str]


class FakeKube:
    """One cluster."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, Json]] = {}
        self._history: list[tuple[int, Resource, WatchEvent]] = []
        self._version = itertools.count(1)
        self._last = 0
        self._changed = asyncio.Condition()
        self._away = False
        self.calls: Counter[tuple[str, str]] = Counter()
        self.refuse_scale: ApiError | None = None
        self.on_scale: Callable[[str, str, int], None] | None = None

    @property
    def away(self) -> bool:
        return self._away

    async def set_away(self, away: bool) -> None:
        """Takes the server away, watches included, or brings it back."""
        self._away = away
        async with self._changed:
            self._changed.notify_all()

    def _count(self, verb: str, resource: Resource, subresource: str | None = None) -> None:
        if self._away:
            raise ApiError(0, "Unreachable", "connection refused")
        what = resource.plural + (f"/{subresource}" if subresource else "")
        self.calls[(verb, what)] += 1

    async def put(self, resource: Resource, body: Json) -> Json:
        """Creates or replaces an object, as somebody else would."""
        metadata = body["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        known = self._objects.setdefault(resource, {})
        return await self._store(resource, key, body, "MODIFIED" if key in known else "ADDED")

    async def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Deletes an object, as somebody else would."""
        gone = copy.deepcopy(self._objects[resource].pop((namespace, name)))
        await self._tell(resource, "DELETED", gone)

    async def _store(self, resource: Resource, key: Key, body: Json, how: Any) -> Json:
        stored = copy.deepcopy(body)
        stored.setdefault("apiVersion", resource.api_version)
        stored.setdefault("kind", resource.kind)
        self._objects.setdefault(resource, {})[key] = stored
        await self._tell(resource, how, stored)
        return copy.deepcopy(stored)

    async def _tell(self, resource: Resource, how: Any, stored: Json) -> None:
        self._last = next(self._version)
        stored["metadata"]["resourceVersion"] = str(self._last)
        self._history.append((self._last, resource, WatchEvent(how, copy.deepcopy(stored))))
        async with self._changed:
            self._changed.notify_all()

    def _found(self, resource: Resource, name: str, namespace: str | None) -> Json:
        try:
            return self._objects.get(resource, {})[(namespace or "", name)]
        except KeyError:
            raise ApiError(404, "NotFound", f"{resource.plural} {name!r} not found") from None

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json:
        self._count("get", resource, subresource)
        found = copy.deepcopy(self._found(resource, name, namespace))
        return _scale_of(found) if subresource == "scale" else found

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        self._count("list", resource)
        take = each or (lambda item: item)
        items = [
            take(copy.deepcopy(item))
            for (space, _), item in self._objects.get(resource, {}).items()
            if namespace in (None, space) and _selected(item, label_selector)
        ]
        return ListResult(items, str(self._last))

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        self._count("create", resource, subresource)
        if name or subresource:
            raise ApiError(501, "NotImplemented", "this fake has no subresources that are created")
        return await self.put(resource, body)

    async def update(
        self, resource: Resource, body: Json, *, subresource: str | None = None
    ) -> Json:
        self._count("update", resource, subresource)
        return await self.put(resource, body)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        body: Json,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Json:
        self._count("patch", resource, subresource)
        if subresource == "scale" and self.refuse_scale is not None:
            raise self.refuse_scale
        known = self._found(resource, name, namespace)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, known["metadata"]["resourceVersion"]):
            raise ApiError(409, "Conflict", f"{name!r} changed meanwhile")
        patched = _merged(known, body)
        result = await self._store(resource, (namespace or "", name), patched, "MODIFIED")
        if subresource == "scale" and self.on_scale is not None:
            self.on_scale(namespace or "", name, patched["spec"]["replicas"])
        return _scale_of(result) if subresource == "scale" else result

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        raise ApiError(501, "NotImplemented", "this fake has no server-side apply")

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        self._count("delete", resource)
        self._found(resource, name, namespace)
        await self.remove(resource, namespace or "", name)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> AsyncIterator[WatchEvent]:
        self._count("watch", resource)
        seen = int(resource_version or 0)
        while True:
            fresh = [entry for entry in self._history if entry[0] > seen]
            for version, kind, event in fresh:
                seen = version
                if kind == resource and _selected(event.object, label_selector):
                    yield WatchEvent(event.type, copy.deepcopy(event.object))
            async with self._changed:
                while not self._away and self._last <= seen:
                    await self._changed.wait()
            if self._away:
                raise ApiError(0, "Unreachable", "the watch was cut")


def _scale_of(obj: Json) -> Json:
    metadata = obj["metadata"]
    kept = ("name", "namespace", "resourceVersion")
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": obj.get("spec", {}).get("replicas", 0)},
    }


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _selected(item: Json, selector: str | None) -> bool:
    labels = item["metadata"].get("labels") or {}
    for term in filter(None, (selector or "").split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
