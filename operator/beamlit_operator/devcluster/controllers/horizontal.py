"""HorizontalPodAutoscaler: what one look at the target and the metrics comes to.

Pure; conditions and events have kube-controller-manager's words.

| the target                           | what is done                                              |
|--------------------------------------|-----------------------------------------------------------|
| has no replicas, minReplicas is not 0| nothing; ScalingActive False, ScalingDisabled             |
| has more than maxReplicas            | scaled to that, whatever metrics say                      |
| has fewer than minReplicas           | scaled to that, whatever metrics say                      |
| names no selector of its pods        | nothing; ScalingActive False, InvalidSelector             |
| has pods that another one selects too| nothing; ScalingActive False, AmbiguousSelector           |
| a metric fails, none asks for more   | nothing; ScalingActive False with the metric's reason     |
| else                                 | the largest proposal, within ``behavior`` and the bounds  |

Only metrics of type Resource are known here; others fail as they do in a cluster that serves no
custom metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from beamlit_operator.devcluster import quantities
from beamlit_operator.devcluster.controllers.horizontal_limits import (
    Memory,
    Told,
    limited,
    rules_of,
)
from beamlit_operator.devcluster.controllers.horizontal_metrics import (
    TOLERANCE,
    MetricError,
    PodMetric,
    Proposal,
    Tolerance,
    by_average,
    by_utilization,
)
from beamlit_operator.devcluster.timestamps import written
from beamlit_operator.kube import Json

_GROUPS = {
    "ContainerResource": ("FailedGetContainerResourceMetric", "container resource"),
    "Pods": ("FailedGetPodsMetric", "pods"),
    "Object": ("FailedGetObjectMetric", "object"),
    "External": ("FailedGetExternalMetric", "external"),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one moment."""

    hpa: Json
    current: int
    """The replicas that the target is set to."""
    pods: Sequence[Json] | None
    """None: the target does not say which are its pods."""
    metrics: Mapping[str, Mapping[str, PodMetric]]
    """By resource, by pod; a resource without any metric may be absent."""
    memory: Memory
    now: datetime
    selector: str = ""
    """That of the pods."""
    rivals: tuple[str, ...] = ()
    """Other autoscalers that select some of the pods, as ``namespace/name``."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A Warning event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    replicas: int | None
    """To set; None to leave the target alone."""
    because: str
    status: Json
    """Before the target was scaled: `scaled` and `not_scaled` say how that went."""
    memory: Memory
    events: tuple[Warned, ...] = ()


@dataclass(frozen=True, slots=True)
class _Computed:
    replicas: int = 0
    name: str = ""
    statuses: tuple[Json, ...] = ()
    failures: tuple[tuple[str, str, str], ...] = field(default=())
    """(reason, what, error) of each metric that failed."""


def decide(look: Look) -> Plan:
    """The plan for a target whose scale could be read."""
    hpa, current = look.hpa, look.current
    least = hpa["spec"].get("minReplicas")
    least, most = 1 if least is None else least, hpa["spec"]["maxReplicas"]
    memory = look.memory
    if not memory.recommendations:
        memory = replace(memory, recommendations=((look.now, current),))
    got = Told(
        True,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
    )
    conditions = conditioned(old_conditions(hpa), "AbleToScale", got, now=look.now)
    if current == 0 and least != 0:
        text = "scaling is disabled since the replica count of the target is zero"
        off = Told(False, "ScalingDisabled", text)
        conditions = conditioned(conditions, "ScalingActive", off, now=look.now)
        return Plan(None, "", _status(look, current, current, (), conditions), memory)
    if not least <= current <= most:
        bound, side = (
            (most, "above Spec.MaxReplicas")
            if current > most
            else (
                least,
                "below Spec.MinReplicas",
            )
        )
        because = f"Current number of replicas {side}"
        return Plan(bound, because, _status(look, current, bound, (), conditions), memory)
    unclear = _unclear(look)
    if unclear is not None:
        return _unable(look, unclear, conditions=conditions, memory=memory)
    found = _compute(look, look.pods or ())
    failed = len(found.failures)
    total = len(hpa["spec"].get("metrics") or ())
    if failed and (failed == total or found.replicas < current):
        return _failing(look, found, conditions, memory)
    if found.statuses:
        valid = Told(
            True,
            "ValidMetricFound",
            f"the HPA was able to successfully calculate a replica count from {found.name}",
        )
        conditions = conditioned(conditions, "ScalingActive", valid, now=look.now)
    bounded = limited(hpa, current=current, desired=found.replicas, memory=memory, now=look.now)
    conditions = conditioned(conditions, "AbleToScale", bounded.able, now=look.now)
    conditions = conditioned(conditions, "ScalingLimited", bounded.limited, now=look.now)
    status = _status(look, current, bounded.replicas, found.statuses, conditions)
    grows = found.replicas > current
    because = f"{found.name} above target" if grows else "All metrics below target"
    target = bounded.replicas if bounded.replicas != current else None
    return Plan(target, because, status, bounded.memory, _warnings(found))


def scaled(plan: Plan, *, now: datetime) -> Json:
    """The status after the target took the plan's replicas."""
    assert plan.replicas is not None
    text = f"the HPA controller was able to update the target scale to {plan.replicas}"
    able = Told(True, "SucceededRescale", text)
    conditions = conditioned(plan.status["conditions"], "AbleToScale", able, now=now)
    return {**plan.status, "conditions": conditions, "lastScaleTime": written(now)}


