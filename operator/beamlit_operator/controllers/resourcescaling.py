"""The part of a plan that is about HorizontalPodAutoscalers, and what they say.

Pure. Each revision that gets requests has one while the deployment scales by cpu or memory:

| the deployment                                    | its HorizontalPodAutoscalers             |
|---------------------------------------------------|------------------------------------------|
| scales by requests                                | none                                     |
| must not start anything now (:data:`NOT_SCALED`), | none: it would start replicas            |
| or is not enabled                                 |                                          |
| scales by cpu or memory                           | those of the revisions with weight, as   |
|                                                   | they should be; others are deleted       |

What it says of itself becomes the condition `ScalingBlocked`, present only while True:

| its condition ScalingActive         | containers request cpu | told as                           |
|-------------------------------------|------------------------|-----------------------------------|
| True                                |                        | nothing                           |
| none yet                            | yes, or not needed     | nothing                           |
| none yet                            | no                     | NoResourceRequest                 |
| False, ScalingDisabled: it sleeps   |                        | NoResourceRequest if that was     |
|                                     |                        | told: a LimitRange may have given |
|                                     |                        | the pods a request meanwhile      |
| False, for less than two minutes    |                        | nothing: new pods have no metrics |
| False, for longer                   | no                     | NoResourceRequest                 |
| False, for longer                   | yes, or not needed     | NoResourceMetrics, in its words   |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from beamlit_operator.api import Reason, conditions
from beamlit_operator.controllers.plan import Deletion, Plan
from beamlit_operator.controllers.snapshot import Snapshot
from beamlit_operator.kube import HORIZONTAL_POD_AUTOSCALERS, Json
from beamlit_operator.workloads.autoscaler import (
    horizontal_pod_autoscaler,
    scales_by_resource,
    scaling_problem,
    without_request,
)

NOT_SCALED = frozenset(
    {
        Reason.ENVIRONMENT_NOT_FOUND,
        Reason.POLICY_NOT_FOUND,
        Reason.FLAVOR_NOT_ALLOWED,
        Reason.PLACEMENT_OUTDATED,
        Reason.DUPLICATE,
    }
)
"""While `Ready` is False for one of these, the controller alone says what may run."""

PATIENCE = 120.0
"""Seconds a HorizontalPodAutoscaler may be without metrics: a metrics server looks every 15 to 60
seconds, and leaves out pods that just started."""


def planned(snapshot: Snapshot, plan: Plan, *, serving: Iterable[str], reason: str) -> Plan:
    """The plan, with what is to be done about HorizontalPodAutoscalers.

    Args:
        snapshot: what the decision looked at.
        plan: what it came to.
        serving: the revisions that get requests.
        reason: of the condition `Ready`.
    """
    wanted: list[Json] = []
    if _scales(snapshot) and reason not in NOT_SCALED:
        workloads = (_workload(snapshot, plan, each) for each in sorted(serving))
        wanted = [
            horizontal_pod_autoscaler(snapshot.deployment, workload)
            for workload in workloads
            if workload is not None
        ]
    names = {each["metadata"]["name"] for each in wanted}
    leaving = {each.uid for each in plan.delete}
    because = "no HorizontalPodAutoscaler scales this revision any more"
    gone = tuple(
        Deletion(HORIZONTAL_POD_AUTOSCALERS, metadata["name"], metadata.get("uid", ""), because)
        for metadata in (each["metadata"] for each in _autoscalers(snapshot))
        if metadata.get("uid") not in leaving and metadata["name"] not in names
    )
    return replace(plan, apply=(*plan.apply, *wanted), delete=(*plan.delete, *gone))


def blocked(
    snapshot: Snapshot, *, serving: str | None, now: datetime
) -> tuple[Reason, str] | float | None:
    """Why the HorizontalPodAutoscaler cannot scale, as reason and sentence; or after how many
    seconds to look again; or None."""
    workload = next((w for w in snapshot.workloads if w["metadata"]["name"] == serving), None)
    if workload is None or not _scales(snapshot):
        return None
    found = next((a for a in _autoscalers(snapshot) if a["metadata"]["name"] == serving), None)
    its_own = ((found or {}).get("status") or {}).get("conditions") or ()
    active = next((c for c in its_own if c.get("type") == "ScalingActive"), None)
    if active is not None and active.get("status") == "True":
        return None
    if active is not None and active.get("reason") == "ScalingDisabled":
        told = conditions.find(snapshot.deployment.status.conditions, conditions.SCALING_BLOCKED)
        if told is None or told.reason != Reason.NO_RESOURCE_REQUEST:
            return None
        active = None
    if active is not None:
        waits = PATIENCE - (now - _since(active, now)).total_seconds()
        if waits > 0:
            return waits
    names = without_request(snapshot.deployment, workload)
    if names:
        return Reason.NO_RESOURCE_REQUEST, (
            f"spec.serverlessConfig.metric is cpu, in percent of what is requested, and container "
            f"{', '.join(names)} requests none: set resources.requests.cpu in spec.runtime or "
            f"spec.podTemplate"
        )
    if active is None:
        return None
    return Reason.NO_RESOURCE_METRICS, (
        f"the HorizontalPodAutoscaler {serving} cannot scale: {active.get('message', '')}; is a "
        f"metrics server installed?"
    )


def _scales(snapshot: Snapshot) -> bool:
    deployment = snapshot.deployment
    return (
        deployment.spec.enabled
        and scales_by_resource(deployment)
        and scaling_problem(deployment) is None
    )


def _workload(snapshot: Snapshot, plan: Plan, serving: str) -> Json | None:
    """A revision's Deployment, as it will be."""
    for each in (*plan.apply, *snapshot.workloads):
        if each["kind"] == "Deployment" and each["metadata"]["name"] == serving:
            return each
    return None


def _autoscalers(snapshot: Snapshot) -> list[Json]:
    kind = HORIZONTAL_POD_AUTOSCALERS.kind
    return [each for each in snapshot.children if each["kind"] == kind]


def _since(condition: Json, now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(str(condition["lastTransitionTime"]))
    except (KeyError, ValueError):
        return now
