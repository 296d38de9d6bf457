"""From the previous version to this one, back again, and away: under load, with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.availability.conftest import VALUES, site_on
from tests.support import previous, scenarios
from tests.support.chart import SYSTEM
from tests.support.release import ChartedStack, Release
from tests.support.site import Site
from tests.support.stack import running_stack

pytestmark = pytest.mark.long


@pytest.fixture
def older(helm, tmp_path: Path) -> Iterator[tuple[ChartedStack, Release, Path]]:
    """A cluster on which the previous version is installed, and where its code is."""
    code = previous.unpacked(tmp_path / "previous")
    with running_stack(tmp_path, ChartedStack) as stack:
        release = Release(helm, stack.kubeconfig, values=VALUES)
        asyncio.run(release.install(previous.running(code), chart=previous.CHART))
        yield stack, release, code


async def code_of(site: Site, stack: ChartedStack) -> set[str]:
    """The PYTHONPATHs of the operators and agents that run."""
    found = set()
    for pod in await site.pods(SYSTEM):
        for pid in stack.processes(pod["metadata"]["name"], "beamlit_operator."):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            (paths,) = [each for each in variables if each.startswith(b"PYTHONPATH=")]
            found.add(paths.decode().partition(":")[2])
    return found


async def test_an_upgrade_a_rollback_and_an_uninstall_lose_no_request_and_leave_nothing(
    older: tuple[ChartedStack, Release, Path],
) -> None:
    stack, release, code = older
    async with site_on(stack, release) as site:
        workspace = await scenarios.quickstart(site)
        assert await code_of(site, stack) == {str(code)}

        await scenarios.upgraded(site, workspace, release.upgrade)
        assert await code_of(site, stack) == {""}
        await scenarios.goes_on(site, workspace, version="2")
        # Going back, roles are the older ones before the last of the newer pods is gone.
        assert stack.refused() == []

        # What `helm rollback` applies: the objects of the revision before. (The action itself fails
        # in helm-sdkpy 0.1.32, which sets no wait strategy.)
        async def back() -> None:
            await release.upgrade(previous.running(code), chart=previous.CHART)

        await scenarios.upgraded(site, workspace, back)
        assert await code_of(site, stack) == {str(code)}
        await scenarios.goes_on(site, workspace, version="3")

        await scenarios.uninstalled(site, workspace)
