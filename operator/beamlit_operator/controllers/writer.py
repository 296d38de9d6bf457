"""Carries out plans: the only code of the operator that writes to the cluster.

Writes are made only where the cluster differs from the plan, so carrying out a plan twice changes
nothing the second time. Answers go into the indexes at once.

The replicas of our Deployments belong to the autoscaler. Server-side apply never sets them, except
in the very first apply, which must: without a value the API server would start one replica. That
first apply makes our manager own the field, and an apply without it would then remove it. Scaling
takes the field from us. Until then an apply to an idle Deployment repeats the zero, for exactly the
version that was read; before one to a Deployment with pods, the field is handed to the autoscaler's
manager with the value it has.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from beamlit_operator.api import labels as names
from beamlit_operator.api.definitions import without
from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.drift import is_orphan, only_ours, ours, undoing
from beamlit_operator.controllers.ending import EndingError, is_ending
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.likeness import Settled, stamped
from beamlit_operator.controllers.plan import Deletion, Plan, Scale
from beamlit_operator.controllers.queue import RetryError
from beamlit_operator.kube import (
    DEPLOYMENTS,
    PODS,
    ApiError,
    Json,
    KubeClient,
    ObjectKey,
    Resource,
    resource_of,
)
from beamlit_operator.workloads.placing import has_replicas

log = logging.getLogger(__name__)

UNTYPED = "failed to create typed patch object"
"""How the API server refuses a server-side apply of a field that does not exist: with a 500."""

DELETE_AGAIN = 5.0
"""Seconds after which an object that is still there is deleted once more."""


class RefusedError(Exception):
    """The API server refuses an object, and would again: the deployment's status must say so."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(f"{kind} {name} was refused by the API server: {message}")


