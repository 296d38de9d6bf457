"""ReplicaSet: which pods to adopt, release, create and delete, and what the status is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from beamlit_operator.devcluster.controllers.pods import (
    available_in,
    condition,
    controller_uid,
    is_active,
    is_ready,
    owner_reference,
)
from beamlit_operator.devcluster.selectors import matches
from beamlit_operator.devcluster.timestamps import read, written
from beamlit_operator.kube import Json

BURST = 500
"""Pods created or deleted in one go; kube-controller-manager's BurstReplicas."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One ReplicaSet with the pods of its namespace that it owns or that match its selector."""

    replica_set: Json
    pods: Sequence[Json]
    now: datetime
    failure: str | None = None
    """Why the last attempt to create a pod failed, if it did."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. ``status`` is None when it is right already."""

    adopt: tuple[Json, ...] = ()
    release: tuple[Json, ...] = ()
    create: tuple[Json, ...] = ()
    delete: tuple[Json, ...] = ()
    status: Json | None = None
    requeue_after: float | None = None


def decide(snapshot: Snapshot) -> Plan:
    """The plan for one ReplicaSet.

    | pod                                   | what happens                        |
    |---------------------------------------|-------------------------------------|
    | ours, matches the selector            | counts                              |
    | ours, no longer matches               | released: owner reference removed   |
    | nobody's, matches, active             | adopted                             |
    | somebody else's                       | ignored                             |
    | ended or being deleted                | never counts                        |

    A ReplicaSet that is being deleted keeps its hands off its pods; garbage collection has them.
    """
    replica_set, spec = snapshot.replica_set, snapshot.replica_set["spec"]
    uid = replica_set["metadata"]["uid"]
    deleting = "deletionTimestamp" in replica_set["metadata"]
    owned, adopt, release = [], [], []
    for pod in snapshot.pods:
        fits = matches(spec.get("selector"), pod["metadata"].get("labels") or {})
        owner = controller_uid(pod)
        if owner == uid and fits:
            owned.append(pod)
        elif owner == uid and not deleting:
            release.append(pod)
        elif not owner and fits and is_active(pod) and not deleting:
            adopt.append(pod)
            owned.append(pod)
    active = [pod for pod in owned if is_active(pod)]
    wanted = _replicas(replica_set)
    surplus = len(active) - wanted
    create: tuple[Json, ...] = ()
    delete: tuple[Json, ...] = ()
    if not deleting and surplus < 0:
        create = tuple(_pod_of(replica_set) for _ in range(min(-surplus, BURST)))
    elif not deleting and surplus > 0:
        delete = tuple(sorted(active, key=_deletion_rank)[: min(surplus, BURST)])
    status, requeue = _status(snapshot, active)
    return Plan(
        tuple(adopt),
        tuple(release),
        create,
        delete,
        None if status == (replica_set.get("status") or {}) else status,
        requeue,
    )


def _replicas(replica_set: Json) -> int:
    replicas = replica_set["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _pod_of(replica_set: Json) -> Json:
    template = replica_set["spec"].get("template") or {}
    metadata = template.get("metadata") or {}
    body: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{replica_set['metadata']['name'][:57]}-",
            "namespace": replica_set["metadata"]["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "ownerReferences": [owner_reference(replica_set)],
        },
        "spec": template.get("spec") or {},
    }
    if metadata.get("annotations"):
        body["metadata"]["annotations"] = dict(metadata["annotations"])
    if metadata.get("finalizers"):
        body["metadata"]["finalizers"] = list(metadata["finalizers"])
    return body


def _deletion_rank(pod: Json) -> tuple[object, ...]:
    """Pods that are missed least come first (``controller.ActivePodsWithRanks``)."""
    status = pod.get("status") or {}
    annotations = pod["metadata"].get("annotations") or {}
    cost = annotations.get("controller.kubernetes.io/pod-deletion-cost", "0")
    restarts = max(
        (c.get("restartCount", 0) for c in status.get("containerStatuses") or ()), default=0
    )
    ready_since = condition(pod, "Ready").get("lastTransitionTime")
    created = pod["metadata"].get("creationTimestamp")
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1}.get(status.get("phase", "Pending"), 2),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -read(ready_since).timestamp() if is_ready(pod) and ready_since else 0.0,
        -restarts,
        -read(created).timestamp() if created else 0.0,
    )


def _status(snapshot: Snapshot, active: Sequence[Json]) -> tuple[Json, float | None]:
    replica_set, spec = snapshot.replica_set, snapshot.replica_set["spec"]
    old = replica_set.get("status") or {}
    min_ready = int(spec.get("minReadySeconds") or 0)
    waits = [available_in(pod, min_ready, snapshot.now) for pod in active]
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    numbers = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(
            1
            for pod in active
            if template_labels.items() <= (pod["metadata"].get("labels") or {}).items()
        ),
        "readyReplicas": sum(1 for wait in waits if wait is not None),
        "availableReplicas": sum(1 for wait in waits if wait == 0),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
    }
    # The API leaves counters out when they are zero, but for replicas and observedGeneration.
    status: Json = {k: v for k, v in numbers.items() if v or k == "replicas"}
    others = [c for c in old.get("conditions") or () if c.get("type") != "ReplicaFailure"]
    if snapshot.failure is not None:
        known = condition(replica_set, "ReplicaFailure")
        failed = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": snapshot.failure,
            "lastTransitionTime": known.get("lastTransitionTime") or written(snapshot.now),
        }
        others.append(failed)
    if others:
        status["conditions"] = others
    pending = [wait for wait in waits if wait]
    return status, min(pending) if pending else None
