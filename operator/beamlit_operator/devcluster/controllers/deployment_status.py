"""The status of a Deployment: counters and conditions (Available, Progressing, ReplicaFailure)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from beamlit_operator.devcluster.controllers import rolling
from beamlit_operator.devcluster.controllers.pods import condition
from beamlit_operator.devcluster.timestamps import read, written
from beamlit_operator.kube import Json

PROGRESS_DEADLINE = 600
"""Default of ``spec.progressDeadlineSeconds``."""

NO_DEADLINE = 2**31 - 1
"""The value that means: never."""


def status_of(
    deployment: Json,
    *,
    new: Json | None,
    replica_sets: Sequence[Json],
    created: Json | None,
    now: datetime,
) -> tuple[Json, float | None]:
    """The status as it should be, and the seconds after which to look again.

    | Progressing                       | when                                              |
    |-----------------------------------|---------------------------------------------------|
    | True NewReplicaSetCreated         | the ReplicaSet of this template is created now,   |
    |                                   | and has replicas to wait for                      |
    | True FoundNewReplicaSet           | it was there already and nothing was said yet     |
    | True ReplicaSetUpdated            | a counter moved since the last status             |
    | True NewReplicaSetAvailable       | every replica is of this template and available   |
    | False ProgressDeadlineExceeded    | none of these for ``progressDeadlineSeconds``     |
    | Unknown DeploymentPaused          | paused; DeploymentResumed when no longer          |
    """
    old = deployment.get("status") or {}
    counters = _counters(deployment, new, replica_sets)
    status: Json = {k: v for k, v in counters.items() if v}
    if "collisionCount" in old:
        status["collisionCount"] = old["collisionCount"]
    progressing, requeue = _progressing(deployment, new, counters, created, now)
    conditions = [_available(deployment, counters)]
    if progressing is not None:
        conditions.append(progressing)
    failure = next((c for item in replica_sets if (c := condition(item, "ReplicaFailure"))), None)
    if failure is not None:
        conditions.append({k: v for k, v in failure.items() if not k.startswith("last")})
    status["conditions"] = [_stamped(item, deployment, now) for item in conditions]
    return status, requeue


def _counters(deployment: Json, new: Json | None, replica_sets: Sequence[Json]) -> dict[str, int]:
    def total(name: str) -> int:
        return sum(int((item.get("status") or {}).get(name) or 0) for item in replica_sets)

    wanted = sum(rolling.Sizes.of(item).wanted for item in replica_sets)
    available = total("availableReplicas")
    return {
        "observedGeneration": int(deployment["metadata"].get("generation", 0)),
        "replicas": total("replicas"),
        "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas") or 0),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }


def _available(deployment: Json, counters: dict[str, int]) -> Json:
    replicas = rolling.replicas_of(deployment)
    unavailable = 0 if rolling.is_recreate(deployment) else rolling.bounds(deployment).unavailable
    if counters["availableReplicas"] >= replicas - unavailable:
        return {
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        }
    return {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "Deployment does not have minimum availability.",
    }


def is_complete(deployment: Json, counters: dict[str, int]) -> bool:
    """Whether every replica is of the current template, available, and no other is left."""
    replicas = rolling.replicas_of(deployment)
    return (
        counters["updatedReplicas"] == replicas
        and counters["replicas"] == replicas
        and counters["availableReplicas"] == replicas
    )


def _progressing(
    deployment: Json,
    new: Json | None,
    counters: dict[str, int],
    created: Json | None,
    now: datetime,
) -> tuple[Json | None, float | None]:
    known = condition(deployment, "Progressing")
    limit = deployment["spec"].get("progressDeadlineSeconds")
    deadline = PROGRESS_DEADLINE if limit is None else int(limit)
    if deadline >= NO_DEADLINE:
        return None, None
    if deployment["spec"].get("paused"):
        return _condition("Unknown", "DeploymentPaused", "Deployment is paused"), None
    if known.get("reason") == "DeploymentPaused":
        return _condition("Unknown", "DeploymentResumed", "Deployment is resumed"), 0.01
    if created is not None and not is_complete(deployment, counters):
        name = created["metadata"]["name"]
        message = f'Created new replica set "{name}"'
        return _condition("True", "NewReplicaSetCreated", message), float(deadline) + 1
    new = new or created
    if new is None:
        return known or None, None
    name = new["metadata"]["name"]
    if is_complete(deployment, counters):
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return _condition("True", "NewReplicaSetAvailable", message), None
    if not known:
        message = f'Found new replica set "{name}"'
        return _condition("True", "FoundNewReplicaSet", message), float(deadline) + 1
    if _moved(deployment.get("status") or {}, counters):
        message = f'ReplicaSet "{name}" is progressing.'
        return _condition("True", "ReplicaSetUpdated", message, moved=True), float(deadline) + 1
    if known.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        # A finished rollout that loses pods later is not a stuck one.
        return known, None
    since = known.get("lastUpdateTime") or known.get("lastTransitionTime") or written(now)
    left = (read(since) + timedelta(seconds=deadline) - now).total_seconds()
    if left <= 0:
        message = f'ReplicaSet "{name}" has timed out progressing.'
        return _condition("False", "ProgressDeadlineExceeded", message), None
    return known, left + 1


def _moved(old: Json, counters: dict[str, int]) -> bool:
    def before(name: str) -> int:
        return int(old.get(name) or 0)

    old_others = before("replicas") - before("updatedReplicas")
    others = counters["replicas"] - counters["updatedReplicas"]
    return (
        counters["updatedReplicas"] > before("updatedReplicas")
        or others < old_others
        or counters["readyReplicas"] > before("readyReplicas")
        or counters["availableReplicas"] > before("availableReplicas")
    )


def _condition(status: str, reason: str, message: str, *, moved: bool = False) -> Json:
    result = {"type": "Progressing", "status": status, "reason": reason, "message": message}
    return {**result, "moved": True} if moved else result


def _stamped(item: Json, deployment: Json, now: datetime) -> Json:
    """The condition with its times: transition when the status changed, update when any did."""
    known = condition(deployment, item["type"])
    moved = bool(item.get("moved"))
    fresh = {k: v for k, v in item.items() if k != "moved"}
    same = all(known.get(name) == fresh[name] for name in ("status", "reason", "message"))
    if same and not moved:
        return {**known, **fresh}
    transition = known.get("lastTransitionTime") if known.get("status") == item["status"] else None
    return {
        **fresh,
        "lastUpdateTime": written(now),
        "lastTransitionTime": transition or written(now),
    }
