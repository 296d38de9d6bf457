"""The autoscaler's ends: which revisions it scales, and how a decision reaches the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

import aiohttp

from beamlit_operator.api import conditions, labels
from beamlit_operator.api.modeldeployment import ModelDeployment
from beamlit_operator.api.rollout import RolloutStatus
from beamlit_operator.autoscaling import (
    Autoscaler,
    GatewayLoad,
    GatewayLoads,
    Target,
    scaling_config,
)
from beamlit_operator.autoscaling.kpa import ScalingConfig
from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.demand import Demand
from beamlit_operator.controllers.diagnosis import why_not_started
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.resourcescaling import NOT_SCALED
from beamlit_operator.controllers.rolling import under_way
from beamlit_operator.kube import DEPLOYMENTS, PODS, Json, KubeClient, ObjectKey, Resource

SPARE = 1000
"""Names beyond those of deployments that may be remembered until somebody asks for the targets."""


class Scaling:
    """Runs the autoscaler on what the operator knows."""

    def __init__(
        self,
        client: KubeClient,
        *,
        options: Options,
        indexes: Indexes,
        children: dict[Resource, Children],
        demand: Demand,
        on_reports: Callable[[Mapping[str, GatewayLoad]], None] = lambda _: None,
    ) -> None:
        """``on_reports`` gets what the gateways said, by address, whenever they were asked."""
        self._on_reports = on_reports
        self._demand = demand
        self._client = client
        self._urls = options.gateway_load
        self._grace_seconds = options.scale_to_zero_grace
        self._indexes = indexes
        self._workloads = children[DEPLOYMENTS]
        self._pods = children[PODS]
        self._targets: dict[ObjectKey, tuple[Target, ...]] = {}
        self._touched: set[ObjectKey] = {*indexes.deployments}
        for each in (self._workloads, self._pods):
            each.when_set(self.touched)

    async def run(self) -> None:
        """Scales until cancelled; without gateways to ask it does nothing."""
        if not self._urls:
            await asyncio.Event().wait()
        async with aiohttp.ClientSession() as session:
            ask = GatewayLoads(self._urls, session)

            async def fetch() -> Mapping[str, GatewayLoad]:
                reports = await ask()
                self._on_reports(reports)
                return reports

            loop = Autoscaler(
                read_targets=self.targets,
                fetch_loads=fetch,
                scale=self.scale,
            )
            await loop.run()

    def targets(self) -> Iterable[Target]:
        """What is scaled: of each deployment that is enabled the revision with the traffic; or,
        while a rollout shares it, the deployment as a whole, under the name of the stable one.

        Asked every two seconds, so only what was touched since is looked at anew.
        """
        while self._touched:
            place = self._touched.pop()
            held = self._indexes.deployments.get(place)
            found = tuple(self._targets_of(held)) if held is not None else ()
            if found:
                self._targets[place] = found
            else:
                self._targets.pop(place, None)
        return chain.from_iterable(self._targets.values())

    def touched(self, deployment: ObjectKey) -> None:
        """A deployment, a workload of it or a pod of it appeared, changed or went."""
        self._touched.add(deployment)
        # Only a leader with gateways takes them out; others would keep every name there ever was.
        if len(self._touched) > 2 * len(self._indexes.deployments) + SPARE:
            known = self._indexes.deployments.keys() | self._targets.keys() | {deployment}
            self._touched &= known

    def _targets_of(self, held: Held[ModelDeployment]) -> Iterator[Target]:
        deployment = held.parsed
        if deployment is None or held.deleting or not deployment.spec.enabled:
            return
        ready = conditions.find(deployment.status.conditions, conditions.READY)
        if ready is not None and ready.status == "False" and ready.reason in NOT_SCALED:
            return
        spec = deployment.spec
        limit = spec.endpoint.max_concurrency if spec.endpoint is not None else None
        scaling = scaling_config(
            spec.serverless_config, max_concurrency=limit, grace_seconds=self._grace_seconds
        )
        if (run := under_way(deployment)) is not None:
            yield from self._shared(held.key, deployment, run, scaling)
            return
        for revision in deployment.status.revisions:
            live = self._workloads.get(ObjectKey(held.key.namespace, revision.name))
            if live is None or not revision.traffic:
                continue
            replicas = _number(live, "spec", "replicas", 1)
            ready_replicas = _number(live, "status", "readyReplicas", 0)
            starting = replicas > 0 and ready_replicas == 0
            yield Target(
                workspace=held.key.namespace,
                name=held.key.name,
                revision=revision.name,
                scaling=self._starting(held.key, live, scaling) if starting else scaling,
                replicas=replicas,
                ready_replicas=ready_replicas,
                traffic=revision.traffic / 100,
            )

    def _shared(
        self,
        place: ObjectKey,
        deployment: ModelDeployment,
        run: RolloutStatus,
        scaling: ScalingConfig,
    ) -> Iterator[Target]:
        """A deployment of which two revisions share the load."""
        told = {each.name: each.traffic for each in deployment.status.revisions}
        there = [
            live
            for name in (run.stable, run.canary)
            if told.get(name)
            and (live := self._workloads.get(ObjectKey(place.namespace, name))) is not None
        ]
        if not there:
            return
        replicas = run.replicas or max(_number(live, "spec", "replicas", 1) for live in there)
        ready = sum(_number(live, "status", "readyReplicas", 0) for live in there)
        # Each revision has one at least, which is more than the load needs. The autoscaler never
        # goes below half of what is ready: with one each, it would never go to zero.
        ready = min(ready, replicas)
        if replicas > 0 and ready == 0:
            scaling = self._starting(place, there[0], scaling)
        yield Target(
            workspace=place.namespace,
            name=place.name,
            revision=run.stable,
            scaling=scaling,
            replicas=replicas,
            ready_replicas=ready,
        )

    def _starting(self, place: ObjectKey, live: Json, scaling: ScalingConfig) -> ScalingConfig:
        """How it scales while none of its replicas serves yet: with the time its start may take."""
        revision = live["metadata"]["name"]
        pods = (
            pod
            for pod in self._pods.of(place)
            if (pod["metadata"].get("labels") or {}).get(labels.REVISION) == revision
        )
        return replace(scaling, start_deadline_seconds=start_deadline(live, pods, scaling=scaling))

    async def scale(self, target: Target, replicas: int) -> None:
        """Sets a revision's replicas; while a rollout shares the load, has them split.

        Raises:
            ApiError: as the client does.
        """
        place = ObjectKey(target.workspace, target.name)
        held = self._indexes.deployments.get(place)
        if held is not None and held.parsed is not None and under_way(held.parsed) is not None:
            self._demand.ask(place, replicas)
            return
        await self._client.merge_patch(
            DEPLOYMENTS,
            target.revision,
            {"spec": {"replicas": replicas}},
            target.workspace,
            subresource="scale",
            field_manager=labels.AUTOSCALER_FIELD_MANAGER,
        )


def start_deadline(live: Json, pods: Iterable[Json], *, scaling: ScalingConfig) -> float:
    """Seconds for which a start that nobody waits for any more goes on.

    | its pods                                         | seconds                                  |
    |--------------------------------------------------|------------------------------------------|
    | fail: no image, crash, no files                  | those of ``scaling``: it may heal, but   |
    |                                                  | must not hold a GPU for an hour          |
    | are on their way, or wait for a node             | the workload's progressDeadlineSeconds,  |
    |                                                  | as with Knative: files may be large, and |
    |                                                  | a node may have to be added              |
    """
    placed = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName")]
    if why_not_started(placed) is not None:
        return scaling.start_deadline_seconds
    return max(
        float(_number(live, "spec", "progressDeadlineSeconds", 600)),
        scaling.start_deadline_seconds,
    )


def _number(item: Json, part: str, name: str, otherwise: int) -> int:
    value = (item.get(part) or {}).get(name)
    return otherwise if value is None else int(value)
