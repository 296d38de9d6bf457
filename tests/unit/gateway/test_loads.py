"""Load reports become figures for the autoscaler."""

from __future__ import annotations

import importlib
import itertools
import random
import statistics
from typing import Any

import pytest

from beamlit_operator.gateway.loads import RECENT, REMEMBERED, LoadBook
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey, RevisionName, Workspace

ClusterStats: Any = importlib.import_module("envoy.config.endpoint.v3.load_report_pb2").ClusterStats

IRIS = DeploymentKey(Workspace("demo"), "iris")


def revision(name: str = "iris-1", deployment: str = "iris") -> RevisionKey:
    return RevisionKey(Workspace("demo"), deployment, RevisionName(name))


class Cold:
    """A queue with these requests in it."""

    def __init__(self) -> None:
        self.waiting: dict[DeploymentKey, int] = {}

    def held(self) -> dict[DeploymentKey, int]:
        return self.waiting


class World:
    """A book, the queue beside it and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cold = Cold()
        self.deployments = {IRIS}
        self.book = LoadBook(
            self.cold,  # type: ignore[arg-type]
            exists=lambda key: key in self.deployments,
            clock=lambda: self.now,
        )
        self.book.opened(self)

    def report(
        self, issued: int, in_progress: int, *, of: RevisionKey | None = None, interval: int = 1
    ) -> None:
        self.now += interval
        stats = ClusterStats(
            load_report_interval={"seconds": interval},
            upstream_locality_stats=[
                {"total_issued_requests": issued, "total_requests_in_progress": in_progress}
            ],
        )
        self.book.record(of or revision(), stats)

    def load(self) -> float:
        return self.book.current()[IRIS].concurrency


@pytest.fixture
def world() -> World:
    return World()


def test_long_requests_count_as_the_sample_says(world: World) -> None:
    world.report(8, 8)
    assert world.load() == 8
    world.report(0, 8)
    assert world.load() == 8
    world.report(0, 0)
    assert world.load() == 0


def test_what_is_held_is_nobodys_work_yet(world: World) -> None:
    world.cold.waiting = {IRIS: 3}
    world.report(4, 4)
    assert world.book.current()[IRIS].held == 3
    assert world.load() == 1


@pytest.mark.parametrize("seconds", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("concurrency", [0.2, 1.0, 20.0])
def test_the_mean_of_short_requests_is_right_and_steadier_than_samples(
    world: World, seconds: float, concurrency: float
) -> None:
    chance = random.Random(11)
    arrivals = itertools.accumulate(
        chance.expovariate(concurrency / seconds) for _ in itertools.count()
    )
    told, samples = [], []
    running: list[float] = []
    arrival = next(arrivals)
    for now in range(1, 301):
        issued = 0
        while arrival < now:
            issued += 1
            running.append(arrival + seconds)
            arrival = next(arrivals)
        running = [end for end in running if end > now]
        world.report(issued, len(running))
        samples.append(float(len(running)))
        if now > REMEMBERED:
            told.append(world.load())
    assert statistics.mean(told) == pytest.approx(concurrency, rel=0.25, abs=0.1)
    assert statistics.stdev(told) < statistics.stdev(samples)


def test_a_surge_is_told_at_once(world: World) -> None:
    for _ in range(REMEMBERED):
        world.report(100, 1)
    world.report(150, 60)
    assert world.load() == 60


def test_a_deployment_that_no_sample_catches_at_work_does_not_look_idle(world: World) -> None:
    for _ in range(3 * REMEMBERED):
        world.report(1, 0)
        assert world.load() > 0


def test_the_end_of_an_older_stream_leaves_the_newer_ones_figures(world: World) -> None:
    old, new = object(), object()
    world.book.opened(old)
    world.book.opened(new)
    world.book.counted_by_envoy({revision()}, stream=new)
    world.report(2, 2)
    world.book.counted_by_envoy(set(), stream=old)
    world.book.closed(old)
    world.book.cold_request(revision())
    assert world.book.current()[IRIS].requests_total == 2
    assert world.load() == 2
    world.book.closed(new)
    assert world.load() == 0
    world.book.cold_request(revision())
    assert world.book.current()[IRIS].requests_total == 3


def test_a_quiet_deployment_leaves_the_listing_and_its_total_does_not_start_anew(
    world: World,
) -> None:
    world.report(5, 0)
    world.now += RECENT + 1
    assert world.book.current() == {}
    world.report(2, 0)
    assert world.book.current()[IRIS].requests_total == 7


def test_late_reports_of_dropped_revisions_do_not_pile_up(world: World) -> None:
    for number in range(100):
        gone = revision(f"iris-{number}")
        world.report(1, 1, of=gone)
        world.book.forget([gone])
        world.report(0, 1, of=gone)
        world.now += RECENT / 2
        assert len(list(world.book.revisions())) <= 3


def test_of_a_deployment_that_is_gone_nothing_is_kept(world: World) -> None:
    world.report(1, 1)
    world.deployments.clear()
    world.book.forget([revision()])
    assert world.book.current() == {}
    assert not list(world.book.revisions())
    world.deployments.add(IRIS)
    world.report(1, 0)
    assert world.book.current()[IRIS].requests_total == 1
