"""All controllers together."""

from __future__ import annotations

import asyncio

from beamlit_operator.devcluster.controllers.deployment_loop import DeploymentController
from beamlit_operator.devcluster.controllers.endpointslice_loop import EndpointSliceController
from beamlit_operator.devcluster.controllers.replicaset_loop import ReplicaSetController
from beamlit_operator.devcluster.controllers.serviceaccount import ServiceAccountController
from beamlit_operator.devcluster.informers import Informers


class Controllers:
    """What kube-controller-manager is to a real cluster, as far as workloads need it."""

    def __init__(self, informers: Informers) -> None:
        self._all = (
            DeploymentController(informers),
            ReplicaSetController(informers),
            EndpointSliceController(informers),
            ServiceAccountController(informers),
        )

    async def run(self) -> None:
        """Works until cancelled; the informers must run too."""
        async with asyncio.TaskGroup() as group:
            for controller in self._all:
                group.create_task(controller.run())
