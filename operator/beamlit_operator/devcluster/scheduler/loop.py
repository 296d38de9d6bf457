"""Carries scheduling decisions out, one pod at a time, and tries again when room may be there."""

from __future__ import annotations

import asyncio
from functools import partial

from beamlit_operator.devcluster.claims import (
    CLAIMS,
    CLASSES,
    SELECTED_NODE,
    VOLUMES,
    annotation,
    claim_keys,
    claim_names,
    reference_to,
)
from beamlit_operator.devcluster.controllers.binding import bound_volume
from beamlit_operator.devcluster.controllers.pods import condition, is_finished
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Index, Informers, RecentWrites
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.devcluster.scheduler.choice import Snapshot, decide, is_ours
from beamlit_operator.devcluster.scheduler.storage import Storage, Wish
from beamlit_operator.devcluster.timestamps import now_utc, written
from beamlit_operator.kube import NODES, PODS, Change, Json, KubeClient, ObjectKey


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, informers: Informers) -> None:
        self._client: KubeClient = informers.client
        self._events = EventRecorder(informers.client, "default-scheduler")
        self._loop = KeyLoop("scheduler", self._reconcile)
        self._pods = informers.of(PODS)
        self._nodes = informers.of(NODES)
        self._claims = informers.of(CLAIMS)
        self._volumes = informers.of(VOLUMES)
        self._classes = informers.of(CLASSES)
        self._by_node = Index(_node_of)
        self._by_claim = Index(claim_keys)
        self._writes = RecentWrites()
        self._unplaced: set[ObjectKey] = set()
        self._one_at_a_time = asyncio.Lock()
        informers.subscribe(PODS, self._by_node, self._by_claim, self._writes, self._pod_changed)
        informers.subscribe(NODES, self._node_changed)
        informers.subscribe(CLAIMS, self._claim_changed)
        informers.subscribe(VOLUMES, lambda change: self._try_claimants_again())
        informers.subscribe(CLASSES, lambda change: self._try_claimants_again())

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._loop.run())

    def _pod_changed(self, change: Change) -> None:
        if change.new is not None and is_ours(change.new):
            if change.old is None or change.old["spec"] != change.new["spec"]:
                self._loop.add(change.key)
            return
        self._unplaced.discard(change.key)
        room_freed = change.old is not None and (
            change.new is None or (is_finished(change.new) and not is_finished(change.old))
        )
        if room_freed:
            self._try_all_again()

    def _node_changed(self, change: Change) -> None:
        if change.old is None or change.new is None or _essence(change.old) != _essence(change.new):
            self._try_all_again()

    def _claim_changed(self, change: Change) -> None:
        for pod in self._by_claim.get(f"{change.key.namespace}/{change.key.name}"):
            if _key_of(pod) in self._unplaced:
                self._loop.add(_key_of(pod))

    def _try_claimants_again(self) -> None:
        for key in self._unplaced:
            pod = self._pods.get(key)
            if pod is not None and claim_names(pod):
                self._loop.add(key)

    def _try_all_again(self) -> None:
        for key in self._unplaced:
            self._loop.add(key)

    async def _reconcile(self, key: ObjectKey) -> float | None:
        # Two pods decided on side by side could both get the last free device.
        async with self._one_at_a_time:
            pod = self._pods.get(key)
            if pod is None:
                return None
            current = self._writes.over([pod], belongs=lambda item: _key_of(item) == key)
            if not current or not is_ours(current[0]):
                return None
            storage = self._storage(current[0])
            nodes = list(self._nodes.values())
            decision = decide(Snapshot(current[0], nodes, self._occupancy(), storage))
            if decision.node is not None:
                await self._bind(current[0], decision.node)
                self._unplaced.discard(key)
            elif decision.message is not None:
                self._unplaced.add(key)
                await self._explain(current[0], decision.message)
            elif decision.wishes:
                self._unplaced.add(key)
                for wish in decision.wishes:
                    await self._grant(wish, decision.chosen)
        return None

    def _storage(self, pod: Json) -> Storage:
        """What is known about the pod's claims; nothing for a pod without."""
        names = claim_names(pod)
        if not names:
            return Storage()
        namespace = pod["metadata"]["namespace"]
        keys = {name: ObjectKey(namespace, name) for name in names}
        return Storage(
            {name: found for name, key in keys.items() if (found := self._claims.get(key))},
            {key.name: volume for key, volume in self._volumes.items()},
            list(self._classes.values()),
            frozenset(name for name in names if self._is_taken(f"{namespace}/{name}", pod)),
        )

    def _is_taken(self, claim: str, pod: Json) -> bool:
        users = self._writes.over(
            self._by_claim.get(claim), belongs=lambda p: claim in claim_keys(p)
        )
        return any(
            user["spec"].get("nodeName")
            and not is_finished(user)
            and user["metadata"]["uid"] != pod["metadata"]["uid"]
            for user in users
        )

    async def _grant(self, wish: Wish, node: str) -> None:
        """Reserves a volume for a claim, or asks for one to be made; the controller binds it, and
        the pod is looked at again then."""
        claim, volume = wish.claim, wish.volume
        if volume is None:
            if annotation(claim, SELECTED_NODE) is None:
                body: Json = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
                body["metadata"]["resourceVersion"] = claim["metadata"]["resourceVersion"]
                await self._client.merge_patch(CLAIMS, name, body, namespace)
            return
        changed = bound_volume(volume, claim, reference_to(claim))
        if changed is not None:
            changed["metadata"]["resourceVersion"] = volume["metadata"]["resourceVersion"]
            await self._client.merge_patch(VOLUMES, volume["metadata"]["name"], changed)

    def _occupancy(self) -> dict[str, list[Json]]:
        result = {}
        for _, name in self._nodes:
            pods = self._writes.over(self._by_node.get(name), belongs=partial(_is_on, name))
            result[name] = [pod for pod in pods if not is_finished(pod)]
        return result

    async def _bind(self, pod: Json, node: str) -> None:
        metadata = pod["metadata"]
        body = {
            # The uid makes sure that it is still this pod, not a new one of the same name.
            "metadata": {"uid": metadata["uid"]},
            "spec": {"nodeName": node},
        }
        bound = await self._client.merge_patch(PODS, metadata["name"], body, metadata["namespace"])
        self._writes.wrote(bound)
        self._events.record(
            pod,
            "Scheduled",
            f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}",
        )

    async def _explain(self, pod: Json, message: str) -> None:
        metadata, known = pod["metadata"], condition(pod, "PodScheduled")
        if known.get("status") == "False" and known.get("message") == message:
            return
        others = [
            item
            for item in (pod.get("status") or {}).get("conditions") or ()
            if item.get("type") != "PodScheduled"
        ]
        since = known.get("lastTransitionTime") if known.get("status") == "False" else None
        failed = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since or written(now_utc()),
        }
        self._events.record(pod, "FailedScheduling", message, type="Warning")
        body = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [*others, failed]}}
        self._writes.wrote(
            await self._client.merge_patch(
                PODS, metadata["name"], body, metadata["namespace"], subresource="status"
            )
        )


def _node_of(pod: Json) -> tuple[str, ...]:
    node = pod["spec"].get("nodeName")
    return (node,) if node else ()


def _is_on(node: str, pod: Json) -> bool:
    return bool(pod["spec"].get("nodeName") == node)


def _key_of(pod: Json) -> ObjectKey:
    return ObjectKey(pod["metadata"].get("namespace", ""), pod["metadata"]["name"])


def _essence(node: Json) -> tuple[object, ...]:
    """What of a node can change a decision."""
    status = node.get("status") or {}
    return (
        node["metadata"].get("labels"),
        node.get("spec"),
        status.get("allocatable"),
        status.get("capacity"),
    )