def not_scaled(plan: Plan, error: str, *, old: Json, now: datetime) -> Json:
    """The status after the target refused them."""
    text = f"the HPA controller was unable to update the target scale: {error}"
    able = Told(False, "FailedUpdateScale", text)
    conditions = conditioned(plan.status["conditions"], "AbleToScale", able, now=now)
    desired = (old.get("status") or {}).get("desiredReplicas", 0)
    return {**plan.status, "conditions": conditions, "desiredReplicas": desired}


def unreadable(hpa: Json, error: str, *, now: datetime) -> Json:
    """The status when the target's scale cannot be read."""
    text = f"the HPA controller was unable to get the target's current scale: {error}"
    able = Told(False, "FailedGetScale", text)
    status = dict(hpa.get("status") or {})
    status.setdefault("desiredReplicas", 0)
    return {
        **status,
        "conditions": conditioned(old_conditions(hpa), "AbleToScale", able, now=now),
    }


def _unclear(look: Look) -> tuple[Warned, Warned] | None:
    """Why it is not clear which pods to look at, for the condition and for the event."""
    if look.pods is None:
        return (
            Warned("InvalidSelector", "the HPA target's scale is missing a selector"),
            Warned("SelectorRequired", "selector is required"),
        )
    if not look.rivals:
        return None
    metadata = look.hpa["metadata"]
    everyone = sorted((f"{metadata['namespace']}/{metadata['name']}", *look.rivals))
    told = Warned(
        "AmbiguousSelector",
        f"pods by selector {look.selector} are controlled by multiple HPAs: [{' '.join(everyone)}]",
    )
    return told, told


def _unable(
    look: Look, why: tuple[Warned, Warned], *, conditions: list[Json], memory: Memory
) -> Plan:
    """Nothing is done, and all that was known stays."""
    told, warned = why
    inactive = Told(False, told.reason, told.message)
    conditions = conditioned(conditions, "ScalingActive", inactive, now=look.now)
    old = look.hpa.get("status") or {}
    metrics = tuple(old.get("currentMetrics") or ())
    status = _status(look, look.current, old.get("desiredReplicas", 0), metrics, conditions)
    failure = Warned("FailedComputeMetricsReplicas", warned.message)
    return Plan(None, "", status, memory, (warned, failure))


def _failing(look: Look, found: _Computed, conditions: list[Json], memory: Memory) -> Plan:
    old = look.hpa.get("status") or {}
    reason, what, error = found.failures[0]
    why = f"the HPA was unable to compute the replica count: {error}"
    conditions = conditioned(conditions, "ScalingActive", Told(False, reason, why), now=look.now)
    status = _status(
        look,
        look.current,
        old.get("desiredReplicas", 0),
        tuple(old.get("currentMetrics") or ()),
        conditions,
    )
    total = len(look.hpa["spec"].get("metrics") or ())
    message = (
        f"invalid metrics ({len(found.failures)} invalid out of {total}), first error is: "
        f"failed to get {what} metric value: {error}"
    )
    events = (*_warnings(found), Warned("FailedComputeMetricsReplicas", message))
    return Plan(None, "", status, memory, events)


def _warnings(found: _Computed) -> tuple[Warned, ...]:
    return tuple(Warned(reason, error) for reason, _, error in found.failures)


