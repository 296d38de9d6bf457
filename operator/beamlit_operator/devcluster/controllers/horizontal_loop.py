"""Carries the plans for HorizontalPodAutoscalers out: every few seconds, and when one changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from beamlit_operator.devcluster.controllers.horizontal import (
    Look,
    Plan,
    decide,
    not_scaled,
    scaled,
    unreadable,
)
from beamlit_operator.devcluster.controllers.horizontal_limits import Memory, changed
from beamlit_operator.devcluster.controllers.horizontal_metrics import PodMetric
from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.informers import Informers
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.devcluster.timestamps import now_utc
from beamlit_operator.devcluster.usage import UsageProvider
from beamlit_operator.kube import (
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
    Resource,
    resource_of,
)

SYNC_SECONDS = 15.0
"""``--horizontal-pod-autoscaler-sync-period``."""

BYTES_IN_MILLI = 1000


class HorizontalController:
    """Scales the targets of all HorizontalPodAutoscalers."""

    def __init__(
        self, informers: Informers, *, usage: UsageProvider, sync_seconds: float = SYNC_SECONDS
    ) -> None:
        self._client: KubeClient = informers.client
        self._usage = usage
        self._sync = sync_seconds
        self._events = EventRecorder(informers.client, "horizontal-pod-autoscaler")
        self._loop = KeyLoop("horizontalpodautoscaler", self._reconcile)
        self._autoscalers = informers.of(HORIZONTAL_POD_AUTOSCALERS)
        self._memory: dict[str, Memory] = {}
        self._selectors: dict[ObjectKey, str] = {}
        """Of the pods of each autoscaler's target, as far as it has been looked at."""
        informers.subscribe(HORIZONTAL_POD_AUTOSCALERS, self._changed)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._loop.run())

    def _changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._memory.pop(old["metadata"]["uid"], None)
        if new is None:
            self._selectors.pop(change.key, None)
        if new is not None and (old is None or old["spec"] != new["spec"]):
            self._loop.add(change.key)

    async def _reconcile(self, key: ObjectKey) -> float | None:
        hpa = self._autoscalers.get(key)
        if hpa is None:
            return None
        try:
            await self._look(hpa)
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise
        return self._sync

    async def _look(self, hpa: Json) -> None:
        namespace, uid = hpa["metadata"]["namespace"], hpa["metadata"]["uid"]
        reference = hpa["spec"]["scaleTargetRef"]
        try:
            target = _target(reference)
            scale = await self._client.get(
                target, reference["name"], namespace, subresource="scale"
            )
        except ApiError as error:
            self._events.record(hpa, "FailedGetScale", error.message, type="Warning")
            await self._write(hpa, unreadable(hpa, error.message, now=now_utc()))
            return
        selector = (scale.get("status") or {}).get("selector") or ""
        current = int((scale.get("spec") or {}).get("replicas") or 0)
        pods: Sequence[Json] | None = () if selector else None
        metrics: Mapping[str, Mapping[str, PodMetric]] = {}
        if current and selector:
            listed = await self._client.list(PODS, namespace, label_selector=selector)
            pods = listed.items
            metrics = await self._metrics(pods)
        now, key = now_utc(), ObjectKey(namespace, hpa["metadata"]["name"])
        self._selectors[key] = selector
        rivals = await self._rivals(key, pods or ())
        memory = self._memory.get(uid, Memory())
        plan = decide(Look(hpa, current, pods, metrics, memory, now, selector, rivals))
        self._memory[uid] = plan.memory
        for event in plan.events:
            self._events.record(hpa, event.reason, event.message, type="Warning")
        await self._carry_out(hpa, plan, target=target, scale=scale)

    async def _rivals(self, key: ObjectKey, pods: Sequence[Json]) -> tuple[str, ...]:
        """The other autoscalers of the namespace that select one of these pods."""
        names = {pod["metadata"]["name"] for pod in pods}
        found = []
        for other, selector in tuple(self._selectors.items()):
            if not names or not selector or other == key or other.namespace != key.namespace:
                continue
            theirs = await self._client.list(PODS, other.namespace, label_selector=selector)
            if any(pod["metadata"]["name"] in names for pod in theirs.items):
                found.append(f"{other.namespace}/{other.name}")
        return tuple(found)

    async def _carry_out(self, hpa: Json, plan: Plan, *, target: Resource, scale: Json) -> None:
        if plan.replicas is None:
            await self._write(hpa, plan.status)
            return
        size = f"New size: {plan.replicas}; reason: {plan.because}"
        current = int((scale.get("spec") or {}).get("replicas") or 0)
        try:
            await self._client.update(
                target, {**scale, "spec": {"replicas": plan.replicas}}, subresource="scale"
            )
        except ApiError as error:
            self._events.record(
                hpa, "FailedRescale", f"{size}; error: {error.message}", type="Warning"
            )
            await self._write(hpa, not_scaled(plan, error.message, old=hpa, now=now_utc()))
            return
        self._events.record(hpa, "SuccessfulRescale", size)
        now = now_utc()
        self._memory[hpa["metadata"]["uid"]] = changed(
            hpa, plan.memory, before=current, after=plan.replicas, now=now
        )
        await self._write(hpa, scaled(plan, now=now))

    async def _metrics(self, pods: Sequence[Json]) -> dict[str, dict[str, PodMetric]]:
        used = await self._usage()
        found: dict[str, dict[str, PodMetric]] = {"cpu": {}, "memory": {}}
        for pod in pods:
            metadata = pod["metadata"]
            use = used.get(ObjectKey(metadata["namespace"], metadata["name"]))
            if use is None:
                continue
            window = timedelta(seconds=use.window_seconds)
            cores = sum(each.cores for each in use.containers.values())
            size = sum(each.bytes for each in use.containers.values())
            name = metadata["name"]
            found["cpu"][name] = PodMetric(round(cores * 1000), use.at, window)
            found["memory"][name] = PodMetric(size * BYTES_IN_MILLI, use.at, window)
        return found

    async def _write(self, hpa: Json, status: Json) -> None:
        old = hpa.get("status") or {}
        if old == status:
            return
        gone = {name: None for name in old if name not in status}
        await self._client.merge_patch(
            HORIZONTAL_POD_AUTOSCALERS,
            hpa["metadata"]["name"],
            {"status": {**gone, **status}},
            hpa["metadata"]["namespace"],
            subresource="status",
        )


def _target(reference: Json) -> Resource:
    """Raises ApiError for a kind that the cluster does not know."""
    version, kind = reference.get("apiVersion") or "", reference["kind"]
    try:
        return resource_of(version, kind)
    except KeyError:
        group = version.rpartition("/")[0]
        raise ApiError(
            404, "NotFound", f'no matches for kind "{kind}" in group "{group}"'
        ) from None
