"""Carries ReplicaSet plans out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from beamlit_operator.devcluster.controllers.pods import (
    controller_of,
    controller_uid,
    owner_reference,
)
from beamlit_operator.devcluster.controllers.replicaset import Plan, Snapshot, decide
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Index, Informers, RecentWrites
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.devcluster.selectors import matches
from beamlit_operator.devcluster.timestamps import now_utc
from beamlit_operator.kube import (
    PODS,
    REPLICA_SETS,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
)

Step = Callable[[Json, Json], Awaitable[None]]

AT_ONCE = 16
"""Pods created or deleted in parallel."""


class ReplicaSetController:
    """Keeps every ReplicaSet at its number of pods."""

    def __init__(self, informers: Informers) -> None:
        self._client: KubeClient = informers.client
        self._events = EventRecorder(informers.client, "replicaset-controller")
        self._loop = KeyLoop("replicaset", self._reconcile)
        self._sets = informers.of(REPLICA_SETS)
        self._pods = Index(_namespace_of)
        self._writes = RecentWrites()
        self._failures: dict[str, str] = {}
        informers.subscribe(PODS, self._pods, self._writes, self._pod_changed)
        informers.subscribe(REPLICA_SETS, lambda change: self._loop.add(change.key))

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._loop.run())

    def _pod_changed(self, change: Change) -> None:
        for pod in (change.old, change.new):
            owner = controller_of(pod) if pod is not None else None
            if owner is not None and owner["kind"] == "ReplicaSet":
                self._loop.add(ObjectKey(change.key.namespace, owner["name"]))
            elif pod is not None and owner is None:
                labels = pod["metadata"].get("labels") or {}
                for key, item in self._sets.items():
                    if key.namespace == change.key.namespace and matches(
                        item["spec"].get("selector"), labels
                    ):
                        self._loop.add(key)

    async def _reconcile(self, key: ObjectKey) -> float | None:
        replica_set = self._sets.get(key)
        if replica_set is None:
            return None
        uid = replica_set["metadata"]["uid"]
        pods = self._writes.over(
            self._pods.get(key.namespace),
            belongs=lambda pod: pod["metadata"].get("namespace") == key.namespace,
        )
        relevant = [pod for pod in pods if controller_uid(pod) in ("", uid)]
        failure = self._failures.pop(uid, None)
        plan = decide(Snapshot(replica_set, relevant, now_utc(), failure))
        await self._carry_out(replica_set, plan)
        return plan.requeue_after

    async def _carry_out(self, replica_set: Json, plan: Plan) -> None:
        uid = replica_set["metadata"]["uid"]
        gate = asyncio.Semaphore(AT_ONCE)
        errors: list[ApiError] = []

        async def guarded(step: Step, pod: Json) -> None:
            async with gate:
                try:
                    await step(replica_set, pod)
                except ApiError as error:
                    errors.append(error)

        steps: list[tuple[Step, Iterable[Json]]] = [
            (self._adopt, plan.adopt),
            (self._release, plan.release),
            (self._create, plan.create),
            (self._delete, plan.delete),
        ]
        await asyncio.gather(*(guarded(step, pod) for step, pods in steps for pod in pods))
        if plan.status is not None:
            await self._write_status(replica_set, plan.status)
        if errors:
            if plan.create:
                self._failures[uid] = errors[0].message
            raise errors[0]

    async def _write_status(self, replica_set: Json, status: Json) -> None:
        old = replica_set.get("status") or {}
        gone = {name: None for name in old if name not in status}
        await self._client.merge_patch(
            REPLICA_SETS,
            replica_set["metadata"]["name"],
            {"status": {**gone, **status}},
            replica_set["metadata"]["namespace"],
            subresource="status",
        )

    async def _create(self, replica_set: Json, pod: Json) -> None:
        try:
            created = await self._client.create(PODS, pod, pod["metadata"]["namespace"])
        except ApiError as error:
            self._events.record(
                replica_set, "FailedCreate", f"Error creating: {error.message}", type="Warning"
            )
            raise
        self._writes.wrote(created)
        name = created["metadata"]["name"]
        self._events.record(replica_set, "SuccessfulCreate", f"Created pod: {name}")

    async def _delete(self, replica_set: Json, pod: Json) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"]
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
        self._events.record(replica_set, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    async def _adopt(self, replica_set: Json, pod: Json) -> None:
        references = [*(pod["metadata"].get("ownerReferences") or ())]
        await self._own(pod, [*references, owner_reference(replica_set)])

    async def _release(self, replica_set: Json, pod: Json) -> None:
        uid = replica_set["metadata"]["uid"]
        references = pod["metadata"].get("ownerReferences") or ()
        await self._own(pod, [r for r in references if r.get("uid") != uid])

    async def _own(self, pod: Json, references: list[Json]) -> None:
        metadata = pod["metadata"]
        body = {
            "metadata": {
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion"),
                "ownerReferences": references,
            }
        }
        self._writes.wrote(
            await self._client.merge_patch(PODS, metadata["name"], body, metadata["namespace"])
        )


def _namespace_of(pod: Json) -> tuple[str]:
    return (pod["metadata"].get("namespace", ""),)
