"""What deployments use, for the operator's metrics: replica-seconds by flavor, and their starts.

Only the leader counts, so that the figures of several operators may be added up. Starts are read
from the conditions of pods, which have whole seconds:

| phase    | from                  | to                                                   |
|----------|-----------------------|------------------------------------------------------|
| schedule | the pod was made      | `PodScheduled`: a node was found                     |
| fetch    | `PodScheduled`        | `Initialized`: images are there and files fetched    |
| load     | `Initialized`         | `Ready`: the model server answers                    |

A start counts once, when the pod becomes ready for the first time, and not if that was before this
process led.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from beamlit_operator.api import labels as names
from beamlit_operator.controllers.diagnosis import ready
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.nodes import node_flavors

LABELS = ("workspace", "model", "environment", "deployment")

UNKNOWN = "unknown"

_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)

Owner = tuple[str, str, str, str]
"""The values of :data:`LABELS`."""


@dataclass(slots=True)
class _Running:
    owner: Owner
    flavor: str
    since: float


class Usage:
    """Counts from what is seen of pods. Bounded by the pods and deployments that exist."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        node_labels: Callable[[str], Mapping[str, str] | None],
        catalogue: Callable[[], Catalogue],
        exists: Callable[[ObjectKey], bool],
        leading: Callable[[], bool],
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``node_labels`` gives those of a node, ``exists`` says whether a ModelDeployment does."""
        self._node_labels = node_labels
        self._catalogue = catalogue
        self._exists = exists
        self._leading = leading
        self._clock = clock
        self._began = now().replace(microsecond=0)
        self._running: dict[str, _Running] = {}
        self._started: set[str] = set()
        self._totals: dict[tuple[Owner, str], float] = {}
        self._starts = Histogram(
            "beamlit_start_phase_seconds",
            "Parts of a pod's start: schedule, fetch, load.",
            (*LABELS, "phase"),
            buckets=_BUCKETS,
            registry=registry,
        )
        registry.register(_Scraped(self.replica_seconds))

    def seen(self, pod: Json) -> None:
        """A pod appeared or changed."""
        uid = str(pod["metadata"].get("uid") or "")
        owner = _owner(pod)
        if not uid or owner is None:
            return
        if not ready(pod):
            self._stop(uid)
            return
        if uid not in self._running:
            self._running[uid] = _Running(owner, self._flavor(pod), self._clock())
        if uid not in self._started:
            self._started.add(uid)
            self._count_start(owner, pod)

    def gone(self, uid: str) -> None:
        """A pod is gone."""
        self._stop(uid)
        self._started.discard(uid)

    def _stop(self, uid: str) -> None:
        running = self._running.pop(uid, None)
        if running is not None:
            self._add(running)

    def _add(self, running: _Running) -> None:
        now = self._clock()
        if self._leading():
            key = (running.owner, running.flavor)
            self._totals[key] = self._totals.get(key, 0.0) + now - running.since
        running.since = now

    def _flavor(self, pod: Json) -> str:
        """The flavor a pod uses: the node's GPU if it asks for a device, else its processor."""
        spec = pod.get("spec") or {}
        node = self._node_labels(spec.get("nodeName") or "")
        if node is None:
            return UNKNOWN
        limits = [
            (container.get("resources") or {}).get("limits") or {}
            for container in spec.get("containers") or ()
        ]
        kind = "gpu" if any("/" in resource for each in limits for resource in each) else "cpu"
        flavors = [v for v in node_flavors(node, catalogue=self._catalogue()) if v.kind == kind]
        return str(flavors[0]) if flavors else UNKNOWN

    def _count_start(self, owner: Owner, pod: Json) -> None:
        times = _condition_times(pod)
        made = _time(pod["metadata"].get("creationTimestamp"))
        end = times.get("Ready")
        if made is None or end is None or end < self._began or not self._leading():
            return
        begin = made
        for phase, condition in (
            ("schedule", "PodScheduled"),
            ("fetch", "Initialized"),
            ("load", "Ready"),
        ):
            at = times.get(condition)
            if at is None:
                return
            seconds = max(0.0, (at - begin).total_seconds())
            self._starts.labels(*owner, phase).observe(seconds)
            begin = at

    def replica_seconds(self) -> dict[tuple[Owner, str], float]:
        """Seconds of ready replicas by owner and flavor, of the deployments that exist."""
        for running in self._running.values():
            self._add(running)
        for owner in {owner for owner, _ in self._totals}:
            workspace, _, _, deployment = owner
            if not self._exists(ObjectKey(workspace, deployment)):
                self._forget(owner)
        return dict(self._totals)

    def _forget(self, owner: Owner) -> None:
        self._totals = {key: value for key, value in self._totals.items() if key[0] != owner}
        self._starts.remove_by_labels(dict(zip(LABELS, owner, strict=True)))


class _Scraped(Collector):
    def __init__(self, read: Callable[[], Mapping[tuple[Owner, str], float]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for (owner, flavor), value in sorted(self._read().items()):
            family.add_metric((*owner, flavor), value)
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            "beamlit_replica_seconds",
            "Seconds of ready replicas, by the flavor they run on.",
            labels=(*LABELS, "flavor"),
        )


def _owner(pod: Json) -> Owner | None:
    metadata = pod["metadata"]
    marks = metadata.get("labels") or {}
    deployment = marks.get(names.MODEL_DEPLOYMENT)
    if not deployment:
        return None
    return (
        str(metadata.get("namespace", "")),
        str(marks.get(names.MODEL, "")),
        str(marks.get(names.ENVIRONMENT, "")),
        str(deployment),
    )


def _condition_times(pod: Json) -> dict[str, datetime]:
    found = {}
    for condition in (pod.get("status") or {}).get("conditions") or ():
        at = _time(condition.get("lastTransitionTime"))
        if condition.get("status") == "True" and at is not None:
            found[str(condition.get("type"))] = at
    return found


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
