"""What gateways counted, added up since a step began."""

from __future__ import annotations

import math

import pytest

from beamlit_operator.autoscaling import GatewayLoad, RevisionOutcome, parse_load
from beamlit_operator.autoscaling.loads import LoadError
from beamlit_operator.controllers.outcomes import KEEP_SECONDS, WATCHED_SECONDS, Outcomes
from beamlit_operator.kube import ObjectKey
from beamlit_operator.rollout.analysis import Measured

IRIS = ObjectKey("demo", "iris")
A, B = "http://10.0.0.1/load", "http://10.0.0.2/load"


class World:
    """Gateways that report, and the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.outcomes = Outcomes(clock=lambda: self.now)

    def told(self, gateway: str = "g", /, **by_address: tuple[int, int]) -> None:
        """Requests and errors of the canary by address; each request took about 10 ms."""
        self.now += 2
        self.outcomes.record(
            {
                {"a": A, "b": B}[address]: GatewayLoad(
                    gateway,
                    {},
                    outcomes={
                        "demo/iris/r2": RevisionOutcome(
                            requests, errors, ((10.0, requests), (math.inf, requests))
                        )
                    },
                )
                for address, (requests, errors) in by_address.items()
            }
        )

    def since(self, step: str = "1") -> tuple[int, int] | None:
        found = self.outcomes.since_step(IRIS, "r2", step)
        return (found.requests, found.errors) if found is not None else None


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_known_of_a_revision_that_no_gateway_told_of(world: World) -> None:
    assert world.since() is None
    world.told(a=(0, 0))
    assert world.since() == (0, 0)
    assert world.outcomes.since_step(IRIS, "r9", "1") is None


def test_whoever_watches_is_told_when_the_numbers_grow() -> None:
    now, news = 100.0, []
    outcomes = Outcomes(on_news=news.append, clock=lambda: now)

    def told(requests: int) -> None:
        row = RevisionOutcome(requests, 0)
        outcomes.record({A: GatewayLoad("g", {}, outcomes={"demo/iris/r2": row})})

    told(1)
    assert news == []
    outcomes.since_step(IRIS, "r2", "1")
    told(1)
    assert news == []
    told(2)
    assert news == [IRIS]
    now += WATCHED_SECONDS
    told(3)
    assert news == [IRIS]


def test_a_window_that_is_asked_for_early_begins_with_the_first_report(world: World) -> None:
    assert world.since() is None
    world.told(a=(5, 0))
    world.told(a=(7, 1))
    assert world.since() == (2, 1)


def test_a_window_has_what_all_gateways_counted_since_its_step_began(world: World) -> None:
    world.told(a=(100, 50), b=(30, 3))
    assert world.since() == (0, 0)
    world.told(a=(110, 51), b=(35, 3))
    assert world.since() == (15, 1)
    assert world.since("2") == (0, 0)
    world.told(a=(111, 52), b=(35, 3))
    assert world.since("2") == (1, 1)


def test_the_latency_is_that_of_the_window(world: World) -> None:
    world.told(a=(0, 0))
    assert world.outcomes.since_step(IRIS, "r2", "1") == Measured(0, 0, None)
    world.told(a=(20, 0))
    assert world.outcomes.since_step(IRIS, "r2", "1") == Measured(20, 0, 9.5)


def test_an_envoy_that_was_started_again_goes_on_from_nothing(world: World) -> None:
    world.told(a=(100, 50))
    assert world.since() == (0, 0)
    world.told("another", a=(7, 1))
    assert world.since() == (7, 1)


def test_an_agent_that_was_started_again_beside_its_envoy_counts_nothing_twice(
    world: World,
) -> None:
    world.told(a=(100, 50))
    assert world.since() == (0, 0)
    world.told("another", a=(101, 50))
    assert world.since() == (1, 0)


def test_a_gateway_that_left_keeps_its_part_and_one_that_joins_begins_with_nothing(
    world: World,
) -> None:
    world.told(a=(10, 0))
    assert world.since() == (0, 0)
    world.told(a=(20, 0))
    world.told(b=(500, 9))
    world.told(b=(501, 9))
    assert world.since() == (11, 0)


def test_what_a_gateway_counted_while_it_was_silent_comes_later(world: World) -> None:
    world.told(a=(10, 0), b=(0, 0))
    assert world.since() == (0, 0)
    world.told(b=(1, 0))
    world.now += KEEP_SECONDS / 2
    world.told(a=(30, 2), b=(1, 0))
    assert world.since() == (21, 2)


def test_revisions_and_gateways_that_are_gone_are_forgotten(world: World) -> None:
    world.told(a=(10, 0), b=(1, 0))
    world.now += KEEP_SECONDS
    world.told(b=(2, 0))
    world.told(a=(500, 0))
    assert world.since() == (0, 0)
    world.now += KEEP_SECONDS + 1
    world.outcomes.record({A: GatewayLoad("g", {})})
    assert world.outcomes.known == 0
    assert world.since() is None


def test_a_report_is_read_with_its_outcomes_and_without() -> None:
    report = {"gateway": "g", "deployments": {}}
    assert parse_load(report).outcomes == {}
    row = {"requests": 3, "errors": 1, "latency": [[1, 2], [None, 3]]}
    found = parse_load({**report, "outcomes": {"demo/iris/r2": row}}).outcomes
    assert found == {"demo/iris/r2": RevisionOutcome(3, 1, ((1, 2), (math.inf, 3)))}
    with pytest.raises(LoadError):
        parse_load({**report, "outcomes": {"demo/iris/r2": {"requests": -1}}})
