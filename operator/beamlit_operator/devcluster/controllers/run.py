"""All controllers together."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beamlit_operator.devcluster.controllers.binding_loop import BindingController
from beamlit_operator.devcluster.controllers.deployment_loop import DeploymentController
from beamlit_operator.devcluster.controllers.endpointslice_loop import EndpointSliceController
from beamlit_operator.devcluster.controllers.horizontal_loop import (
    SYNC_SECONDS,
    HorizontalController,
)
from beamlit_operator.devcluster.controllers.replicaset_loop import ReplicaSetController
from beamlit_operator.devcluster.controllers.serviceaccount import ServiceAccountController
from beamlit_operator.devcluster.informers import Informers
from beamlit_operator.devcluster.usage import UsageProvider


class Controllers:
    """What kube-controller-manager is to a real cluster, as far as workloads need it."""

    def __init__(
        self,
        informers: Informers,
        *,
        usage: UsageProvider,
        volumes: Path,
        autoscaler_sync: float = SYNC_SECONDS,
    ) -> None:
        """``usage`` tells what pods use; ``volumes`` is where volumes are made; ``autoscaler_sync``
        is how often, in seconds, usage is compared with what HorizontalPodAutoscalers want."""
        self._all = (
            DeploymentController(informers),
            ReplicaSetController(informers),
            EndpointSliceController(informers),
            ServiceAccountController(informers),
            BindingController(informers, volumes),
            HorizontalController(informers, usage=usage, sync_seconds=autoscaler_sync),
        )

    async def run(self) -> None:
        """Works until cancelled; the informers must run too."""
        async with asyncio.TaskGroup() as group:
            for controller in self._all:
                group.create_task(controller.run())
