"""The HorizontalPodAutoscaler controller's decisions, in the cases of Kubernetes' documentation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.controllers.horizontal import (
    Look,
    Plan,
    decide,
    decimal,
    not_scaled,
    scaled,
    unreadable,
)
from beamlit_operator.devcluster.controllers.horizontal_limits import Memory, changed, limited
from beamlit_operator.devcluster.controllers.horizontal_metrics import PodMetric
from beamlit_operator.devcluster.timestamps import written
from beamlit_operator.kube import Json

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)


def resource(name: str = "cpu", **target: Any) -> Json:
    kind = "AverageValue" if "averageValue" in target else "Utilization"
    target = {"type": kind, **(target or {"averageUtilization": 50})}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def autoscaler(*metrics: Json, least: int | None = 1, most: int = 10, **behavior: Json) -> Json:
    spec: Json = {
        "scaleTargetRef": {"kind": "Deployment", "name": "web"},
        "maxReplicas": most,
        "metrics": list(metrics) or [resource()],
    }
    if least is not None:
        spec["minReplicas"] = least
    if behavior:
        spec["behavior"] = behavior
    return {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": spec}


def pod(
    name: str,
    *,
    request: str | None = "100m",
    ready: bool = True,
    since: datetime = LONG_AGO,
    started: datetime = LONG_AGO,
    phase: str = "Running",
    **metadata: Any,
) -> Json:
    resources = {"requests": {"cpu": request, "memory": "64Mi"}} if request else {}
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": written(since),
    }
    return {
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "main", "resources": resources}]},
        "status": {"phase": phase, "startTime": written(started), "conditions": [condition]},
    }


def used(*milli: int | None, at: datetime = NOW) -> dict[str, PodMetric]:
    """What pods p0, p1, ... use; None is no metric."""
    return {
        f"p{i}": PodMetric(value, at, timedelta(seconds=15))
        for i, value in enumerate(milli)
        if value is not None
    }


def look(
    hpa: Json,
    *milli: int | None,
    current: int | None = None,
    pods: list[Json] | None = None,
    memory: Memory | None = None,
    resource: str = "cpu",
) -> Plan:
    there = [pod(f"p{i}") for i in range(len(milli))] if pods is None else pods
    return decide(
        Look(
            hpa,
            len(there) if current is None else current,
            there,
            {resource: used(*milli)},
            memory or Memory(recommendations=((LONG_AGO, 1),)),
            NOW,
        )
    )


def reasons(status: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


QUICK = {"stabilizationWindowSeconds": 0}


@pytest.mark.parametrize(
    ("milli", "wanted"),
    [
        ((200,), 4),  # the page's example: 200m by 50m quadruples
        ((100,), 2),
        ((50,), None),
        ((54,), None),  # within a tenth
        ((56,), 2),
        ((46, 46), None),
        ((20, 20, 20, 20), 2),  # ceil(4 x 20 / 50)
        ((0, 0, 0), 1),  # nothing is still one
    ],
)
def test_the_ratio_of_use_and_target_decides(milli: tuple[int, ...], wanted: int | None) -> None:
    assert look(autoscaler(scaleDown=QUICK), *milli).replicas == wanted


def test_a_mean_value_is_compared_without_requests() -> None:
    hpa = autoscaler(resource("memory", averageValue="100Mi"), scaleDown=QUICK)
    pods = [pod("p0", request=None), pod("p1", request=None)]
    plan = look(hpa, 250 * 2**20 * 1000, 50 * 2**20 * 1000, pods=pods, resource="memory")
    assert plan.replicas == 3
    (metric,) = plan.status["currentMetrics"]
    assert metric["resource"]["current"] == {"averageValue": str(150 * 2**20)}


@pytest.mark.parametrize(
    ("pods", "milli", "wanted"),
    [
        # growing: pods that start count as using nothing, so 150m by 2 x 50m, not by 50m
        ([pod("p0"), pod("p1", ready=False, started=NOW, since=NOW)], (150, 90), 3),
        # growing: one without a metric counts as nothing
        ([pod("p0"), pod("p1")], (150, None), 3),
        # growing: with the pod that starts it would be enough
        ([pod("p0"), pod("p1", phase="Pending")], (100, None), None),
        # shrinking: one without a metric counts as its whole request, which turns it round
        ([pod("p0"), pod("p1")], (10, None), None),
        # shrinking: of many, it does not matter
        ([pod(f"p{i}") for i in range(6)], (10, 10, 10, 10, 10, None), 3),
        # failed and leaving pods are nobody's
        ([pod("p0"), pod("p1", phase="Failed")], (100, 0), 2),
        ([pod("p0"), pod("p1", deletionTimestamp=written(NOW))], (100, 0), 2),
        # warmed up long ago, unready for a while: its use counts
        ([pod("p0"), pod("p1", ready=False, since=NOW)], (100, 100), 4),
    ],
)
def test_pods_that_are_not_ready_or_have_no_metrics(
    pods: list[Json], milli: tuple[int | None, ...], wanted: int | None
) -> None:
    hpa = autoscaler(scaleDown=QUICK)
    alive = [
        each
        for each in pods
        if each["status"]["phase"] != "Failed" and "deletionTimestamp" not in each["metadata"]
    ]
    assert look(hpa, *milli, pods=pods, current=len(alive)).replicas == wanted


def test_a_pod_is_measured_once_its_window_began_after_it_was_ready() -> None:
    hpa = autoscaler()
    fresh = [pod("p0", since=NOW - timedelta(seconds=10), started=NOW - timedelta(seconds=12))]
    plan = look(hpa, 500, pods=fresh)
    assert plan.replicas is None
    assert reasons(plan.status)["ScalingActive"] == ("False", "FailedGetResourceMetric")
    assert "did not receive metrics for targeted pods" in str(plan.status["conditions"])
    warm = [pod("p0", since=NOW - timedelta(seconds=20), started=NOW - timedelta(seconds=22))]
    assert look(hpa, 500, pods=warm).replicas == 5


@pytest.mark.parametrize(
    ("metrics", "wanted"),
    [
        ((resource(), resource("memory", averageValue="1Gi")), 4),
        ((resource("memory", averageValue="1Gi"), resource()), 4),
    ],
)
def test_the_largest_proposal_wins(metrics: tuple[Json, ...], wanted: int) -> None:
    hpa = autoscaler(*metrics)
    metrics_seen = {"cpu": used(200), "memory": used(10)}
    seen = Look(hpa, 1, [pod("p0")], metrics_seen, Memory(recommendations=((LONG_AGO, 1),)), NOW)
    plan = decide(seen)
    assert plan.replicas == wanted
    assert plan.because == "cpu resource utilization (percentage of request) above target"


def test_a_metric_that_fails_forbids_to_shrink_and_not_to_grow() -> None:
    hpa = autoscaler(resource(), resource("memory", averageValue="1Gi"), scaleDown=QUICK)
    pods = [pod("p0"), pod("p1")]
    for milli, wanted in ((10, None), (100, 4)):
        plan = look(hpa, milli, milli, pods=pods)
        assert plan.replicas == wanted
        assert "FailedGetResourceMetric" in [event.reason for event in plan.events]


def test_the_words_of_a_cluster_without_metrics() -> None:
    plan = look(autoscaler(), None)
    (message,) = [c["message"] for c in plan.status["conditions"] if c["type"] == "ScalingActive"]
    error = (
        "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics "
        "returned from resource metrics API"
    )
    assert message == f"the HPA was unable to compute the replica count: {error}"
    assert [(event.reason, event.message) for event in plan.events] == [
        ("FailedGetResourceMetric", error),
        (
            "FailedComputeMetricsReplicas",
            "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource "
            f"metric value: {error}",
        ),
    ]


def test_a_container_without_a_request_is_named() -> None:
    plan = look(autoscaler(), 100, pods=[pod("p0", request=None)])
    assert "missing request for cpu in container main of Pod p0" in str(plan.status)


def test_a_target_that_does_not_say_which_are_its_pods_is_told() -> None:
    memory = Memory(recommendations=((LONG_AGO, 1),))
    plan = decide(Look(autoscaler(), 1, None, {}, memory, NOW))
    assert plan.replicas is None
    assert reasons(plan.status)["ScalingActive"] == ("False", "InvalidSelector")
    assert next(event.reason for event in plan.events) == "SelectorRequired"


def test_pods_of_two_autoscalers_are_nobodys() -> None:
    memory = Memory(recommendations=((LONG_AGO, 1),))
    pods, metrics = [pod("p0")], {"cpu": used(200)}
    seen = Look(autoscaler(), 1, pods, metrics, memory, NOW, "app=web", ("default/also",))
    plan = decide(seen)
    assert plan.replicas is None
    (active,) = [c for c in plan.status["conditions"] if c["type"] == "ScalingActive"]
    assert (active["status"], active["reason"]) == ("False", "AmbiguousSelector")
    assert active["message"] == (
        "pods by selector app=web are controlled by multiple HPAs: [default/also default/web]"
    )


def test_a_metric_that_is_not_of_resources_is_refused_in_words() -> None:
    external = {"type": "External", "external": {"metric": {"name": "queue"}}}
    plan = look(autoscaler(external), 100)
    assert reasons(plan.status)["ScalingActive"] == ("False", "FailedGetExternalMetric")


@pytest.mark.parametrize(
    ("current", "least", "wanted", "because"),
    [
        (0, 1, None, ""),
        (12, 1, 10, "Current number of replicas above Spec.MaxReplicas"),
        (1, 2, 2, "Current number of replicas below Spec.MinReplicas"),
    ],
)
def test_zero_and_the_bounds_come_before_metrics(
    current: int, least: int, wanted: int | None, because: str
) -> None:
    plan = look(autoscaler(least=least), 10_000, current=current)
    assert (plan.replicas, plan.because) == (wanted, because)
    if current == 0:
        assert reasons(plan.status)["ScalingActive"] == ("False", "ScalingDisabled")
        assert plan.status["desiredReplicas"] == 0


def test_what_status_says_of_a_change() -> None:
    plan = look(autoscaler(), 200)
    status = scaled(plan, now=NOW)
    assert status["currentReplicas"] == 1
    assert status["desiredReplicas"] == 4
    assert status["lastScaleTime"] == written(NOW)
    assert status["currentMetrics"][0]["resource"] == {
        "name": "cpu",
        "current": {"averageUtilization": 200, "averageValue": "200m"},
    }
    assert reasons(status) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    refused = not_scaled(plan, "no", old=autoscaler(), now=NOW)
    assert reasons(refused)["AbleToScale"] == ("False", "FailedUpdateScale")
    gone = unreadable(autoscaler(), "not found", now=NOW)
    assert reasons(gone) == {"AbleToScale": ("False", "FailedGetScale")}


def test_a_conditions_time_moves_with_its_status_only() -> None:
    hpa = autoscaler()
    hpa["status"] = look(hpa, 50).status
    for condition in hpa["status"]["conditions"]:
        condition["lastTransitionTime"] = written(LONG_AGO)
    again = look(hpa, 50).status
    assert {c["lastTransitionTime"] for c in again["conditions"]} == {written(LONG_AGO)}


def past(*entries: tuple[int, int]) -> tuple[tuple[datetime, int], ...]:
    """(seconds ago, number)."""
    return tuple((NOW - timedelta(seconds=ago), number) for ago, number in entries)


@pytest.mark.parametrize(
    ("behavior", "current", "desired", "memory", "wanted", "able", "limit"),
    [
        # nothing said: down only after five minutes of lower recommendations
        ({}, 5, 2, Memory(past((200, 5))), 5, "ScaleDownStabilized", "DesiredWithinRange"),
        ({}, 5, 2, Memory(past((301, 5))), 2, "ReadyForNewScale", "DesiredWithinRange"),
        ({}, 5, 2, Memory(past((200, 4))), 4, "ScaleDownStabilized", "DesiredWithinRange"),
        # nothing said: up by 4 or double, in 15 seconds
        ({}, 1, 9, Memory(), 5, "ReadyForNewScale", "ScaleUpLimit"),
        ({}, 5, 10, Memory(), 10, "ReadyForNewScale", "DesiredWithinRange"),
        ({}, 5, 12, Memory(), 10, "ReadyForNewScale", "TooManyReplicas"),
        ({}, 5, 9, Memory(added=past((10, 4))), 5, "ReadyForNewScale", "ScaleUpLimit"),
        ({}, 5, 9, Memory(added=past((16, 4))), 9, "ReadyForNewScale", "DesiredWithinRange"),
        ({"scaleDown": QUICK}, 5, 0, Memory(), 1, "ReadyForNewScale", "TooFewReplicas"),
        (
            {"scaleUp": {"stabilizationWindowSeconds": 60}},
            2,
            4,
            Memory(past((30, 3))),
            3,
            "ScaleUpStabilized",
            "DesiredWithinRange",
        ),
        (
            {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
            2,
            6,
            Memory(),
            3,
            "ReadyForNewScale",
            "ScaleUpLimit",
        ),
        (
            {
                "scaleDown": {
                    **QUICK,
                    "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
                }
            },
            10,
            2,
            Memory(),
            9,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (
            {
                "scaleDown": {
                    **QUICK,
                    "selectPolicy": "Min",
                    "policies": [
                        {"type": "Percent", "value": 50, "periodSeconds": 60},
                        {"type": "Pods", "value": 2, "periodSeconds": 60},
                    ],
                }
            },
            10,
            2,
            Memory(),
            8,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (
            {"scaleDown": {**QUICK, "selectPolicy": "Disabled"}},
            5,
            2,
            Memory(),
            5,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
    ],
)
def test_how_fast_it_may_go(
    behavior: dict[str, Json],
    current: int,
    desired: int,
    memory: Memory,
    wanted: int,
    able: str,
    limit: str,
) -> None:
    hpa = autoscaler(**behavior)
    found = limited(hpa, current=current, desired=desired, memory=memory, now=NOW)
    assert (found.replicas, found.able.reason, found.limited.reason) == (wanted, able, limit)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), max_size=80),
)
def test_it_stays_within_its_bounds_and_its_memory_small(
    current: int, steps: list[tuple[int, int]]
) -> None:
    hpa, memory, now = autoscaler(least=1, most=50), Memory(), NOW
    for desired, seconds in steps:
        now += timedelta(seconds=seconds)
        found = limited(hpa, current=current, desired=desired, memory=memory, now=now)
        assert 1 <= found.replicas <= 50
        memory = found.memory
        if found.replicas != current:
            memory = changed(hpa, memory, before=current, after=found.replicas, now=now)
            current = found.replicas
        assert len(memory.recommendations) <= 302
        assert len(memory.added) + len(memory.removed) <= 40


@pytest.mark.parametrize(
    ("milli", "text"),
    [
        (0, "0"),
        (1, "1m"),
        (1000, "1"),
        (1500, "1500m"),
        (2_000_000, "2k"),
        (52_428_800_000, "52428800"),
    ],
)
def test_quantities_are_written_canonically(milli: int, text: str) -> None:
    assert decimal(milli) == text


def test_a_tolerance_of_its_own_is_honoured() -> None:
    hpa = autoscaler(scaleUp={"tolerance": "0.5"})
    assert look(hpa, 70).replicas is None
    assert look(hpa, 80).replicas == 2
