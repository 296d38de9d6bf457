"""HorizontalPodAutoscalers in the plans of a ModelDeployment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.situations import NOW, Situation, plan_of, revision_of

from beamlit_operator.api import labels
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.kube import HORIZONTAL_POD_AUTOSCALERS, Json

KIND = "HorizontalPodAutoscaler"
REQUESTS = {"resources": {"requests": {"cpu": "500m"}}}
WITH_A_SIDECAR = {"spec": {"containers": [{"name": "sidecar", "image": "example.com/sidecar"}]}}
"""A container that requests nothing."""

BY_CPU = {"metric": "cpu", "target": 50}


def autoscalers(plan: Plan) -> list[Json]:
    return [each for each in plan.apply if each["kind"] == KIND]


def removed(plan: Plan) -> list[str]:
    return [d.name for d in plan.delete if d.resource is HORIZONTAL_POD_AUTOSCALERS]


def by_cpu(**spec: Any) -> Situation:
    return Situation().with_spec(serverlessConfig=BY_CPU, runtime=REQUESTS, **spec)


def settled(situation: Situation, *, replicas: int = 1) -> tuple[Situation, str]:
    """As it is once the first plan was carried out, and the name of the revision."""
    plan = plan_of(situation)
    name = revision_of(plan)
    there = situation.applied(plan.apply).scaled(name, replicas, ready=replicas)
    return there.with_status(plan.status), name


def saying(situation: Situation, **condition: str) -> Situation:
    """The autoscaler says this as its ScalingActive."""
    status = {"conditions": [{"type": "ScalingActive", **condition}]}
    children = tuple(
        {**each, "status": status} if each["kind"] == KIND else each for each in situation.children
    )
    return replace(situation, children=children)


def blocked(plan: Plan) -> Json | None:
    assert plan.status is not None
    found = [c for c in plan.status["conditions"] if c["type"] == "ScalingBlocked"]
    return found[0] if found else None


def test_the_revision_that_serves_has_one() -> None:
    situation, name = settled(by_cpu())
    (found,) = autoscalers(plan_of(situation))
    assert found["metadata"]["name"] == name
    assert found["metadata"]["labels"][labels.REVISION] == name
    assert removed(plan_of(situation)) == []


def test_one_that_scales_by_requests_has_none() -> None:
    assert autoscalers(plan_of(Situation())) == []


def test_it_goes_when_the_metric_changes_back() -> None:
    situation, name = settled(by_cpu())
    plan = plan_of(situation.with_spec(serverlessConfig={"metric": "rps"}))
    assert autoscalers(plan) == []
    assert removed(plan) == [name]


def test_it_goes_when_the_deployment_is_disabled() -> None:
    situation, name = settled(by_cpu())
    assert removed(plan_of(situation.with_spec(enabled=False))) == [name]


def test_it_goes_while_policies_cannot_be_resolved_and_stays_while_an_origin_is_away() -> None:
    situation, name = settled(by_cpu())
    assert removed(plan_of(situation.without_environment())) == [name]
    assert removed(plan_of(situation.origin(None))) == []


def test_a_new_revision_gets_its_own_with_the_traffic() -> None:
    situation, old = settled(by_cpu(), replicas=2)
    runtime = {"resources": {"requests": {"cpu": "1"}}}
    changed = situation.with_spec(runtime=runtime)
    waiting = plan_of(changed)
    new = next(o["metadata"]["name"] for o in waiting.apply if o["kind"] == "Deployment")
    assert [a["metadata"]["name"] for a in autoscalers(waiting)] == [old]
    started = tuple(o for o in waiting.apply if o["metadata"]["name"] == new)
    over = plan_of(changed.applied(started).scaled(new, 2, ready=2))
    assert [a["metadata"]["name"] for a in autoscalers(over)] == [new]
    assert removed(over) == [old]


def test_a_duplicate_loses_everything_once() -> None:
    situation, name = settled(by_cpu())
    plan = plan_of(situation.rival("older", older=True))
    assert removed(plan) == [name]
    assert len({(d.resource, d.name) for d in plan.delete}) == len(plan.delete)


def test_memory_without_a_target_is_refused_with_the_field() -> None:
    plan = plan_of(Situation().with_spec(serverlessConfig={"metric": "memory"}))
    assert plan.status is not None
    (ready,) = [c for c in plan.status["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.serverlessConfig.target" in ready["message"]
    assert autoscalers(plan) == []


LONG_AGO = (NOW - timedelta(minutes=10)).isoformat()
JUST_NOW = (NOW - timedelta(seconds=30)).isoformat()
NO_METRICS = {"status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics"}


@pytest.mark.parametrize(
    ("requested", "says", "reason"),
    [
        (True, {"status": "True", "reason": "ValidMetricFound"}, None),
        (False, {"status": "True", "reason": "ValidMetricFound"}, None),
        (True, {"status": "False", "reason": "ScalingDisabled"}, None),
        (False, {"status": "False", "reason": "ScalingDisabled"}, "NoResourceRequest"),
        (True, {**NO_METRICS, "lastTransitionTime": JUST_NOW}, None),
        (False, {**NO_METRICS, "lastTransitionTime": JUST_NOW}, None),
        (True, {**NO_METRICS, "lastTransitionTime": LONG_AGO}, "NoResourceMetrics"),
        (False, {**NO_METRICS, "lastTransitionTime": LONG_AGO}, "NoResourceRequest"),
    ],
)
def test_what_keeps_it_from_scaling_is_told(
    requested: bool, says: dict[str, str], reason: str | None
) -> None:
    situation, _ = settled(by_cpu() if requested else by_cpu(podTemplate=WITH_A_SIDECAR))
    situation = situation.with_status(plan_of(situation).status)
    plan = plan_of(saying(situation, **says))
    found = blocked(plan)
    assert (found and found["reason"]) == reason
    told = [event.reason for event in plan.events]
    # The event came when it was first so: without a request, before anything had been said.
    assert told == (["NoResourceMetrics"] if reason == "NoResourceMetrics" else [])
    if says.get("lastTransitionTime") == JUST_NOW:
        assert plan.requeue_after is not None
        assert plan.requeue_after <= 90


def test_a_request_that_a_limit_range_gave_is_not_missed_again_in_sleep() -> None:
    situation, _ = settled(by_cpu(podTemplate=WITH_A_SIDECAR))
    told = situation.with_status(plan_of(situation).status)
    awake = saying(told, status="True", reason="ValidMetricFound")
    plan = plan_of(awake)
    assert blocked(plan) is None
    asleep = saying(awake.with_status(plan.status), status="False", reason="ScalingDisabled")
    plan = plan_of(asleep)
    assert blocked(plan) is None
    assert plan.events == ()


def test_a_missing_request_is_told_before_anything_runs() -> None:
    situation, _ = settled(by_cpu(podTemplate=WITH_A_SIDECAR), replicas=0)
    plan = plan_of(situation)
    found = blocked(plan)
    assert found is not None
    assert "container sidecar requests none: set resources.requests.cpu" in found["message"]
    assert "NoResourceRequest" in [event.reason for event in plan.events]
