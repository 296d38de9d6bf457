"""Carries scheduling decisions out, one pod at a time, and tries again when room may be there."""

from __future__ import annotations

import asyncio
from functools import partial

from beamlit_operator.devcluster.controllers.pods import condition, is_finished
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Index, Informers, RecentWrites
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.devcluster.scheduler.choice import Snapshot, decide, is_ours
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
        self._by_node = Index(_node_of)
        self._writes = RecentWrites()
        self._unplaced: set[ObjectKey] = set()
        self._one_at_a_time = asyncio.Lock()
        informers.subscribe(PODS, self._by_node, self._writes, self._pod_changed)
        informers.subscribe(NODES, self._node_changed)

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
            decision = decide(Snapshot(current[0], list(self._nodes.values()), self._occupancy()))
            if decision.node is not None:
                await self._bind(current[0], decision.node)
                self._unplaced.discard(key)
            elif decision.message is not None:
                self._unplaced.add(key)
                await self._explain(current[0], decision.message)
        return None

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
