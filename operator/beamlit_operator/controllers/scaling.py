"""The autoscaler's ends: which revisions it scales, and how a decision reaches the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp

from beamlit_operator.api import Reason, conditions, labels
from beamlit_operator.autoscaling import Autoscaler, GatewayLoads, Target, scaling_config
from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.options import Options
from beamlit_operator.kube import DEPLOYMENTS, Json, KubeClient, ObjectKey, Resource

NOT_SCALED = frozenset(
    {
        Reason.ENVIRONMENT_NOT_FOUND,
        Reason.POLICY_NOT_FOUND,
        Reason.FLAVOR_NOT_ALLOWED,
        Reason.DUPLICATE,
    }
)
"""While `Ready` is False for one of these, the controller alone says what may run."""


class Scaling:
    """Runs the autoscaler on what the operator knows."""

    def __init__(
        self,
        client: KubeClient,
        *,
        options: Options,
        indexes: Indexes,
        children: dict[Resource, Children],
    ) -> None:
        self._client = client
        self._urls = options.gateway_load
        self._indexes = indexes
        self._workloads = children[DEPLOYMENTS]

    async def run(self) -> None:
        """Scales until cancelled; without gateways to ask it does nothing."""
        if not self._urls:
            await asyncio.Event().wait()
        async with aiohttp.ClientSession() as session:
            loop = Autoscaler(
                read_targets=self.targets,
                fetch_loads=GatewayLoads(self._urls, session),
                scale=self.scale,
            )
            await loop.run()

    def targets(self) -> Iterator[Target]:
        """The revisions that get traffic, of the deployments that are enabled."""
        for held in self._indexes.deployments.values():
            deployment = held.parsed
            if deployment is None or held.deleting or not deployment.spec.enabled:
                continue
            ready = conditions.find(deployment.status.conditions, conditions.READY)
            if ready is not None and ready.status == "False" and ready.reason in NOT_SCALED:
                continue
            scaling = scaling_config(deployment.spec.serverless_config)
            if scaling is None:
                continue
            for revision in deployment.status.revisions:
                live = self._workloads.get(ObjectKey(held.key.namespace, revision.name))
                if live is None or not revision.traffic:
                    continue
                yield Target(
                    workspace=held.key.namespace,
                    name=held.key.name,
                    revision=revision.name,
                    scaling=scaling,
                    replicas=_number(live, "spec", "replicas", 1),
                    ready_replicas=_number(live, "status", "readyReplicas", 0),
                    traffic=revision.traffic / 100,
                )

    async def scale(self, target: Target, replicas: int) -> None:
        """Sets a revision's replicas.

        Raises:
            ApiError: as the client does.
        """
        await self._client.merge_patch(
            DEPLOYMENTS,
            target.revision,
            {"spec": {"replicas": replicas}},
            target.workspace,
            subresource="scale",
            field_manager=labels.AUTOSCALER_FIELD_MANAGER,
        )


def _number(item: Json, part: str, name: str, otherwise: int) -> int:
    value = (item.get(part) or {}).get(name)
    return otherwise if value is None else int(value)
