"""What callers notice of changes and of gateways that are killed."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.support import scenarios
from tests.support.chart import SYSTEM
from tests.support.release import ChartedStack
from tests.support.site import Site

pytestmark = pytest.mark.long


async def test_a_new_version_and_a_policy_lose_no_request(site: Site) -> None:
    workspace = await scenarios.quickstart(site)
    await scenarios.rollout(site, workspace)
    await scenarios.policy(site)


async def test_of_a_gateway_that_is_killed_no_more_is_lost_than_it_had_in_hand(
    site: Site, stack: ChartedStack
) -> None:
    workspace = await scenarios.quickstart(site)
    first, second = (
        pod["metadata"]["name"] for pod in await site.pods(SYSTEM, component="gateway")
    )
    callers = 4
    async with site.load(workspace, callers=callers) as calls:
        # As when its node is gone: agent and Envoy at once.
        stack.signal(first, signal.SIGKILL)
        await site.until_restarted(first)
        stack.signal(second, signal.SIGKILL, "envoy")
        await site.until_restarted(second)
    assert calls.wrong == []
    assert len(calls.broken) <= 2 * callers, calls.broken
    assert calls.answered > 20


async def test_a_replica_that_stands_still_gets_no_new_requests_and_answers_those_it_has_later(
    site: Site, stack: ChartedStack
) -> None:
    workspace = await scenarios.quickstart(site)
    await site.deploy(workspace, serverlessConfig={"minNumReplicas": 2, "maxNumReplicas": 2})
    await site.until(workspace, lambda md: md["status"]["readyReplicas"] == 2)
    victim = (await site.pods(workspace))[0]["metadata"]["name"]
    async with site.load(workspace) as calls:
        stack.signal(victim, signal.SIGSTOP, "server.py")
        try:
            await site.until(workspace, lambda md: md["status"]["readyReplicas"] == 1)
            async with site.load(workspace, callers=2) as others:
                async with asyncio.timeout(90):
                    while others.answered < 20:
                        await asyncio.sleep(0.05)
        finally:
            stack.signal(victim, signal.SIGCONT, "server.py")
    assert others.lost == []
    assert calls.lost == []
