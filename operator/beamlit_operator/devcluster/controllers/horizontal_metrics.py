"""How many replicas a resource metric asks for, as kube-controller-manager works it out.

Pure. The algorithm is that of ``pkg/controller/podautoscaler/replica_calculator.go`` and of the
page "Horizontal Pod Autoscaling" of the Kubernetes documentation. Pods are sorted first:

| the pod                                              | counts as                               |
|------------------------------------------------------|-----------------------------------------|
| is being deleted, or failed                          | nothing                                 |
| is pending                                           | not ready                               |
| has no metric                                        | missing                                 |
| cpu, started less than 5 minutes ago: is not ready,  | not ready                               |
| or the metric's window began before it was           |                                         |
| cpu, later: is not ready and never was               | not ready                               |
| else                                                 | ready                                   |

The ratio is the ready pods' use by the target. Within the tolerance nothing changes. Else it is
worked out again with the missing pods at nothing when growing, and at the target or their whole
request (the larger) when shrinking; and with those not ready at nothing when growing. If that turns
the direction round, nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from beamlit_operator.devcluster import quantities
from beamlit_operator.devcluster.controllers.pods import condition
from beamlit_operator.devcluster.timestamps import read
from beamlit_operator.kube import Json

CPU_INITIALIZATION = timedelta(minutes=5)
"""``--horizontal-pod-autoscaler-cpu-initialization-period``."""

INITIAL_READINESS = timedelta(seconds=30)
"""``--horizontal-pod-autoscaler-initial-readiness-delay``."""

TOLERANCE = 0.1
"""``--horizontal-pod-autoscaler-tolerance``."""


class MetricError(Exception):
    """No number of replicas can be worked out; the text is Kubernetes'."""


@dataclass(frozen=True, slots=True)
class PodMetric:
    """What one pod uses, in thousandths of a core or byte."""

    milli: int
    at: datetime
    window: timedelta


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the ratio may be from one without a change."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def holds(self, ratio: float) -> bool:
        """Whether the ratio is near enough to one."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one metric asks for, and what it is now."""

    replicas: int
    average_milli: int
    utilization: int | None = None
    """Percent of the requests."""


@dataclass(frozen=True, slots=True)
class _Groups:
    ready: int
    unready: list[str]
    missing: list[str]
    measured: dict[str, int]
    """The metrics of the ready pods."""


def by_utilization(
    pods: Sequence[Json],
    metrics: Mapping[str, PodMetric],
    *,
    resource: str,
    percent: int,
    current: int,
    tolerance: Tolerance,
    now: datetime,
) -> Proposal:
    """The replicas at which pods use ``percent`` of what they request.

    Raises:
        MetricError: there are no pods, metrics or requests.
    """
    groups = _grouped(pods, metrics, resource=resource, now=now)
    requests = {pod["metadata"]["name"]: _request(pod, resource) for pod in pods}
    if not groups.measured:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")

    def utilization(used: Mapping[str, int]) -> int:
        requested = sum(requests[name] for name in used)
        if requested == 0:
            raise MetricError("no metrics returned matched known pods")
        return sum(used.values()) * 100 // requested

    found = utilization(groups.measured)
    average = sum(groups.measured.values()) // len(groups.measured)
    replicas = _replicas(
        groups,
        current=current,
        ratio=lambda used: utilization(used) / percent,
        at_least={name: requests[name] * max(100, percent) // 100 for name in groups.missing},
        tolerance=tolerance,
    )
    return Proposal(replicas, average, found)


def by_average(
    pods: Sequence[Json],
    metrics: Mapping[str, PodMetric],
    *,
    resource: str,
    target_milli: int,
    current: int,
    tolerance: Tolerance,
    now: datetime,
) -> Proposal:
    """The replicas at which pods use ``target_milli`` on average.

    Raises:
        MetricError: there are no pods or metrics.
    """
    groups = _grouped(pods, metrics, resource=resource, now=now)
    if not groups.measured:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")

    def average(used: Mapping[str, int]) -> int:
        return sum(used.values()) // len(used)

    replicas = _replicas(
        groups,
        current=current,
        ratio=lambda used: average(used) / target_milli,
        at_least=dict.fromkeys(groups.missing, target_milli),
        tolerance=tolerance,
    )
    return Proposal(replicas, average(groups.measured))


def _replicas(
    groups: _Groups,
    *,
    current: int,
    ratio: Callable[[Mapping[str, int]], float],
    at_least: Mapping[str, int],
    tolerance: Tolerance,
) -> int:
    first = ratio(groups.measured)
    growing = first > 1.0
    unready = groups.unready if growing else []
    if not unready and not groups.missing:
        return current if tolerance.holds(first) else math.ceil(first * groups.ready)
    used = dict(groups.measured)
    if first < 1.0:
        used.update(at_least)
    elif growing:
        used.update(dict.fromkeys((*groups.missing, *unready), 0))
    second = ratio(used)
    turned = (first < 1.0 < second) or (second < 1.0 < first)
    if tolerance.holds(second) or turned:
        return current
    replicas = math.ceil(second * len(used))
    against = (second < 1.0 and replicas > current) or (second > 1.0 and replicas < current)
    return current if against else replicas


def _grouped(
    pods: Sequence[Json], metrics: Mapping[str, PodMetric], *, resource: str, now: datetime
) -> _Groups:
    if not pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    unready, missing, measured = [], [], {}
    for pod in pods:
        name = pod["metadata"]["name"]
        phase = (pod.get("status") or {}).get("phase")
        if pod["metadata"].get("deletionTimestamp") or phase == "Failed":
            continue
        if phase == "Pending":
            unready.append(name)
        elif name not in metrics:
            missing.append(name)
        elif resource == "cpu" and _is_warming_up(pod, metrics[name], now):
            unready.append(name)
        else:
            measured[name] = metrics[name].milli
    return _Groups(len(measured), unready, missing, measured)


def _is_warming_up(pod: Json, metric: PodMetric, now: datetime) -> bool:
    started = (pod.get("status") or {}).get("startTime")
    ready = condition(pod, "Ready")
    if not started or not ready.get("lastTransitionTime"):
        return True
    is_ready, since, began = (
        ready.get("status") == "True",
        read(ready["lastTransitionTime"]),
        read(started),
    )
    if now < began + CPU_INITIALIZATION:
        return not is_ready or metric.at < since + metric.window
    return not is_ready and since < began + INITIAL_READINESS


def _request(pod: Json, resource: str) -> int:
    """In thousandths. Init containers that go on running count too."""
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    total = 0
    for container in (*spec.get("containers", ()), *sidecars):
        amount = ((container.get("resources") or {}).get("requests") or {}).get(resource)
        if amount is None:
            name = pod["metadata"]["name"]
            raise MetricError(
                f"missing request for {resource} in container {container['name']} of Pod {name}"
            )
        total += quantities.rounded_up(quantities.parse(amount), "1m")
    return total
