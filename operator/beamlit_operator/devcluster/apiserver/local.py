"""The in-process client: :class:`~beamlit_operator.kube.KubeClient` without HTTP.

Every call takes the path a request takes, so that the controllers of the embedded cluster see the
same defaults, refusals and conflicts as anybody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal

from beamlit_operator.devcluster.apiserver import scaling
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.errors import bad_request, not_implemented
from beamlit_operator.devcluster.apiserver.listing import page
from beamlit_operator.devcluster.apiserver.patches import MERGE_PATCH
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.removing import Deletion
from beamlit_operator.devcluster.apiserver.selectors import (
    Matcher,
    both,
    field_matcher,
    label_matcher,
)
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry, Key, duplicate
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.devcluster.apiserver.watch import Watch
from beamlit_operator.kube import Json, ListResult, Resource, WatchEvent


class LocalClient:
    """A :class:`~beamlit_operator.kube.KubeClient` on the server's own event loop.

    What ``get``, ``list`` and the writes return is the caller's own. Objects out of ``watch`` are
    the stored ones, shared by all readers: never modify one. A copy for each change was two fifths
    of what a write cost.
    """

    def __init__(self, api: Api, *, manager: str = "devcluster") -> None:
        """``manager`` is the field manager of the writes that name none."""
        self._api = api
        self._manager = manager

    def named(self, manager: str) -> LocalClient:
        """A client whose writes belong to another field manager."""
        return LocalClient(self._api, manager=manager)

    def _options(self) -> Options:
        return Options(manager=self._manager, user=component(self._manager))

    def _find(self, resource: Resource, subresource: str | None) -> Served:
        served = self._api.registry.of(resource)
        self._api.subresource(served, subresource or "")
        return served

    def _answer(self, served: Served, entry: Entry, subresource: str | None) -> Json:
        if subresource == "scale":
            return scaling.scale_of(entry, served)
        return entry.copy(served.api_version)

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json:
        """See :meth:`KubeClient.get`."""
        served = self._find(resource, subresource)
        return self._answer(
            served, self._api.get(served, _key(served, namespace, name)), subresource
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        """See :meth:`KubeClient.list`."""
        served = self._find(resource, None)
        found = page(
            self._api.store,
            self._api.collection(served),
            namespace=namespace,
            matcher=_matcher(served, label_selector, field_selector),
            limit=0,
            token="",
        )
        take = each or (lambda item: item)
        items = [take(entry.copy(served.api_version)) for entry in found.entries]
        return ListResult(items, str(found.version))

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        """See :meth:`KubeClient.create`."""
        if subresource is not None:
            issue = self._api.issue_token
            if subresource != "token" or issue is None or not namespace or not name:
                raise not_implemented(f"creating {resource.plural}/{subresource} in process")
            return issue(namespace, name, duplicate(body))
        served = self._find(resource, None)
        namespace = namespace or (body.get("metadata") or {}).get("namespace") or ""
        entry = await self._api.create(
            served, namespace if served.namespaced else "", duplicate(body), self._options()
        )
        return entry.copy(served.api_version)

    async def update(
        self, resource: Resource, body: Json, *, subresource: str | None = None
    ) -> Json:
        """See :meth:`KubeClient.update`."""
        served = self._find(resource, subresource)
        metadata = body["metadata"]
        entry = await self._api.update(
            served,
            _key(served, metadata.get("namespace"), metadata["name"]),
            duplicate(body),
            self._options(),
            subresource=subresource or "",
        )
        return self._answer(served, entry, subresource)

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
        """See :meth:`KubeClient.merge_patch`."""
        if field_manager is not None:
            named = self.named(field_manager)
            return await named.merge_patch(resource, name, body, namespace, subresource=subresource)
        served = self._find(resource, subresource)
        entry, _ = await self._api.patch(
            served,
            _key(served, namespace, name),
            duplicate(body),
            MERGE_PATCH,
            self._options(),
            subresource=subresource or "",
        )
        return self._answer(served, entry, subresource)

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        """See :meth:`KubeClient.apply`."""
        served = self._find(resource, subresource)
        metadata = body["metadata"]
        options = Options(manager=field_manager, force=force, user=component(field_manager))
        entry, _ = await self._api.apply(
            served,
            _key(served, metadata.get("namespace"), metadata["name"]),
            body,
            options,
            subresource=subresource or "",
        )
        return self._answer(served, entry, subresource)

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
        """See :meth:`KubeClient.delete`."""
        served = self._find(resource, None)
        deletion = Deletion(propagation, uid or "", "", grace_period_seconds)
        await self._api.delete(served, _key(served, namespace, name), deletion, self._options())

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
        """See :meth:`KubeClient.watch`."""
        served = self._find(resource, None)
        watch = Watch(
            self._api.store,
            self._api.collection(served),
            namespace=namespace,
            matcher=_matcher(served, label_selector, field_selector),
            version=int(resource_version) if resource_version not in ("", "0") else None,
            timeout=timeout_seconds,
            bookmarks=True,
        )
        try:
            async for batch in watch.batches():
                for seen in batch:
                    if seen.entry is None:
                        yield WatchEvent("BOOKMARK", bookmark(served, seen.version))
                    else:
                        yield WatchEvent(seen.kind, seen.entry.view(served.api_version))
        finally:
            watch.close()


def bookmark(served: Served, version: int) -> Json:
    """The object of a BOOKMARK event."""
    return {
        "kind": served.kind,
        "apiVersion": served.api_version,
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
    }


def _key(served: Served, namespace: str | None, name: str) -> Key:
    if not served.namespaced:
        return Key("", name)
    if not namespace:
        raise bad_request(f"a {served.kind} needs a namespace")
    return Key(namespace, name)


def _matcher(served: Served, labels: str | None, fields: str | None) -> Matcher | None:
    return both(
        label_matcher(labels) if labels else None,
        field_matcher(fields, served.resource, served.selectable) if fields else None,
    )
