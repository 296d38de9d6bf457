"""What controllers read off a pod: ready, available, active, and who owns it."""

from __future__ import annotations

from datetime import datetime, timedelta

from beamlit_operator.devcluster.timestamps import read
from beamlit_operator.kube import Json


def controller_of(item: Json) -> Json | None:
    """The owner reference with ``controller: true``, if there is one."""
    for reference in item["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def controller_uid(item: Json) -> str:
    """The uid of the controller, empty for none."""
    return str((controller_of(item) or {}).get("uid", ""))


def owner_reference(owner: Json) -> Json:
    """The reference a controller puts on its children."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(item: Json, type: str) -> Json:
    """The condition of that type, empty when absent."""
    for found in (item.get("status") or {}).get("conditions") or ():
        if found.get("type") == type:
            return dict(found)
    return {}


def is_ready(pod: Json) -> bool:
    """Whether the kubelet says the pod is Ready."""
    return condition(pod, "Ready").get("status") == "True"


def is_finished(pod: Json) -> bool:
    """Whether the pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Json) -> bool:
    """Whether the pod counts as a replica: not ended and not being deleted."""
    return not is_finished(pod) and "deletionTimestamp" not in pod["metadata"]


def available_in(pod: Json, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the pod counts as available: 0 when it does, None when it is not ready."""
    if not is_ready(pod):
        return None
    since = condition(pod, "Ready").get("lastTransitionTime")
    if min_ready_seconds == 0:
        return 0.0
    if not since:
        return float(min_ready_seconds)
    due = read(since) + timedelta(seconds=min_ready_seconds)
    return max(0.0, (due - now).total_seconds())
