"""Policies that were tightened while the workload cannot be made anew."""

from __future__ import annotations

import pytest
from tests.support.situations import NOW, Situation

from beamlit_operator.controllers.modeldeployment import decide
from beamlit_operator.controllers.originbook import Failed
from beamlit_operator.controllers.plan import Plan

AWAY, DENIED = Failed("Unreachable", "no answer", False), Failed("AccessDenied", "no", True)


def settled(before: Situation, *, replicas: int = 0, ready: int = 0) -> tuple[Situation, str]:
    """The situation once the plan was carried out and told."""
    plan = decide(before.snapshot(), NOW)
    name = next(each["metadata"]["name"] for each in plan.apply if each["kind"] == "Deployment")
    there = before.applied(plan.apply).scaled(name, replicas, ready=ready)
    return there.with_status(decide(there.snapshot(), NOW).status), name


def ready_of(plan: Plan) -> tuple[str, str, str]:
    assert plan.status is not None
    (condition,) = (c for c in plan.status["conditions"] if c["type"] == "Ready")
    return condition["status"], condition["reason"], condition["message"]


WIDE = Situation().policy("where", continent="eu").environment(where=True)


@pytest.mark.parametrize("failed", [AWAY, DENIED], ids=lambda failed: failed.reason)
def test_what_sleeps_is_not_started_where_it_may_not_be_any_more(failed: Failed) -> None:
    situation, name = settled(WIDE)
    tighter = situation.policy("where", country="de").origin(failed)
    status, reason, message = ready_of(decide(tighter.snapshot(), NOW))
    assert (status, reason) == ("False", "PlacementOutdated")
    assert failed.message in message
    woken = decide(tighter.scaled(name, 1).snapshot(), NOW)
    assert [(scale.name, scale.replicas) for scale in woken.scale] == [(name, 0)]


@pytest.mark.parametrize("failed", [AWAY, DENIED], ids=lambda failed: failed.reason)
def test_a_policy_that_was_loosened_or_left_alone_forbids_no_start(failed: Failed) -> None:
    situation, _ = settled(WIDE)
    for now in (situation, situation.environment()):
        plan = decide(now.origin(failed).snapshot(), NOW)
        assert ready_of(plan)[1] != "PlacementOutdated"
        assert plan.scale == ()


def test_what_is_ready_within_the_new_policy_goes_on() -> None:
    situation, name = settled(WIDE, replicas=1, ready=1)
    tighter = situation.policy("where", country="de").origin(AWAY)
    plan = decide(tighter.pod(name, node="de").with_node("de", {}).snapshot(), NOW)
    assert ready_of(plan)[:2] == ("True", "Serving")


def test_once_the_origin_is_back_the_workload_is_made_anew() -> None:
    situation, _ = settled(WIDE)
    plan = decide(situation.policy("where", country="de").snapshot(), NOW)
    assert ready_of(plan)[1] != "PlacementOutdated"
    (workload,) = (each for each in plan.apply if each["kind"] == "Deployment")
    assert "country:de" in str(workload["metadata"]["annotations"])
