"""One release for all tests of this folder: two operators, two gateways, and the chart's rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.chart import SYSTEM, Values, merged
from tests.support.frontdoor import FrontDoor
from tests.support.release import EMBEDDED, ChartedStack, Release
from tests.support.site import Site
from tests.support.stack import running_stack

from beamlit_operator.kube import connect

VALUES = merged(
    EMBEDDED,
    # A gateway that ends is still called for as long as callers have not heard of it.
    {"gateway": {"drainTime": 3, "drainDelay": 0.5}},
)

RELEASED: Values = {
    "placementGuard": "Record",
    "origins": {"cache": {"claimName": "cache", "limit": "0"}},
}
"""What the release of this folder has beside: the rights to write placements down, and those for
caches."""


@pytest.fixture(scope="session")
def helm():
    return pytest.importorskip(
        "helm_sdkpy", reason="helm-sdkpy, Helm's engine as a package, needs Python 3.12 or later"
    )


@pytest.fixture(scope="session")
def release(helm, tmp_path_factory: pytest.TempPathFactory):
    with running_stack(tmp_path_factory.mktemp("availability"), ChartedStack) as stack:
        release = Release(helm, stack.kubeconfig, values=VALUES)
        asyncio.run(release.install(RELEASED))
        yield stack, release


@pytest.fixture
def stack(release) -> ChartedStack:
    return release[0]


@asynccontextmanager
async def site_on(stack: ChartedStack, release: Release) -> AsyncIterator[Site]:
    async with await connect(stack.kubeconfig) as client:
        door = FrontDoor(client, SYSTEM, "beamlit-gateway", port="http")
        async with door.followed():
            yield Site(client, release, door, stack.store, stack.logs)


@pytest.fixture
async def site(release: tuple[ChartedStack, Release]) -> AsyncIterator[Site]:
    async with site_on(*release) as site:
        yield site
