"""The life of namespaces and definitions: what a new one gets, emptying one that goes."""

from __future__ import annotations

import asyncio
import logging

from beamlit_operator.devcluster.apiserver.accounts import ROOT_CA
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.crds import CLEANUP, CRDS
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.removing import Deletion
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry, Event, Key
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.kube import ApiError, Json

log = logging.getLogger(__name__)

_OPTIONS = Options(manager="namespace-controller", user=component("namespace-controller"))

_GIVEN = (("serviceaccounts", "default"), ("configmaps", ROOT_CA))
"""What every namespace has, and gets again when somebody deletes it."""

RECHECK = 0.2
"""Seconds between looks at a namespace whose contents are still going."""


class NamespaceLifecycle:
    """Gives every namespace what pods in it expect, and ends those that are deleted.

    A CustomResourceDefinition that is deleted is ended the same way: its objects first.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._queued: set[tuple[str, str]] = set()
        self.authority = ""
        """The certificate of the API server's authority, published in every namespace."""

    def load(self) -> None:
        """Looks at everything once."""
        for resource in ("namespaces", CRDS):
            for key in self._api.store.collection(resource).objects:
                self._add(resource, key.name)

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit."""
        if event.type == "DELETED":
            if (resource, event.entry.key.name) in _GIVEN:
                self._add("namespaces", event.entry.key.namespace)
            return
        if resource in ("namespaces", CRDS) and (
            event.before is None or event.entry.obj["metadata"].get("deletionTimestamp")
        ):
            self._add(resource, event.entry.key.name)

    def _add(self, resource: str, name: str) -> None:
        if (resource, name) not in self._queued:
            self._queued.add((resource, name))
            self._queue.put_nowait((resource, name))

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            item = await self._queue.get()
            self._queued.discard(item)
            try:
                done = await (self._namespace if item[0] == "namespaces" else self._definition)(
                    item[1]
                )
            except ApiError as error:
                log.debug("%s %s: %s; trying again", *item, error)
                done = False
            except Exception:
                log.exception("%s %s failed", *item)
                done = True
            if not done:
                asyncio.get_running_loop().call_later(RECHECK, self._add, *item)
            await asyncio.sleep(0)

    async def _namespace(self, name: str) -> bool:
        """Whether nothing is left to do."""
        entry = self._api.store.collection("namespaces").objects.get(Key("", name))
        if entry is None:
            return True
        if not entry.obj["metadata"].get("deletionTimestamp"):
            await self.give(name)
            return True
        if await self._empty(name):
            return await self._release(entry)
        return False

    async def give(self, namespace: str) -> None:
        """Creates what a namespace has of itself, where it is missing."""
        for resource, name in _GIVEN:
            served = self._api.registry.find("", "v1", resource)
            if Key(namespace, name) not in self._api.collection(served).objects:
                body: Json = {"metadata": {"name": name}}
                if name == ROOT_CA:
                    body["data"] = {"ca.crt": self.authority}
                await self._api.create(served, namespace, body, _OPTIONS)

    def publish_authority(self, certificate: str) -> None:
        """Sets what ``kube-root-ca.crt`` holds; copies of an older one are made anew."""
        self.authority = certificate
        stored = self._api.store.collection("configmaps")
        for entry in list(stored.objects.values()):
            if entry.key.name == ROOT_CA and entry.obj.get("data") != {"ca.crt": certificate}:
                self._api.store.remove("configmaps", entry.key)

    async def _empty(self, namespace: str) -> bool:
        """Deletes what is in the namespace; whether nothing was left."""
        left = False
        for collection in self._api.store.collections:
            entries = list(collection.namespaces.get(namespace, {}).values()) if namespace else []
            served = self._api.registry.by_resource(collection.resource) if entries else None
            if served is not None:
                left = True
                await self._delete(served, entries)
        return not left

    async def _delete(self, served: Served, entries: list[Entry]) -> None:
        going = [e for e in entries if not e.obj["metadata"].get("deletionTimestamp")]
        await self._api.delete_all(served, going, Deletion("Background"), _OPTIONS)

    async def _release(self, entry: Entry) -> bool:
        """Takes the namespace's own finalizer away."""
        finalizers = (entry.obj.get("spec") or {}).get("finalizers") or []
        left = [name for name in finalizers if name != "kubernetes"]
        if left == finalizers:
            return True
        served = self._api.registry.find("", "v1", "namespaces")
        body = entry.copy("v1")
        body["spec"]["finalizers"] = left
        await self._api.update(served, entry.key, body, _OPTIONS)
        return True

    async def _definition(self, name: str) -> bool:
        entry = self._api.store.collection(CRDS).objects.get(Key("", name))
        if entry is None or not entry.obj["metadata"].get("deletionTimestamp"):
            return True
        if CLEANUP not in (entry.obj["metadata"].get("finalizers") or ()):
            return True
        spec = entry.obj["spec"]
        served = self._api.registry.by_resource(f"{spec['names']['plural']}.{spec['group']}")
        if served is not None:
            entries = list(self._api.collection(served).objects.values())
            if entries:
                await self._delete(served, entries)
                return False
        crds = self._api.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        body = entry.copy("apiextensions.k8s.io/v1")
        body["metadata"]["finalizers"] = [f for f in body["metadata"]["finalizers"] if f != CLEANUP]
        await self._api.update(crds, entry.key, body, _OPTIONS)
        return True
