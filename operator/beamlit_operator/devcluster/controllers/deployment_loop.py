"""Carries Deployment plans out."""

from __future__ import annotations

import asyncio

from beamlit_operator.devcluster.controllers.deployment import (
    REVISION,
    Plan,
    Snapshot,
    decide,
    find_new,
)
from beamlit_operator.devcluster.controllers.pods import controller_of, controller_uid
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Index, Informers, RecentWrites
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.devcluster.timestamps import now_utc
from beamlit_operator.kube import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
)


class DeploymentController:
    """Rolls Deployments out."""

    def __init__(self, informers: Informers) -> None:
        self._client: KubeClient = informers.client
        self._events = EventRecorder(informers.client, "deployment-controller")
        self._loop = KeyLoop("deployment", self._reconcile)
        self._deployments = informers.of(DEPLOYMENTS)
        self._sets = Index(lambda item: (controller_uid(item),))
        self._pods = Index(lambda item: (controller_uid(item),))
        self._writes = RecentWrites()
        informers.subscribe(DEPLOYMENTS, lambda change: self._loop.add(change.key))
        informers.subscribe(REPLICA_SETS, self._sets, self._writes, self._set_changed)
        informers.subscribe(PODS, self._pods, self._pod_changed)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._loop.run())

    def _set_changed(self, change: Change) -> None:
        for item in (change.old, change.new):
            owner = controller_of(item) if item is not None else None
            if owner is not None and owner["kind"] == "Deployment":
                self._loop.add(ObjectKey(change.key.namespace, owner["name"]))

    def _pod_changed(self, change: Change) -> None:
        """Only Recreate waits for pods, and only for their end."""
        if change.new is None:
            for key, item in self._deployments.items():
                if key.namespace == change.key.namespace and (
                    (item["spec"].get("strategy") or {}).get("type") == "Recreate"
                ):
                    self._loop.add(key)

    async def _reconcile(self, key: ObjectKey) -> float | None:
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        uid = deployment["metadata"]["uid"]
        sets = self._writes.over(
            self._sets.get(uid), belongs=lambda item: controller_uid(item) == uid
        )
        pods = [pod for item in sets for pod in self._pods.get(item["metadata"]["uid"])]
        plan = decide(Snapshot(deployment, sets, pods, now_utc()))
        await self._carry_out(deployment, sets, plan)
        return plan.requeue_after

    async def _carry_out(self, deployment: Json, sets: list[Json], plan: Plan) -> None:
        metadata = deployment["metadata"]
        if plan.create is not None:
            await self._create(deployment, plan.create)
        for item in sets:
            name = item["metadata"]["name"]
            if name in plan.patch_sets:
                self._writes.wrote(
                    await self._client.merge_patch(
                        REPLICA_SETS, name, plan.patch_sets[name], metadata["namespace"]
                    )
                )
            if name in plan.scaled:
                before, after = plan.scaled[name]
                self._tell_scaled(deployment, name, before, after)
        for item in plan.delete:
            try:
                await self._client.delete(
                    REPLICA_SETS,
                    item["metadata"]["name"],
                    metadata["namespace"],
                    uid=item["metadata"]["uid"],
                    propagation="Background",
                )
            except ApiError as error:
                if not error.not_found:
                    raise
        if plan.revision is not None:
            body = {"metadata": {"annotations": {REVISION: plan.revision}}}
            await self._client.merge_patch(
                DEPLOYMENTS, metadata["name"], body, metadata["namespace"]
            )
        if plan.status is not None:
            await self._write_status(deployment, plan.status)

    async def _create(self, deployment: Json, body: Json) -> None:
        namespace, name = deployment["metadata"]["namespace"], body["metadata"]["name"]
        try:
            created = await self._client.create(REPLICA_SETS, body, namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            existing = await self._client.get(REPLICA_SETS, name, namespace)
            ours = controller_uid(existing) == deployment["metadata"]["uid"]
            if ours and find_new(deployment, [existing]) is not None:
                self._writes.wrote(existing)
                return
            count = (deployment.get("status") or {}).get("collisionCount", 0) + 1
            await self._write_status(
                deployment, {**(deployment.get("status") or {}), "collisionCount": count}
            )
            return
        self._writes.wrote(created)
        self._tell_scaled(deployment, name, 0, body["spec"]["replicas"])

    def _tell_scaled(self, deployment: Json, name: str, before: int, after: int) -> None:
        if before == after:
            return
        direction = "up" if after > before else "down"
        self._events.record(
            deployment,
            "ScalingReplicaSet",
            f"Scaled {direction} replica set {name} from {before} to {after}",
        )

    async def _write_status(self, deployment: Json, status: Json) -> None:
        old = deployment.get("status") or {}
        gone = {name: None for name in old if name not in status}
        await self._client.merge_patch(
            DEPLOYMENTS,
            deployment["metadata"]["name"],
            {"status": {**gone, **status}},
            deployment["metadata"]["namespace"],
            subresource="status",
        )
