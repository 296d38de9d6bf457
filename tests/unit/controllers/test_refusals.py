"""What gateways refuse becomes a condition, an Event, and nothing when it is over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.situations import NOW, Situation

from beamlit_operator.autoscaling import GatewayLoad, parse_load
from beamlit_operator.autoscaling.loads import KEEP_SECONDS
from beamlit_operator.controllers.modeldeployment import decide
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.controllers.refusals import GATEWAY, GatewayRefusals
from beamlit_operator.kube import Json, ObjectKey

IRIS = ObjectKey("demo", "iris")


class World:
    """What is told, and a clock."""

    def __init__(self, *, asked: bool = True) -> None:
        self.now = 0.0
        self.changed: list[ObjectKey] = []
        self.told: list[str] = []
        self.written: list[ObjectKey] = []
        self.refusals = GatewayRefusals(
            asked=asked,
            on_change=self.changed.append,
            on_gateway=self.told.append,
            written=lambda: self.written,
            clock=lambda: self.now,
        )

    def note(self, **refused: dict[str, str]) -> None:
        self.refusals.note(
            {address: GatewayLoad(address, {}, words) for address, words in refused.items()}
        )


@pytest.fixture
def world() -> World:
    return World()


def test_what_any_gateway_refuses_counts_and_is_told_once(world: World) -> None:
    world.note(a={}, b={"demo/iris": "bad cluster"})
    world.note(a={"demo/iris": "bad cluster"}, b={})
    assert world.refusals.of(IRIS) == "bad cluster"
    assert world.changed == [IRIS]
    world.note(a={}, b={})
    assert world.refusals.of(IRIS) == ""
    assert world.changed == [IRIS, IRIS]


def test_a_silent_gateways_word_stands_for_a_while(world: World) -> None:
    world.note(a={}, b={"demo/iris": "bad cluster"})
    world.now += KEEP_SECONDS / 2
    world.note(a={})
    assert world.refusals.of(IRIS) == "bad cluster"
    world.now += KEEP_SECONDS
    world.note(a={})
    assert world.refusals.of(IRIS) == ""
    assert world.changed == [IRIS, IRIS]


def test_while_no_gateway_answers_nothing_is_known(world: World) -> None:
    assert world.refusals.of(IRIS) is None
    world.note(a={"demo/iris": "bad cluster"})
    world.now += KEEP_SECONDS + 1
    world.note()
    assert world.refusals.of(IRIS) is None


def test_what_was_mended_while_no_gateway_answered_is_told(world: World) -> None:
    world.note(a={"demo/iris": "bad cluster"})
    world.now += KEEP_SECONDS + 1
    world.note()
    world.note(a={})
    assert world.refusals.of(IRIS) == ""
    assert world.changed == [IRIS, IRIS]


def test_what_an_earlier_operator_wrote_is_looked_at_once_a_gateway_answers(world: World) -> None:
    world.written = [IRIS]
    world.note()
    assert world.changed == []
    world.note(a={})
    world.note(a={})
    assert world.changed == [IRIS]


def test_with_no_gateway_to_ask_nothing_is_refused() -> None:
    assert World(asked=False).refusals.of(IRIS) == ""


def test_what_concerns_no_deployment_is_told_of_the_gateway(world: World) -> None:
    world.note(a={GATEWAY: "Envoy refused listener main: port taken"})
    world.note(a={GATEWAY: "Envoy refused listener main: port taken"})
    assert world.told == ["Envoy refused listener main: port taken"]
    world.note(a={})
    assert world.told == ["Envoy refused listener main: port taken", ""]
    assert world.changed == []


def test_a_report_of_an_earlier_gateway_refuses_nothing() -> None:
    assert parse_load({"gateway": "a", "deployments": {}}).refused == {}
    report = {"gateway": "a", "deployments": {}, "refused": {"demo/iris": "bad"}}
    assert parse_load(report).refused == {"demo/iris": "bad"}


def programmed(plan: Plan) -> Json | None:
    assert plan.status is not None
    return next((c for c in plan.status["conditions"] if c["type"] == "Programmed"), None)


def test_the_condition_is_there_while_something_is_refused() -> None:
    situation = Situation()
    first = decide(situation.snapshot(), NOW)
    assert programmed(first) is None
    there = situation.applied(first.apply).with_status(first.status)

    bad = decide(replace(there.snapshot(), refused="Envoy refused cluster x: bad"), NOW)
    condition = programmed(bad)
    assert condition is not None
    assert (condition["status"], condition["reason"], condition["message"]) == (
        "False",
        "GatewayRefused",
        "Envoy refused cluster x: bad",
    )
    assert [(e.type, e.reason) for e in bad.events] == [("Warning", "GatewayRefused")]
    # Whether it serves is another question: the last good configuration stays.
    assert bad.status is not None
    assert bad.status["conditions"][0]["reason"] == "Idle"

    told = there.with_status(bad.status)
    again = decide(replace(told.snapshot(), refused="Envoy refused cluster x: bad"), NOW)
    assert again.events == ()
    assert again.status == bad.status
    unknown = decide(replace(told.snapshot(), refused=None), NOW)
    assert unknown.status == bad.status
    mended = decide(told.snapshot(), NOW)
    assert programmed(mended) is None
