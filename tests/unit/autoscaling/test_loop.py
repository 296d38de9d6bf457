"""The loop, over a pretend cluster and pretend gateways, in simulated time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from beamlit_operator.autoscaling.kpa import ScalingConfig
from beamlit_operator.autoscaling.loads import DeploymentKey, DeploymentLoad, GatewayLoad
from beamlit_operator.autoscaling.loop import Autoscaler, Target

KEY = DeploymentKey("team/iris-production")
SCALING = ScalingConfig(target=10.0, target_utilization=1.0)


@dataclass
class World:
    """A cluster whose pods are ready at once, and one gateway."""

    scaling: ScalingConfig = SCALING
    replicas: int = 0
    concurrency: float = 0.0
    requests_per_second: float = 0.0
    held: int = 0
    reachable: bool = True
    deleted: bool = False
    frozen_view: int | None = None
    broken: bool = False
    now: float = 5000.0
    total: float = 0.0
    changes: list[tuple[float, int]] = field(default_factory=list)
    autoscaler: Autoscaler = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.autoscaler = Autoscaler(
            read_targets=self.targets,
            fetch_loads=self.loads,
            scale=self.scale,
            clock=lambda: self.now,
        )

    def targets(self) -> list[Target]:
        if self.deleted:
            return []
        shown = self.replicas if self.frozen_view is None else self.frozen_view
        return [Target("team", "iris-production", "iris-1", self.scaling, shown, shown)]

    async def loads(self) -> dict[str, GatewayLoad]:
        if not self.reachable:
            return {}
        load = DeploymentLoad(self.concurrency, int(self.total), self.held)
        return {"http://gw:1/load": GatewayLoad("gw", {KEY: load})}

    async def scale(self, target: Target, replicas: int) -> None:
        self.changes.append((self.now, replicas))
        if self.broken:
            raise ConnectionError("no API server")
        self.replicas = replicas

    async def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await self.autoscaler.tick()
            self.now += 2
            self.total += 2 * self.requests_per_second


async def test_zero_to_many_to_zero() -> None:
    world = World(held=1)
    await world.run(2)
    assert world.replicas == 1
    world.held, world.concurrency = 0, 45.0
    await world.run(10)
    assert world.replicas == 5
    world.concurrency = 0.0
    quiet = world.now
    await world.run(200)
    assert world.replicas == 0
    # the stable window empties, then the grace passes
    assert 88 <= world.changes[-1][0] - quiet <= 130


async def test_after_a_single_request_zero_comes_after_window_and_grace() -> None:
    world = World(replicas=1, concurrency=1.0)
    await world.run(4)
    world.concurrency, quiet = 0.0, world.now
    await world.run(120)
    ((when, replicas),) = world.changes
    assert replicas == 0
    assert 88 <= when - quiet <= 92


async def test_a_steady_load_makes_no_writes() -> None:
    world = World(replicas=3, concurrency=25.0)
    await world.run(300)
    assert world.changes == []


async def test_a_restarted_autoscaler_removes_nothing_before_a_stable_window() -> None:
    world = World(replicas=4)
    await world.run(60)
    assert world.replicas == 4
    await world.run(200)
    assert world.replicas == 0


async def test_a_restart_never_takes_the_last_replica_early() -> None:
    world = World(replicas=1)
    await world.run(88)
    assert world.replicas == 1
    await world.run(6)
    assert world.replicas == 0


async def test_lost_metrics_scale_nothing_down() -> None:
    world = World(replicas=3, concurrency=25.0)
    await world.run(120)
    world.reachable = False
    await world.run(600)
    assert world.replicas == 3
    assert world.changes == []


async def test_after_a_gap_the_stable_window_starts_anew() -> None:
    world = World(replicas=1, concurrency=1.0)
    await world.run(120)
    world.reachable = False
    await world.run(600)
    world.reachable, world.concurrency = True, 0.0
    await world.run(88)
    assert world.replicas == 1
    await world.run(6)
    assert world.replicas == 0


async def test_an_hour_long_stream_is_not_cut_off_by_a_rate() -> None:
    world = World(replicas=1, concurrency=1.0, scaling=replace(SCALING, metric="rps"))
    await world.run(600)
    assert world.replicas == 1


async def test_a_rate_scales_out() -> None:
    world = World(replicas=1, requests_per_second=42.0, scaling=replace(SCALING, metric="rps"))
    await world.run(120)
    assert world.replicas == 5


async def test_the_minimum_is_started_without_any_load() -> None:
    world = World(scaling=replace(SCALING, min_replicas=2))
    await world.run(2)
    assert world.replicas == 2


async def test_a_view_that_lags_does_not_repeat_the_change() -> None:
    world = World(replicas=1, concurrency=45.0, frozen_view=1)
    await world.run(8)
    assert [replicas for _, replicas in world.changes] == [5]
    await world.run(8)  # lost after all: made again
    assert [replicas for _, replicas in world.changes] == [5, 5]


async def test_a_refused_change_is_made_again_at_the_next_tick() -> None:
    world = World(replicas=1, concurrency=45.0, broken=True)
    await world.run(2)
    world.broken = False
    await world.run(2)
    assert [replicas for _, replicas in world.changes] == [5, 5]
    assert world.replicas == 5


async def test_what_sleeps_or_is_deleted_is_not_kept() -> None:
    world = World(replicas=1, concurrency=1.0)
    await world.run(4)
    assert list(world.autoscaler.decisions()) == [(KEY, "iris-1")]
    world.deleted = True
    await world.run(2)
    assert world.autoscaler.decisions() == {}
    world.deleted, world.replicas, world.concurrency = False, 0, 0.0
    await world.run(2)
    assert world.autoscaler.decisions() == {}


async def test_a_longer_window_set_later_is_honoured() -> None:
    world = World(replicas=1, concurrency=1.0)
    await world.run(10)
    world.concurrency = 0.0
    world.scaling = replace(SCALING, stable_window_seconds=120.0)
    await world.run(140)
    assert world.replicas == 1
    await world.run(30)
    assert world.replicas == 0


@pytest.mark.parametrize(("traffic", "replicas"), [(1.0, 4), (0.25, 1)])
async def test_a_revision_is_sized_by_its_part_of_the_traffic(
    traffic: float, replicas: int
) -> None:
    world = World(concurrency=40.0)
    plain = world.targets
    world.autoscaler._read_targets = lambda: [replace(item, traffic=traffic) for item in plain()]
    await world.run(4)
    assert world.replicas == replicas
