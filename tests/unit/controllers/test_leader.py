"""Leader election: who may write, and when another takes over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.controllers.leader import Elector, LostLeaseError, Timing
from beamlit_operator.kube import LEASES, ApiError, Json, KubeClient


class Time:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def elector(kube: KubeClient, identity: str, time: Time) -> Elector:
    return Elector(
        kube,
        namespace="beamlit-system",
        identity=identity,
        clock=time.clock,
        now=lambda: datetime.fromtimestamp(time.now, UTC),
        sleep=time.sleep,
    )


async def test_the_first_leads_and_a_second_takes_over_when_the_lease_has_run_out() -> None:
    kube, time = FakeKube(), Time()
    first, second = elector(kube, "first", time), elector(kube, "second", time)
    await first.acquire()
    started = time.now
    await second.acquire()
    assert second.leading
    assert 15.0 <= time.now - started < 15.1
    lease = await kube.get(LEASES, "beamlit-operator", "beamlit-system")
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_lease_that_is_given_up_is_taken_at_once() -> None:
    kube, time = FakeKube(), Time()
    first, second = elector(kube, "first", time), elector(kube, "second", time)
    await first.acquire()
    await first.release()
    started = time.now
    await second.acquire()
    assert time.now == started


async def test_who_cannot_renew_stops_before_another_may_start() -> None:
    kube, time = FakeKube(), Time()
    first = elector(kube, "first", time)
    await first.acquire()
    await kube.set_away(True)
    started = time.now
    with pytest.raises(LostLeaseError):
        await first.hold()
    assert not first.leading
    assert time.now - started < 15.0


async def test_a_renewal_that_hangs_does_not_make_a_holder_outlast_its_lease() -> None:
    loop = asyncio.get_running_loop()
    timing = Timing(duration=30.0, renew_deadline=1.5, retry=0.1)
    kube = FakeKube()
    first = Elector(kube, namespace="beamlit-system", identity="first", timing=timing)
    await first.acquire()
    started = loop.time()

    async def fails_then_hangs(*_: object, **__: object) -> Json:
        if loop.time() - started > 0.75:
            await asyncio.Event().wait()
        raise ApiError(0, "Unreachable", "connection refused")

    kube.get = fails_then_hangs  # type: ignore[method-assign]
    with pytest.raises(LostLeaseError):
        await first.hold()
    assert loop.time() - started < timing.duration


async def test_a_restarted_process_of_the_same_name_leads_at_once() -> None:
    kube, time = FakeKube(), Time()
    await elector(kube, "one", time).acquire()
    started = time.now
    await elector(kube, "one", time).acquire()
    assert time.now == started


async def test_a_holder_that_stood_still_may_write_nothing_though_it_has_not_noticed_yet() -> None:
    kube, time = FakeKube(), Time()
    first, second = elector(kube, "first", time), elector(kube, "second", time)
    assert not first.may_write()
    await first.acquire()
    time.now += 9.0
    assert first.may_write()
    time.now += 1.0
    assert first.leading, "it has not looked at the clock itself"
    assert not first.may_write()
    await second.acquire()
    assert second.may_write()
    assert not first.may_write()


async def test_nobody_who_may_write_is_there_beside_another_whatever_their_clocks_show() -> None:
    """Clocks that differ by a year, and both that write the time of their renewals."""
    kube, time = FakeKube(), Time()
    first = elector(kube, "first", time)
    ahead = elector(kube, "ahead", time)
    ahead._now = lambda: datetime.fromtimestamp(time.now + 31_536_000, UTC)
    await first.acquire()
    second = asyncio.create_task(ahead.acquire())
    while not second.done():
        assert not (first.may_write() and ahead.may_write())
        await asyncio.sleep(0)
    assert time.now >= 15.0
    await ahead.release()
    assert not ahead.may_write()
    # And back: the past is no reason to take a Lease from its holder.
    behind = elector(kube, "behind", time)
    await ahead.acquire()
    started = time.now
    await behind.acquire()
    assert time.now - started >= 15.0


async def test_a_lease_that_was_given_up_lets_nothing_be_written() -> None:
    kube, time = FakeKube(), Time()
    first = elector(kube, "first", time)
    await first.acquire()
    await first.release()
    assert not first.may_write()
