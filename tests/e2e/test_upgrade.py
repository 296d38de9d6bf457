"""From the version before to this one, back, and away: on a real cluster."""

from __future__ import annotations

from tests.e2e.conftest import SiteOn, before
from tests.support import previous, scenarios
from tests.support.release import Release


async def test_an_upgrade_going_back_and_an_uninstall_lose_no_request_and_leave_nothing(
    release: Release, site_on: SiteOn
) -> None:
    await release.install(before(), chart=previous.CHART, timeout=600)
    async with site_on() as site:
        workspace = await scenarios.quickstart(site)
        await scenarios.upgraded(site, workspace, release.upgrade)
        await scenarios.goes_on(site, workspace, version="2")

        async def back() -> None:
            await release.upgrade(before(), chart=previous.CHART)

        await scenarios.upgraded(site, workspace, back)
        await scenarios.goes_on(site, workspace, version="3")
        await scenarios.uninstalled(site, workspace)