class Writer:
    """Writes what plans ask for."""

    def __init__(
        self,
        client: KubeClient,
        *,
        indexes: Indexes,
        children: dict[Resource, Children],
        announcer: Announcer,
        lacking: Callable[[str], Iterable[str]] = lambda _: (),
        on_made: Callable[[Json], None] = lambda _: None,
        on_gone: Callable[[ObjectKey], None] = lambda _: None,
    ) -> None:
        """``lacking`` names the fields that the cluster's definition of a kind lacks; ``on_made``
        gets objects that plans create, ``on_gone`` the keys of what was not there to be deleted."""
        self._on_made = on_made
        self._on_gone = on_gone
        self._lacking = lacking
        self._client = client
        self._indexes = indexes
        self._children = children
        self._announcer = announcer
        self._settled = Settled()
        for each in children.values():
            each.when_gone(self._settled.forget)
        self._clock = time.monotonic
        self._deleting: OrderedDict[str, float] = OrderedDict()
        self.writes = 0
        """API requests made so far that could change something."""

    @property
    def remembered(self) -> int:
        """Children of which is kept what the API server made of them."""
        return len(self._settled)

    async def carry_out(self, key: Key, live: Json, plan: Plan) -> None:
        """Brings the cluster to the plan. ``live`` is the object as the plan saw it.

        Raises:
            RefusedError: a child was refused; of the rest of the plan only pods were deleted.
            EndingError: the same, because the namespace is being deleted.
            RetryError: the API server was not able to answer now.
        """
        try:
            try:
                for wanted in plan.apply:
                    await self._apply(wanted, plan.first_replicas.get(wanted["metadata"]["name"]))
                for made in plan.create:
                    await self._create(key, made)
                for scale in plan.scale:
                    await self._scale(key, scale)
            except (RefusedError, EndingError, ApiError):
                # Pods outside the policies go, whatever else cannot be done.
                await self._delete_all(key, [d for d in plan.delete if d.resource is PODS])
                raise
            await self._delete_all(key, plan.delete)
            if plan.status is not None:
                await self.write_status(key, live, plan.status)
        except ApiError as error:
            raise RetryError(error.message or str(error), after=error.retry_after) from error
        for event in plan.events:
            self.writes += 1
            await self._announcer.announce(key, live, event)

    async def _delete_all(self, key: Key, deletions: Iterable[Deletion]) -> None:
        for deletion in deletions:
            await self._delete(key, deletion)

    async def end_orphans(self, key: Key) -> None:
        """Deletes what a deployment that is gone has left without an owner.

        Deleting it with ``--cascade=orphan`` would otherwise leave pods that no policy reaches.
        What still has its owner is the garbage collector's.

        Raises:
            RetryError: the API server was not able to answer now.
        """
        place = ObjectKey(key.workspace, key.name)
        left = [
            (resource, item["metadata"])
            for resource, children in self._children.items()
            for item in children.of(place)
            if is_orphan(item)
        ]
        try:
            # Asked, and not only remembered: all that runs would end by a mistake.
            if not left or await self._fresh(key.kind.resource, place) is not None:
                return
            because = "its ModelDeployment is gone, so nothing governs it"
            await self._delete_all(
                key, [Deletion(each, has["name"], has["uid"], because) for each, has in left]
            )
        except ApiError as error:
            raise RetryError(error.message or str(error), after=error.retry_after) from error

    async def write_status(self, key: Key, live: Json, status: Json) -> None:
        """Writes the status if it differs from what is there.

        Raises:
            ApiError: as the client does.
        """
        status = without(status, self._lacking(key.kind))
        if (live.get("status") or {}) == status:
            return
        self.writes += 1
        try:
            answer = await self._client.apply(
                key.kind.resource,
                {
                    "apiVersion": live["apiVersion"],
                    "kind": live["kind"],
                    "metadata": {"name": key.name, "namespace": key.workspace},
                    "status": status,
                },
                field_manager=names.STATUS_FIELD_MANAGER,
                subresource="status",
            )
        except ApiError as error:
            if not error.not_found:
                raise
            # Deleted meanwhile, and the watch did not say so yet (or never will).
            self._indexes.remove(
                key.kind,
                ObjectKey(key.workspace, key.name),
                uid=live["metadata"].get("uid", ""),
            )
            return
        self._indexes.put(key.kind, answer, own=True)

    async def _apply(self, wanted: Json, first_replicas: int | None) -> None:
        resource = resource_of(wanted["apiVersion"], wanted["kind"])
        metadata = wanted["metadata"]
        place = ObjectKey(metadata["namespace"], metadata["name"])
        known = self._children[resource]
        live = known.get(place)
        body = stamped(wanted)
        undone = undoing(wanted, live) if live is not None else {}
        if live is not None and not undone and self._settled.same(body, live):
            return
        if live is None:
            # An object that has lost its labels is not followed.
            live = await self._fresh(resource, place)
        if live is not None and not ours(wanted, live):
            raise RefusedError(
                wanted["kind"],
                metadata["name"],
                "an object of this name exists and belongs to somebody else; rename or delete it",
            )
        try:
            if live is not None and (undone := undoing(wanted, live)):
                self.writes += 1
                await self._client.merge_patch(
                    resource, place.name, undone, place.namespace, field_manager=names.FIELD_MANAGER
                )
                log.info("%s %s: undid %s", wanted["kind"], place.name, undone)
                live = await self._fresh(resource, place)
            if resource is DEPLOYMENTS:
                body = await self._with_replicas(body, live, first_replicas)
            self.writes += 1
            answer = await self._client.apply(resource, body, field_manager=names.FIELD_MANAGER)
        except ApiError as error:
            if is_ending(error):
                raise EndingError(error.message) from error
            if error.status in (400, 403, 422) or UNTYPED in error.message:
                raise RefusedError(wanted["kind"], metadata["name"], error.message) from error
            raise
        # What comes of our own change is in the plan already.
        known.wrote(answer, quiet=not undoing(wanted, answer) and only_ours(live, answer))
        self._settled.remember(stamped(wanted), answer)

    async def _create(self, key: Key, body: Json) -> None:
        metadata, kind = body["metadata"], body["kind"]
        resource = resource_of(body["apiVersion"], kind)
        self.writes += 1
        try:
            self._on_made(await self._client.create(resource, body, metadata["namespace"]))
        except ApiError as error:
            if is_ending(error):
                raise EndingError(error.message) from error
            if error.status in (400, 403, 422):
                raise RefusedError(kind, metadata["name"], error.message) from error
            # The last one of the name is on its way out, or the watch has not told of it yet.
            if error.status != 409:
                raise
            raise RetryError(f"{kind} {metadata['name']} is there already") from error
        log.info("%s: made %s %s", key, kind, metadata["name"])

    async def _fresh(self, resource: Resource, place: ObjectKey) -> Json | None:
        try:
            return await self._client.get(resource, place.name, place.namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            return None

    async def _with_replicas(self, body: Json, live: Json | None, first: int | None) -> Json:
        """The body, with replicas if the Deployment is not there yet; else they are handed over."""
        if live is None:
            return {**body, "spec": {**body["spec"], "replicas": first or 0}}
        # The uid, so that one that was deleted meanwhile is not made anew with one replica.
        body = {**body, "metadata": {**body["metadata"], "uid": live["metadata"].get("uid", "")}}
        if _owns_replicas(live, names.FIELD_MANAGER):
            if not has_replicas(live):
                # Nobody has scaled it yet: it keeps the number it has, unless that changes now.
                version = live["metadata"].get("resourceVersion", "")
                metadata = {**body["metadata"], "resourceVersion": version}
                return {**body, "metadata": metadata, "spec": {**body["spec"], "replicas": 0}}
            await self._hand_over_replicas(live)
        return body

    async def _hand_over_replicas(self, live: Json) -> None:
        """Makes the autoscaler's manager own `spec.replicas`, with the value it has."""
        metadata = live["metadata"]
        self.writes += 1
        try:
            await self._client.apply(
                DEPLOYMENTS,
                {
                    "apiVersion": DEPLOYMENTS.api_version,
                    "kind": DEPLOYMENTS.kind,
                    "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
                    "spec": {"replicas": live["spec"].get("replicas", 0)},
                },
                field_manager=names.AUTOSCALER_FIELD_MANAGER,
                force=False,
            )
        except ApiError as error:
            # Somebody scaled in between, so the field is theirs already.
            if not error.conflict:
                raise

    async def _delete(self, key: Key, deletion: Deletion) -> None:
        if not self._asks_again(deletion.uid):
            return
        self.writes += 1
        try:
            await self._client.delete(
                deletion.resource,
                deletion.name,
                key.workspace,
                uid=deletion.uid,
                propagation="Background",
                grace_period_seconds=deletion.grace,
            )
        except ApiError as error:
            if error.not_found:
                self._on_gone(ObjectKey(key.workspace, deletion.name))
            if error.status not in (404, 409):
                # Not done, so the next attempt must not wait.
                self._deleting.pop(deletion.uid, None)
                raise
        else:
            kind = deletion.resource.kind
            log.info("%s: deleted %s %s: %s", key, kind, deletion.name, deletion.because)

    def _asks_again(self, uid: str) -> bool:
        """Whether a deletion is due: not while the watch has not told of the last one yet."""
        now = self._clock()
        while self._deleting and next(iter(self._deleting.values())) < now - DELETE_AGAIN:
            self._deleting.popitem(last=False)
        if uid in self._deleting:
            return False
        self._deleting[uid] = now
        return True

    async def _scale(self, key: Key, scale: Scale) -> None:
        self.writes += 1
        try:
            await self._client.merge_patch(
                DEPLOYMENTS,
                scale.name,
                {"spec": {"replicas": scale.replicas}},
                key.workspace,
                subresource="scale",
                field_manager=names.AUTOSCALER_FIELD_MANAGER,
            )
        except ApiError as error:
            if not error.not_found:
                raise
            return
        log.info("%s: scaled %s to %d: %s", key, scale.name, scale.replicas, scale.because)


def _owns_replicas(live: Json, manager: str) -> bool:
    """Whether the manager's applied fields include `spec.replicas`."""
    for entry in live["metadata"].get("managedFields") or ():
        fields: dict[str, Any] = entry.get("fieldsV1") or {}
        if (
            entry.get("manager") == manager
            and not entry.get("subresource")
            and "f:replicas" in (fields.get("f:spec") or {})
        ):
            return True
    return False
