"""Two operators: who leads, how fast another takes over, and that only one ever writes."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import datetime

import pytest
from tests.support import scenarios
from tests.support.chart import SYSTEM
from tests.support.release import ChartedStack
from tests.support.site import Site

from beamlit_operator.kube import LEASES, PODS, Json

pytestmark = pytest.mark.long

PROGRAM = "beamlit_operator.controllers"
OF_FOLLOWERS_TOO = {"secrets", "validatingwebhookconfigurations"}
"""What the admission webhook writes, which every operator serves."""


async def until_held(site: Site, *, but: str = "", within: float) -> tuple[str, float]:
    """Waits until somebody else leads: who, and for how many seconds nobody had renewed the Lease
    when they took it."""
    deadline = time.monotonic() + within
    renewed = ""
    while True:
        spec = (await site.client.get(LEASES, "beamlit-operator", SYSTEM))["spec"]
        found = str(spec.get("holderIdentity") or "")
        if found not in ("", but):
            return found, _seconds(renewed, spec["acquireTime"]) if renewed else 0.0
        if found:
            renewed = spec["renewTime"]
        assert time.monotonic() < deadline, f"{found!r} still leads\n{site.logs()}"
        await asyncio.sleep(0.05)


def _seconds(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def strays(events: list[Json]) -> list[str]:
    """The writes of operators that did not hold the Lease when they made them.

    A term begins when the API server has received the write that takes the Lease, and ends when it
    has received another's.
    """
    leader, found = "", []
    for event in sorted(events, key=lambda event: event["requestReceivedTimestamp"]):
        (pod,) = event["user"]["extra"]["authentication.kubernetes.io/pod-name"]
        what = event["objectRef"]["resource"]
        if what == "leases":
            if event["responseStatus"]["code"] < 300:
                leader = pod
        elif what not in OF_FOLLOWERS_TOO and pod != leader:
            found.append(f"{pod} while {leader} led: {event['verb']} {event['requestURI']}")
    return found


def writers(events: list[Json]) -> set[str]:
    """The pods that wrote as leaders."""
    return {
        event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]
        for event in events
        if event["objectRef"]["resource"] not in {"leases", *OF_FOLLOWERS_TOO}
    }


async def test_a_leader_that_is_ended_hands_over_at_once_and_one_that_is_killed_is_soon_replaced(
    site: Site, stack: ChartedStack
) -> None:
    workspace = await scenarios.quickstart(site)
    async with site.load(workspace, callers=2) as calls:
        old, _ = await until_held(site, within=90)
        await site.client.delete(PODS, old, SYSTEM)
        new, took = await until_held(site, but=old, within=90)
        # One that is not given up is taken over when it has run out, after 15 s.
        assert took < 12, f"{took:.1f} s after its last renewal: the Lease was not given up"
        print(f"handed over {took:.1f} s after the last renewal")
        await site.deploy(workspace, version="2")
        await site.until_serving(workspace, version="2", callers=calls)

        stack.signal(new, signal.SIGKILL, PROGRAM)
        began = time.monotonic()
        await site.deploy(workspace, version="3")
        generation = (await site.get(workspace))["metadata"]["generation"]
        await site.until(
            workspace, lambda md: md["status"].get("observedGeneration", 0) >= generation
        )
        took = time.monotonic() - began
        # A start of Python, which on a machine that is busy takes as long as it takes.
        assert took < 60, f"nobody led for {took:.1f} s"
        print(f"killed, and somebody worked on after {took:.1f} s")
        await site.until_serving(workspace, version="3", callers=calls)
    assert calls.lost == []
    assert calls.versions == {"1", "2", "3"}
    assert strays(stack.written("beamlit-operator")) == []


async def test_a_leader_that_stood_still_for_longer_than_its_lease_writes_nothing_afterwards(
    site: Site, stack: ChartedStack
) -> None:
    """And while nobody leads, nodes with gateways are drained and callers notice nothing."""
    workspace = await scenarios.quickstart(site)
    old, _ = await until_held(site, within=90)
    stack.signal(old, signal.SIGSTOP, PROGRAM)
    try:
        began = time.monotonic()
        # It will find these in its watches, and want to write, as soon as it goes on.
        await site.deploy(workspace, version="2")
        await site.deploy(workspace, "other")
        drain = asyncio.create_task(scenarios.drained(site, workspace))
        new, _ = await until_held(site, but=old, within=60)
        took = time.monotonic() - began
        assert new != old
        assert took < 45, f"the takeover took {took:.1f} s"
        print(f"taken over after {took:.1f} s")
        await drain
        await site.deploy(workspace, version="3")
    finally:
        stack.signal(old, signal.SIGCONT, PROGRAM)
    await site.until_serving(workspace, version="3")
    await site.until(workspace, lambda md: md["status"]["revisions"], "other")
    await until_ended(site, old)
    events = stack.written("beamlit-operator")
    assert strays(events) == []
    assert writers(events) >= {old, new}


async def until_ended(site: Site, pod: str) -> None:
    """Waits until the operator in a pod has ended because it lost its Lease."""
    deadline = time.monotonic() + 60
    while True:
        (status,) = (await site.client.get(PODS, pod, SYSTEM))["status"]["containerStatuses"]
        ended = {**status["state"], **status.get("lastState", {})}.get("terminated")
        if ended and ended["exitCode"] == 1:
            return
        assert time.monotonic() < deadline, f"{status}\n{site.logs()}"
        await asyncio.sleep(0.1)
