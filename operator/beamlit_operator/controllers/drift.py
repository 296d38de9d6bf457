"""What others did to a child that an apply alone would not undo.

Server-side apply puts back the fields it sets and leaves alone the fields that others added. Most
of those are welcome. These are not, because they move pods past the policies, or make pods serve
that must not:

| added to a child                               | what it would do                                |
|------------------------------------------------|-------------------------------------------------|
| Deployment: `nodeName` in the template         | no scheduler looks at the affinity              |
| Deployment: another `schedulerName`            | somebody else decides whether to look at it     |
| Deployment: `paused`                           | the old template goes on making pods            |
| Service: one more key in the selector          | no pod is found any more                        |
| Service: `publishNotReadyAddresses`            | pods on their way out go on serving             |
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.api import labels as names
from beamlit_operator.controllers.likeness import APPLIED
from beamlit_operator.kube import Json

USUAL_SCHEDULER = "default-scheduler"


def undoing(wanted: Json, live: Json) -> Json:
    """The merge patch that takes away what others added and may not; empty when there is none."""
    spec: Json = live.get("spec") or {}
    if wanted["kind"] == "Deployment":
        return _undoing_deployment(wanted["spec"]["template"]["spec"], spec)
    if wanted["kind"] == "Service":
        return _undoing_service(wanted["spec"], spec)
    return {}


def _undoing_deployment(pod: Json, spec: Json) -> Json:
    found: Json = (spec.get("template") or {}).get("spec") or {}
    removed: dict[str, Any] = {}
    if found.get("nodeName") and not pod.get("nodeName"):
        removed["nodeName"] = None
    if not pod.get("schedulerName") and found.get("schedulerName") not in (
        None,
        "",
        USUAL_SCHEDULER,
    ):
        removed["schedulerName"] = None
    patch: Json = {"template": {"spec": removed}} if removed else {}
    if spec.get("paused"):
        patch["paused"] = None
    return {"spec": patch} if patch else {}


def _undoing_service(wanted: Json, spec: Json) -> Json:
    patch: Json = {}
    extra = set(spec.get("selector") or {}) - set(wanted.get("selector") or {})
    if extra:
        patch["selector"] = dict.fromkeys(sorted(extra))
    if spec.get("publishNotReadyAddresses") and not wanted.get("publishNotReadyAddresses"):
        patch["publishNotReadyAddresses"] = None
    return {"spec": patch} if patch else {}


def is_orphan(child: Json) -> bool:
    """Whether it was applied by this operator and belongs to nobody any more."""
    metadata: Json = child["metadata"]
    return (
        APPLIED in (metadata.get("annotations") or {})
        and not metadata.get("deletionTimestamp")
        and not any(owner.get("controller") for owner in metadata.get("ownerReferences") or ())
    )


def ours(wanted: Json, live: Json) -> bool:
    """Whether the live object is the wanted one's predecessor, and not somebody else's.

    | controlled by       | was applied by this operator | ours |
    |---------------------|------------------------------|------|
    | the wanted's owner  |                              | yes  |
    | another             |                              | no   |
    | nobody              | yes: its reference was lost  | yes  |
    | nobody              | no                           | no   |
    """
    owner = next((o["uid"] for o in wanted["metadata"].get("ownerReferences") or ()), None)
    controllers = [
        o["uid"] for o in live["metadata"].get("ownerReferences") or () if o.get("controller")
    ]
    if controllers:
        return owner in controllers
    return any(
        entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Apply"
        for entry in live["metadata"].get("managedFields") or ()
    )


def only_ours(before: Json | None, answer: Json) -> bool:
    """Whether the answer to an apply shows nothing that others did since ``before``, as far as a
    decision looks at it and the apply has not put it back."""
    if before is None:
        return True
    if (before.get("status") or {}) != (answer.get("status") or {}):
        return False
    if (before.get("spec") or {}).get("replicas") != (answer.get("spec") or {}).get("replicas"):
        return False
    names = ("uid", "deletionTimestamp", "labels", "ownerReferences")
    return all(before["metadata"].get(n) == answer["metadata"].get(n) for n in names)
