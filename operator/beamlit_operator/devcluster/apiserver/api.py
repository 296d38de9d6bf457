"""The verbs: get, list, create, update, patch, apply, delete.

The one code path behind HTTP and the in-process client. Between reading an object and committing
its successor nothing else runs, except admission webhooks; a write that was overtaken meanwhile
starts again (patches) or is refused (updates that name a version).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from beamlit_operator.devcluster.apiserver import preparing, scaling
from beamlit_operator.devcluster.apiserver.admission_review import Admission, Review
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    no_such_path,
    not_allowed,
    not_found,
)
from beamlit_operator.devcluster.apiserver.metadata import generated_name
from beamlit_operator.devcluster.apiserver.patches import APPLY_PATCH, patched
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.removing import (
    Deletion,
    deletion_step,
    is_ready_to_go,
)
from beamlit_operator.devcluster.apiserver.served import Registry, Served, wrong_kind
from beamlit_operator.devcluster.apiserver.store import Collection, Entry, Key, Store, duplicate
from beamlit_operator.devcluster.apiserver.typed import check_typed
from beamlit_operator.kube import ApiError, Json

ATTEMPTS: Final = 8
"""How often a patch starts again when it was overtaken, before it is refused with 409."""


class Api:
    """The verbs over one store and registry."""

    def __init__(self, store: Store, registry: Registry, admission: Admission) -> None:
        self.store = store
        self.registry = registry
        self._admission = admission
        self.issue_token: Callable[[str, str, Any], Json] | None = None
        """Answers a TokenRequest for the ServiceAccount of a namespace and name."""

    def collection(self, served: Served) -> Collection:
        """Where the objects of ``served`` are."""
        return self.store.collection(served.resource)

    def get(self, served: Served, key: Key) -> Entry:
        """One object.

        Raises:
            ApiError: 404.
        """
        entry = self.collection(served).objects.get(key)
        if entry is None:
            raise not_found(served.group, served.plural, key.name)
        return entry

    async def create(self, served: Served, namespace: str, body: Any, options: Options) -> Entry:
        """Creates an object from ``body``, which becomes the server's own.

        Raises:
            ApiError: 400, 403, 404, 409 or 422.
        """
        item = preparing.checked_body(served, body)
        metadata = item["metadata"]
        self._place(served, namespace, metadata)
        prefix = metadata.get("generateName", "")
        generated = not metadata.get("name") and bool(prefix)
        if generated:
            metadata["name"] = generated_name(prefix)
        key = Key(namespace, preparing.need_name(served, item))
        if metadata.get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        preparing.decode(served, item, options, creating=True)
        preparing.new_object(served, item, options)
        preparing.own_created(served, item, options)
        return await self._insert(served, key, item, options)

    def _place(self, served: Served, namespace: str, metadata: Json) -> None:
        if not served.namespaced:
            metadata.pop("namespace", None)
            return
        if not namespace:
            raise not_allowed(f"creating a {served.kind} without a namespace")
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        metadata["namespace"] = namespace

    async def _insert(self, served: Served, key: Key, item: Json, options: Options) -> Entry:
        review = Review("CREATE", served, key, item, None, "", options)
        concerned = self._admission.concerns(review)
        if concerned:
            item = await self._admission.mutate(review)
            preparing.decode(served, item, options, creating=False)
        self._check_namespace(served, key, item["metadata"]["name"])
        if key in self.collection(served).objects:
            raise already_exists(served.group, served.plural, key.name)
        preparing.check(served, item, None, warnings=options.warnings)
        if concerned:
            await self._admission.validate(Review("CREATE", served, key, item, None, "", options))
            if key in self.collection(served).objects:
                raise already_exists(served.group, served.plural, key.name)
            self._check_namespace(served, key, key.name)
        if options.dry_run:
            return Entry(key, item, 0)
        return self.store.commit(served.resource, key, item)

    def _check_namespace(self, served: Served, key: Key, name: str) -> None:
        if not served.namespaced:
            return
        home = self.store.collection("namespaces").objects.get(Key("", key.namespace))
        if home is None:
            raise not_found("", "namespaces", key.namespace)
        if home.obj["metadata"].get("deletionTimestamp"):
            error = forbidden(
                served.group,
                served.plural,
                name,
                f"unable to create new content in namespace {key.namespace} because it is being "
                "terminated",
            )
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {key.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = {**error.details, "causes": [cause]}
            raise error

    async def update(
        self, served: Served, key: Key, body: Any, options: Options, *, subresource: str = ""
    ) -> Entry:
        """PUT: replaces the object, or the part of it that the subresource is.

        Raises:
            ApiError: 400, 404, 409 or 422.
        """
        if subresource == "scale":
            number, version = scaling.wanted(served, key, body)

            def scaled(entry: Entry) -> Json:
                if version not in ("", entry.obj["metadata"]["resourceVersion"]):
                    raise conflict(served.group, served.plural, key.name)
                return scaling.with_replicas(entry.view(served.api_version), served, number)

            return await self._modify(served, key, scaled, options, subresource)

        preparing.check_named(preparing.checked_body(served, body)["metadata"], key.name)
        return await self._modify(
            served,
            key,
            lambda _: body,
            options,
            subresource,
            retry=not _version_of(body),
            replacing=True,
        )

    async def patch(
        self,
        served: Served,
        key: Key,
        patch: Any,
        media_type: str,
        options: Options,
        *,
        subresource: str = "",
    ) -> tuple[Entry, bool]:
        """PATCH in any of the four formats; the second value says whether it created the object.

        Raises:
            ApiError: 400, 404, 409, 415 or 422.
        """
        if media_type == APPLY_PATCH:
            return await self.apply(served, key, patch, options, subresource=subresource)

        def change(entry: Entry) -> Json:
            view = entry.view(served.api_version)
            if subresource != "scale":
                return patched(view, patch, media_type, served)
            scale = patched(scaling.scale_of(entry, served), patch, media_type, served)
            number, _ = scaling.wanted(served, key, scale)
            return scaling.with_replicas(view, served, number)

        try:
            return await self._modify(served, key, change, options, subresource), False
        except preparing.UndecodableError as error:
            # What a patch makes of the object is the patch's fault.
            cause = Cause("FieldValueInvalid", f"Invalid value: {error.message}", "patch")
            raise invalid("", "", "", [cause]) from error

    async def apply(
        self, served: Served, key: Key, config: Any, options: Options, *, subresource: str = ""
    ) -> tuple[Entry, bool]:
        """Server-side apply; the second value says whether it created the object."""
        if not isinstance(config, dict):
            raise bad_request("the applied configuration must be an object")
        if subresource == "scale":
            number, _ = scaling.wanted(served, key, config)
            config = scaling.partial_config(served, key, number)
        if not config.get("apiVersion") or not config.get("kind"):
            raise bad_request("invalid object type: /, Kind=")
        mistaken = wrong_kind(served, config)
        if mistaken is not None:
            raise mistaken
        check_typed(served, config)
        for _ in range(ATTEMPTS):
            entry = self.collection(served).objects.get(key)
            if entry is None:
                if subresource:
                    raise not_found(served.group, served.plural, key.name)
                return await self._apply_new(served, key, duplicate(config), options), True
            done = await self._apply_once(served, entry, duplicate(config), options, subresource)
            if done is not None:
                return done, False
        raise conflict(served.group, served.plural, key.name)

    async def _apply_new(self, served: Served, key: Key, config: Json, options: Options) -> Entry:
        metadata = config.setdefault("metadata", {})
        if metadata.get("uid"):
            raise conflict(
                served.group,
                served.plural,
                key.name,
                f"uid mismatch: the provided object specified uid {metadata['uid']}, and no "
                "existing object was found",
            )
        preparing.check_named(metadata, key.name)
        self._place(served, key.namespace, metadata)
        live: Json = {"metadata": {}}
        merged, fields = preparing.applied_object(served, live, config, options, subresource="")
        item: Json = duplicate(merged)
        preparing.checked_body(served, item)
        preparing.decode(served, item, options, creating=True, applied=True)
        preparing.new_object(served, item, options)
        item["metadata"]["managedFields"] = fields
        return await self._insert(served, key, item, options)

    async def _apply_once(
        self, served: Served, entry: Entry, config: Json, options: Options, subresource: str
    ) -> Entry | None:
        """None when another write came between."""
        view = entry.view(served.api_version)
        merged, fields = preparing.applied_object(
            served, view, config, options, subresource=subresource
        )
        same_owners = fields == (view["metadata"].get("managedFields") or [])
        if merged is view and same_owners:
            return entry
        item = _private(merged, subresource)
        new = preparing.changed_object(
            served, entry, item, options, subresource=subresource, managed=fields
        )
        if new is None:
            return entry
        return await self._replace(served, entry, new, options, subresource)

    async def _modify(
        self,
        served: Served,
        key: Key,
        change: Callable[[Entry], Json],
        options: Options,
        subresource: str,
        *,
        retry: bool = True,
        replacing: bool = False,
    ) -> Entry:
        for _ in range(ATTEMPTS if retry else 1):
            entry = self.get(served, key)
            item = _private(change(entry), subresource)
            new = preparing.changed_object(
                served,
                entry,
                item,
                options,
                subresource=subresource,
                replacing=replacing,
            )
            if new is None:
                return entry
            done = await self._replace(served, entry, new, options, subresource)
            if done is not None:
                return done
        raise conflict(served.group, served.plural, key.name)

    async def _replace(
        self, served: Served, entry: Entry, new: Json, options: Options, subresource: str
    ) -> Entry | None:
        """Checks and commits ``new`` in the place of ``entry``; None when it was overtaken."""
        key = entry.key
        review = Review("UPDATE", served, key, new, entry.obj, subresource, options)
        concerned = self._admission.concerns(review)
        if concerned:
            new = await self._admission.mutate(review)
            preparing.decode(served, new, options, creating=False)
        preparing.check(served, new, entry.obj, warnings=options.warnings)
        if concerned:
            await self._admission.validate(
                Review("UPDATE", served, key, new, entry.obj, subresource, options)
            )
        if self.collection(served).objects.get(key) is not entry:
            return None
        if options.dry_run:
            return Entry(key, new, entry.version)
        if is_ready_to_go(served, new):
            return self._finish(served, key, new)
        return self.store.commit(served.resource, key, new)

    def _finish(self, served: Served, key: Key, last: Json) -> Entry:
        """Removes an object whose last finalizer went."""
        self.store.collection(served.resource).objects[key] = Entry(
            key, last, self.store.collection(served.resource).objects[key].version
        )
        return self.store.remove(served.resource, key)

    async def delete(
        self, served: Served, key: Key, deletion: Deletion, options: Options
    ) -> tuple[Entry, bool]:
        """Deletes, or starts to; the second value says whether the object is gone.

        Raises:
            ApiError: 403, 404 or 409.
        """
        while True:
            entry = self.get(served, key)
            deletion.check(served, entry)
            review = Review("DELETE", served, key, None, entry.obj, "", options)
            if self._admission.concerns(review):
                await self._admission.validate(review)
                if self.collection(served).objects.get(key) is not entry:
                    continue
            new = deletion_step(served, entry, deletion)
            if options.dry_run:
                return entry, new is None
            if new is None:
                return self.store.remove(served.resource, key), True
            if new is entry.obj:
                return entry, False
            if is_ready_to_go(served, new):
                return self._finish(served, key, new), True
            return self.store.commit(served.resource, key, new), False

    async def delete_all(
        self, served: Served, chosen: list[Entry], deletion: Deletion, options: Options
    ) -> None:
        """DELETE of a collection: every object of ``chosen`` that is still there."""
        for number, entry in enumerate(chosen):
            try:
                await self.delete(served, entry.key, deletion, options)
            except ApiError as error:
                if not error.not_found:
                    raise
            if number % 100 == 99:
                await asyncio.sleep(0)

    def subresource(self, served: Served, name: str) -> None:
        """Refuses a subresource that ``served`` does not have.

        Raises:
            ApiError: 404.
        """
        if name and name not in served.subresources:
            raise no_such_path(served.group)


def _version_of(body: Json) -> str:
    return str((body.get("metadata") or {}).get("resourceVersion") or "")


def _private(item: Json, subresource: str) -> Json:
    """A copy that may be completed in place; of a status write, only what it may change is one."""
    if subresource != "status":
        return cast("Json", duplicate(item))
    return {**item, "metadata": {**item["metadata"]}, "status": duplicate(item.get("status"))}
