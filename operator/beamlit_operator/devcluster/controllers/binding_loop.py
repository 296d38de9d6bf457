"""Carries out what becomes of claims and volumes, and keeps those in use from being deleted.

Every write of a spec names the version that was decided on: of two claims that want one volume the
second gets a conflict, and looks again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from beamlit_operator.devcluster.claims import (
    CLAIM_PROTECTION,
    CLAIMS,
    CLASSES,
    PROVISIONED_BY,
    STORAGE_PROVISIONER,
    VOLUME_PROTECTION,
    VOLUMES,
    annotation,
    claim_keys,
    class_of,
    is_fully_bound,
    is_going,
    phase,
    reference_to,
)
from beamlit_operator.devcluster.controllers.binding import (
    NO_PROVISIONER,
    Around,
    Told,
    bound_claim,
    bound_status,
    bound_volume,
    decide_claim,
    decide_volume,
    unbound_volume,
)
from beamlit_operator.devcluster.controllers.provisioner import (
    PROVISIONER,
    Directories,
    ProvisioningError,
)
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Index, Informers
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.kube import PODS, ApiError, Change, Json, KubeClient, ObjectKey, Resource


class BindingController:
    """Binds claims to volumes, makes and reclaims volumes."""

    def __init__(self, informers: Informers, folder: Path) -> None:
        """``folder`` holds the directories of the volumes that are made."""
        self._client: KubeClient = informers.client
        self._events = EventRecorder(informers.client, "persistentvolume-controller")
        self._directories = Directories(folder)
        self._claims = informers.of(CLAIMS)
        self._volumes = informers.of(VOLUMES)
        self._classes = informers.of(CLASSES)
        self._claim_loop = KeyLoop("claim", self._claim)
        self._volume_loop = KeyLoop("volume", self._volume)
        self._users = Index(claim_keys)
        self._by_place = Index(_place)
        self._unbound: set[ObjectKey] = set()
        self._told: dict[str, Told] = {}
        informers.subscribe(PODS, self._users, self._pod_changed)
        informers.subscribe(CLAIMS, self._claim_changed)
        informers.subscribe(VOLUMES, self._by_place, self._volume_changed)
        informers.subscribe(CLASSES, lambda change: self._look_at_unbound())

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._claim_loop.run())
            group.create_task(self._volume_loop.run())
            group.create_task(self._sweep())

    async def _sweep(self) -> None:
        await self._volumes.wait_synced()
        await self._claims.wait_synced()
        known = {f"pvc-{claim['metadata']['uid']}" for claim in self._claims.values()}
        known |= {key.name for key in self._volumes}
        await asyncio.to_thread(self._directories.sweep, known)

    # What asks for a look

    def _pod_changed(self, change: Change) -> None:
        if change.new is None and change.old is not None:
            namespace = change.key.namespace
            for key in claim_keys(change.old):
                self._claim_loop.add(ObjectKey(namespace, key.partition("/")[2]))

    def _claim_changed(self, change: Change) -> None:
        self._claim_loop.add(change.key)
        if change.new is None or is_fully_bound(change.new):
            self._unbound.discard(change.key)
        else:
            self._unbound.add(change.key)
        if change.new is None and change.old is not None:
            self._told.pop(change.old["metadata"]["uid"], None)
        for volume in self._by_place.get(f"for {change.key.namespace}/{change.key.name}"):
            self._volume_loop.add(ObjectKey("", volume["metadata"]["name"]))

    def _volume_changed(self, change: Change) -> None:
        self._volume_loop.add(change.key)
        if change.new is None and change.old is not None:
            self._told.pop(change.old["metadata"]["uid"], None)
        for volume in (change.old, change.new):
            reference = volume["spec"].get("claimRef") if volume is not None else None
            if reference:
                key = ObjectKey(reference.get("namespace", ""), reference.get("name", ""))
                if key in self._claims:
                    self._claim_loop.add(key)
            elif volume is not None:
                self._look_at_unbound(class_of(volume), change.key.name)

    def _look_at_unbound(self, of_class: str | None = None, named: str = "") -> None:
        """Claims that are not bound: all, or those that a volume of this class and name could be
        for."""
        for key in self._unbound:
            claim = self._claims.get(key)
            if claim is not None and (
                of_class is None
                or class_of(claim) == of_class
                or claim["spec"].get("volumeName") == named
            ):
                self._claim_loop.add(key)

    # Claims

    async def _claim(self, key: ObjectKey) -> float | None:
        claim = self._claims.get(key)
        if claim is None:
            return None
        if is_going(claim) and await self._let_go(claim):
            return None
        place = f"for {key.namespace}/{key.name}"
        candidates = [*self._by_place.get(place), *self._by_place.get(f"free {class_of(claim)}")]
        volumes = {
            name: volume
            for name in [claim["spec"].get("volumeName") or ""]
            if (volume := self._volumes.get(ObjectKey("", name))) is not None
        }
        plan = decide_claim(claim, Around(volumes, candidates, list(self._classes.values())))
        if plan.told is not None:
            self._tell(claim, plan.told)
        if plan.bind is not None:
            await self._bind(plan.bind, claim)
        elif plan.into is not None:
            await self._patch(CLAIMS, claim, {"spec": {"storageClassName": plan.into}})
        elif plan.provision is not None:
            await self._provision(claim, plan.provision)
        elif plan.phase is not None:
            await self._set_claim_phase(claim, plan.phase)
        return None

    async def _set_claim_phase(self, claim: Json, wanted: str) -> None:
        status = claim.get("status") or {}
        if status.get("phase") != wanted or status.get("capacity") or status.get("accessModes"):
            body = {"phase": wanted, "capacity": None, "accessModes": None}
            await self._patch(CLAIMS, claim, {"status": body}, subresource="status")

    async def _bind(self, volume: Json, claim: Json) -> None:
        """The volume first: whoever has it has won."""
        body = bound_volume(volume, claim, reference_to(claim))
        if body is not None:
            volume = await self._patch(VOLUMES, volume, body)
        volume = await self._set_volume_phase(volume, "Bound")
        body = bound_claim(claim, volume)
        if body is not None:
            claim = await self._patch(CLAIMS, claim, body)
        status = bound_status(claim, volume)
        if status is not None:
            await self._patch(CLAIMS, claim, {"status": status}, subresource="status")

    async def _provision(self, claim: Json, storage_class: Json) -> None:
        made_by = storage_class.get("provisioner", "")
        if made_by.startswith("kubernetes.io/"):
            text = f"no volume plugin matched name: {made_by}"
            if made_by == NO_PROVISIONER:
                text = "no volume made by hand matches this claim, and its class makes none"
            self._tell(claim, Told("ProvisioningFailed", text, "Warning"))
            return
        if annotation(claim, STORAGE_PROVISIONER) != made_by:
            body = {"metadata": {"annotations": {STORAGE_PROVISIONER: made_by}}}
            claim = await self._patch(CLAIMS, claim, body)
        if made_by != PROVISIONER:
            text = (
                "Waiting for a volume to be created either by the external provisioner "
                f"'{made_by}' or manually by the system administrator. If volume creation is "
                "delayed, please verify that the provisioner is running and correctly registered."
            )
            self._tell(claim, Told("ExternalProvisioning", text))
            return
        try:
            volume = await asyncio.to_thread(self._directories.make, claim, storage_class)
            await self._client.create(VOLUMES, volume)
        except (ProvisioningError, OSError) as error:
            name = storage_class["metadata"]["name"]
            text = f'failed to provision volume with StorageClass "{name}": {error}'
            self._tell(claim, Told("ProvisioningFailed", text, "Warning"))
            if isinstance(error, OSError):
                raise
        except ApiError as error:
            # Made already, and on its way here through the watch.
            if error.reason != "AlreadyExists":
                raise
        else:
            text = f"Successfully provisioned volume {volume['metadata']['name']}"
            self._tell(claim, Told("ProvisioningSucceeded", text))

    async def _let_go(self, claim: Json) -> bool:
        """Whether a claim that is deleted is used by nobody, and was let go."""
        metadata = claim["metadata"]
        if CLAIM_PROTECTION not in (metadata.get("finalizers") or ()):
            return False
        key = f"{metadata['namespace']}/{metadata['name']}"
        if any(pod["spec"].get("nodeName") for pod in self._users.get(key)):
            return False
        # A pod may have got its node a moment ago.
        for pod in (await self._client.list(PODS, metadata["namespace"])).items:
            if pod["spec"].get("nodeName") and key in claim_keys(pod):
                return False
        await self._without_finalizer(CLAIMS, claim, CLAIM_PROTECTION)
        return True

    # Volumes

    async def _volume(self, key: ObjectKey) -> float | None:
        volume = self._volumes.get(key)
        if volume is None:
            return None
        plan = decide_volume(volume, await self._claim_of(volume))
        if plan.told is not None:
            self._tell(volume, plan.told)
        if plan.wake:
            reference = volume["spec"]["claimRef"]
            self._claim_loop.add(ObjectKey(reference.get("namespace", ""), reference["name"]))
        if plan.unbind:
            volume = await self._patch(VOLUMES, volume, unbound_volume(volume))
            volume = await self._set_volume_phase(volume, "Available")
        if plan.phase is not None:
            volume = await self._set_volume_phase(volume, plan.phase)
        if plan.reclaim and await self._reclaim(volume):
            return None
        protected = VOLUME_PROTECTION in (volume["metadata"].get("finalizers") or ())
        if is_going(volume) and protected and phase(volume) != "Bound":
            await self._without_finalizer(VOLUMES, volume, VOLUME_PROTECTION)
        return None

    async def _claim_of(self, volume: Json) -> Json | None:
        """The claim of the name in ``claimRef``; asked for where the own copy may be late."""
        reference = volume["spec"].get("claimRef") or {}
        if not reference.get("uid"):
            return None
        key = ObjectKey(reference.get("namespace", ""), reference["name"])
        claim = self._claims.get(key)
        if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
            return claim
        try:
            return await self._client.get(CLAIMS, key.name, key.namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _reclaim(self, volume: Json) -> bool:
        """Does what the volume's policy says; whether the volume goes."""
        policy = volume["spec"].get("persistentVolumeReclaimPolicy")
        name = volume["metadata"]["name"]
        if policy == "Recycle":
            text = "No recycler plugin found for the volume!"
            await self._fail(volume, Told("VolumeFailedRecycle", text, "Warning"))
        if policy != "Delete":
            return False
        if self._directories.is_ours(volume):
            try:
                await asyncio.to_thread(self._directories.remove, volume)
            except OSError as error:
                await self._fail(volume, Told("VolumeFailedDelete", str(error), "Warning"))
                raise
            if not is_going(volume):
                await self._client.delete(VOLUMES, name, uid=volume["metadata"]["uid"])
                return True
            return False
        made_by = annotation(volume, PROVISIONED_BY) or "kubernetes.io/"
        if made_by.startswith("kubernetes.io/"):
            text = (
                f'error getting deleter volume plugin for volume "{name}": the embedded cluster '
                "deletes the data only of volumes that it made"
            )
            await self._fail(volume, Told("VolumeFailedDelete", text, "Warning"))
        return False

    async def _fail(self, volume: Json, told: Told) -> None:
        if phase(volume) != "Failed":
            status = {"phase": "Failed", "message": told.message}
            await self._patch(VOLUMES, volume, {"status": status}, subresource="status")
            self._tell(volume, told)

    async def _set_volume_phase(self, volume: Json, wanted: str) -> Json:
        if phase(volume) == wanted:
            return volume
        body = {"status": {"phase": wanted, "message": None}}
        return await self._patch(VOLUMES, volume, body, subresource="status")

    # Writing

    async def _patch(self, resource: Resource, item: Json, body: Json, **more: Any) -> Json:
        metadata = item["metadata"]
        own = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {**body, "metadata": {**body.get("metadata", {}), **own}}
        return await self._client.merge_patch(
            resource, metadata["name"], body, metadata.get("namespace"), **more
        )

    async def _without_finalizer(self, resource: Resource, item: Json, finalizer: str) -> None:
        left = [name for name in item["metadata"]["finalizers"] if name != finalizer]
        await self._patch(resource, item, {"metadata": {"finalizers": left}})

    def _tell(self, item: Json, told: Told) -> None:
        """Once in a row: every change of anything near is a reason to look again."""
        uid = item["metadata"]["uid"]
        if self._told.get(uid) != told:
            self._told[uid] = told
            self._events.record(item, told.reason, told.message, type=told.type)


def _place(volume: Json) -> tuple[str, ...]:
    """Where claims find the volume: under their own name, or free under its class."""
    reference = volume["spec"].get("claimRef")
    if reference:
        return (f"for {reference.get('namespace', '')}/{reference.get('name', '')}",)
    return (f"free {class_of(volume)}",)