def _compute(look: Look, pods: Sequence[Json]) -> _Computed:
    """The largest proposal of all metrics."""
    found = _Computed()
    for metric in look.hpa["spec"].get("metrics") or ():
        if metric["type"] != "Resource":
            reason, what = _GROUPS[metric["type"]]
            error = f"the embedded cluster serves no {what} metrics"
            found = replace(found, failures=(*found.failures, (reason, what, error)))
            continue
        resource, target = metric["resource"]["name"], metric["resource"]["target"]
        try:
            proposal, name = _proposal(look, pods, resource=resource, target=target)
        except MetricError as problem:
            failure = ("FailedGetResourceMetric", f"{resource} resource", str(problem))
            found = replace(found, failures=(*found.failures, failure))
            continue
        found = replace(found, statuses=(*found.statuses, _metric_status(resource, proposal)))
        if len(found.statuses) == 1 or proposal.replicas > found.replicas:
            found = replace(found, replicas=proposal.replicas, name=name)
    return found


def _proposal(
    look: Look, pods: Sequence[Json], *, resource: str, target: Mapping[str, Any]
) -> tuple[Proposal, str]:
    common: dict[str, Any] = {
        "resource": resource,
        "current": look.current,
        "tolerance": _tolerance(look.hpa),
        "now": look.now,
    }
    by_value = target.get("averageValue") is not None
    try:
        metrics = look.metrics.get(resource) or {}
        if not metrics:
            raise MetricError(
                f"unable to get metrics for resource {resource}: "
                f"no metrics returned from resource metrics API"
            )
        if by_value:
            milli = quantities.rounded_up(quantities.parse(target["averageValue"]), "1m")
            proposal = by_average(pods, metrics, target_milli=milli, **common)
            return proposal, f"{resource} resource"
        percent = int(target["averageUtilization"])
        proposal = by_utilization(pods, metrics, percent=percent, **common)
    except MetricError as problem:
        what = "usage" if by_value else "utilization"
        raise MetricError(f"failed to get {resource} {what}: {problem}") from None
    return proposal, f"{resource} resource utilization (percentage of request)"


def _tolerance(hpa: Json) -> Tolerance:
    up, down = (rules_of(hpa, name).get("tolerance") for name in ("scaleUp", "scaleDown"))
    return Tolerance(
        up=TOLERANCE if up is None else float(quantities.parse(up)),
        down=TOLERANCE if down is None else float(quantities.parse(down)),
    )


def _metric_status(resource: str, proposal: Proposal) -> Json:
    current: Json = {"averageValue": decimal(proposal.average_milli)}
    if proposal.utilization is not None:
        current["averageUtilization"] = proposal.utilization
    return {"type": "Resource", "resource": {"name": resource, "current": current}}


def decimal(milli: int) -> str:
    """Thousandths as a canonical decimal quantity."""
    if milli % 1000:
        return f"{milli}m"
    amount, suffixes = milli // 1000, ["", "k", "M", "G", "T", "P"]
    place = 0
    while amount and amount % 1000 == 0 and place + 1 < len(suffixes):
        amount, place = amount // 1000, place + 1
    return f"{amount}{suffixes[place]}"


def _status(
    look: Look,
    current: int,
    desired: int,
    metrics: Sequence[Json],
    conditions: list[Json],
) -> Json:
    old = look.hpa.get("status") or {}
    status: Json = {
        "currentReplicas": current,
        "desiredReplicas": desired,
        "currentMetrics": list(metrics),
        "conditions": conditions,
    }
    if old.get("lastScaleTime"):
        status["lastScaleTime"] = old["lastScaleTime"]
    return status


def old_conditions(hpa: Json) -> list[Json]:
    """The conditions as they are."""
    return list((hpa.get("status") or {}).get("conditions") or ())


def conditioned(conditions: Sequence[Json], type_: str, told: Told, *, now: datetime) -> list[Json]:
    """The conditions with one set; its time moves only when its status does."""
    status = "True" if told.status else "False"
    before = next((c for c in conditions if c["type"] == type_), None)
    since = written(now)
    if before is not None and before["status"] == status and before.get("lastTransitionTime"):
        since = before["lastTransitionTime"]
    fresh = {
        "type": type_,
        "status": status,
        "lastTransitionTime": since,
        "reason": told.reason,
        "message": told.message,
    }
    if before is None:
        return [*conditions, fresh]
    return [fresh if c["type"] == type_ else c for c in conditions]
