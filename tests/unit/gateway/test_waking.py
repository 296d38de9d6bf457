"""Scaling up through an API server that misbehaves."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import RevisionKey, RevisionName, Workspace
from beamlit_operator.gateway.waking import Waker
from beamlit_operator.kube import DEPLOYMENTS

REVISION = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-1"))


class Silent(FakeKube):
    """Its first answer never comes, as on a connection whose other end is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if self.asked == 1:
            await asyncio.Event().wait()
        return await super().get(*args, **kwargs)


async def test_an_api_server_that_says_nothing_is_asked_again() -> None:
    kube = Silent()
    await kube.put(
        DEPLOYMENTS, {"metadata": {"namespace": "demo", "name": "iris-1"}, "spec": {"replicas": 0}}
    )
    waker = Waker(kube, metrics=GatewayMetrics(), answer_within=0.05)
    task = asyncio.create_task(
        waker.keep_awake(REVISION, 1, asked_at=0.0, checked=lambda revision: None)
    )
    troubles = set()
    async with asyncio.timeout(20):
        while not kube.calls[("patch", "deployments/scale")]:
            troubles.add(waker.trouble(REVISION))
            await asyncio.sleep(0.01)
    assert any("did not answer within" in trouble for trouble in troubles)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert waker.trouble(REVISION) == ""
