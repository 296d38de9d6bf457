"""Deployment: which ReplicaSets to create, scale, annotate and delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from beamlit_operator.devcluster.controllers import rolling
from beamlit_operator.devcluster.controllers.deployment_status import status_of
from beamlit_operator.devcluster.controllers.pods import is_finished, owner_reference
from beamlit_operator.devcluster.controllers.rolling import DESIRED_REPLICAS, Sizes
from beamlit_operator.kube import Json

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
HISTORY_LIMIT = 10
"""Default of ``spec.revisionHistoryLimit``."""

_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
}

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One Deployment with the ReplicaSets it owns and their pods."""

    deployment: Json
    replica_sets: Sequence[Json]
    pods: Sequence[Json]
    now: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. None and empty mean: nothing."""

    create: Json | None = None
    patch_sets: Mapping[str, Json] = field(default_factory=dict)
    """Merge patches by ReplicaSet name: size and annotations."""
    scaled: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Old and new size by ReplicaSet name, for the events."""
    delete: tuple[Json, ...] = ()
    revision: str | None = None
    """Value the Deployment's revision annotation must get."""
    status: Json | None = None
    requeue_after: float | None = None


def template_hash(deployment: Json) -> str:
    """The value of ``pod-template-hash``: ten letters that follow from the template."""
    collisions = (deployment.get("status") or {}).get("collisionCount", 0)
    text = json.dumps([deployment["spec"]["template"], collisions], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def find_new(deployment: Json, replica_sets: Sequence[Json]) -> Json | None:
    """The ReplicaSet of the current template; the oldest if there are several."""
    wanted, label = _without_hash(deployment["spec"]["template"]), template_hash(deployment)
    for item in sorted(replica_sets, key=_age):
        found = (item["metadata"].get("labels") or {}).get(HASH_LABEL)
        if found == label or _without_hash(item["spec"]["template"]) == wanted:
            return item
    return None


def decide(snapshot: Snapshot) -> Plan:
    """The plan for one Deployment.

    | situation                                | what happens                                    |
    |------------------------------------------|-------------------------------------------------|
    | being deleted                            | status only                                     |
    | paused, or ``spec.replicas`` changed     | existing ReplicaSets are scaled in proportion   |
    | Recreate, pods of an old template exist  | old ReplicaSets to 0, the new one waits         |
    | Recreate, none exist                     | new ReplicaSet at full size                     |
    | RollingUpdate                            | new one grows into the surge, old ones shrink   |
    |                                          | as long as enough pods are available            |
    | complete                                 | old ReplicaSets beyond the history limit go     |
    """
    deployment = snapshot.deployment
    if "deletionTimestamp" in deployment["metadata"]:
        return _finish(snapshot, _Steps(), new=find_new(deployment, snapshot.replica_sets))
    new = find_new(deployment, snapshot.replica_sets)
    old = [item for item in snapshot.replica_sets if item is not new]
    steps = _Steps()
    replicas = rolling.replicas_of(deployment)
    paused = bool(deployment["spec"].get("paused"))
    revision = _next_revision(new, old)
    if new is not None and not paused:
        _annotate_new(steps, deployment, new, revision)
    if paused or _was_scaled(snapshot.replica_sets, replicas):
        _scale_in_proportion(steps, deployment, new, old)
    elif rolling.is_recreate(deployment):
        _recreate(steps, snapshot, new, old)
    else:
        _roll(steps, deployment, new, old)
    if not paused and new is not None:
        steps.revision = revision
    if not steps.sizes and steps.create is None:
        steps.delete = _beyond_history(deployment, new, old)
    return _finish(snapshot, steps, new=new)


@dataclass(slots=True)
class _Steps:
    """The plan while it is being made."""

    create: Json | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, dict[str, str]] = field(default_factory=dict)
    delete: tuple[Json, ...] = ()
    revision: str | None = None


def _finish(snapshot: Snapshot, steps: _Steps, *, new: Json | None) -> Plan:
    deployment = snapshot.deployment
    known = (deployment["metadata"].get("annotations") or {}).get(REVISION)
    limits = _size_annotations(deployment)
    patches: dict[str, Json] = {}
    scaled: dict[str, tuple[int, int]] = {}
    for item in snapshot.replica_sets:
        name = item["metadata"]["name"]
        annotations = item["metadata"].get("annotations") or {}
        wanted = dict(steps.annotations.get(name) or {})
        patch: Json = {}
        if name in steps.sizes:
            scaled[name] = (Sizes.of(item).wanted, steps.sizes[name])
            patch["spec"] = {"replicas": steps.sizes[name]}
        if name in steps.sizes or (Sizes.of(item).wanted and steps.annotations):
            wanted.update(limits)
        changed = {k: v for k, v in wanted.items() if annotations.get(k) != v}
        if changed:
            patch["metadata"] = {"annotations": changed}
        if patch:
            patches[name] = patch
    status, requeue = status_of(
        deployment,
        new=new,
        replica_sets=snapshot.replica_sets,
        created=steps.create,
        now=snapshot.now,
    )
    return Plan(
        steps.create,
        patches,
        scaled,
        steps.delete,
        steps.revision if steps.revision != known else None,
        None if status == (deployment.get("status") or {}) else status,
        requeue,
    )


def _roll(steps: _Steps, deployment: Json, new: Json | None, old: Sequence[Json]) -> None:
    replicas, limits = rolling.replicas_of(deployment), rolling.bounds(deployment)
    others = [Sizes.of(item) for item in old]
    if new is None:
        size = rolling.next_new(Sizes("", 0), others, replicas=replicas, limits=limits)
        steps.create = _replica_set(deployment, size, _next_revision(None, old))
        return
    current = Sizes.of(new)
    size = rolling.next_new(current, others, replicas=replicas, limits=limits)
    if size != current.wanted:
        steps.sizes[current.name] = size
    else:
        steps.sizes.update(rolling.next_old(current, others, replicas=replicas, limits=limits))


def _recreate(steps: _Steps, snapshot: Snapshot, new: Json | None, old: Sequence[Json]) -> None:
    replicas = rolling.replicas_of(snapshot.deployment)
    for item in old:
        if Sizes.of(item).wanted:
            steps.sizes[item["metadata"]["name"]] = 0
    old_uids = {item["metadata"]["uid"] for item in old}
    still_there = any(
        reference.get("uid") in old_uids
        for pod in snapshot.pods
        if not is_finished(pod)
        for reference in pod["metadata"].get("ownerReferences") or ()
    )
    if steps.sizes or still_there:
        return
    if new is None:
        steps.create = _replica_set(snapshot.deployment, replicas, _next_revision(None, old))
    elif Sizes.of(new).wanted != replicas:
        steps.sizes[new["metadata"]["name"]] = replicas


def _scale_in_proportion(
    steps: _Steps, deployment: Json, new: Json | None, old: Sequence[Json]
) -> None:
    replicas, limits = rolling.replicas_of(deployment), rolling.bounds(deployment)
    everything = [*old, *([new] if new is not None else [])]
    active = [item for item in everything if Sizes.of(item).wanted]
    if len(active) <= 1:
        latest = active[0] if active else new or max(old, key=_age, default=None)
        if latest is not None and Sizes.of(latest).wanted != replicas:
            steps.sizes[latest["metadata"]["name"]] = replicas
        elif latest is not None:
            steps.annotations.setdefault(latest["metadata"]["name"], {})
        return
    if new is not None and _is_saturated(new, replicas):
        for item in old:
            if Sizes.of(item).wanted:
                steps.sizes[item["metadata"]["name"]] = 0
        return
    if rolling.is_recreate(deployment):
        return
    desired = {item["metadata"]["name"]: _annotated(item, MAX_REPLICAS) for item in active}
    sizes = rolling.proportional(
        [Sizes.of(item) for item in active], desired, replicas=replicas, limits=limits
    )
    steps.sizes.update(sizes)


def _is_saturated(new: Json, replicas: int) -> bool:
    sizes = Sizes.of(new)
    return (
        sizes.wanted == replicas
        and _annotated(new, DESIRED_REPLICAS) == replicas
        and sizes.available == replicas
    )


def _was_scaled(replica_sets: Sequence[Json], replicas: int) -> bool:
    return any(
        Sizes.of(item).wanted
        and DESIRED_REPLICAS in (item["metadata"].get("annotations") or {})
        and _annotated(item, DESIRED_REPLICAS) != replicas
        for item in replica_sets
    )


def _annotated(item: Json, name: str) -> int:
    text = (item["metadata"].get("annotations") or {}).get(name, "")
    return int(text) if text.isdigit() else 0


def _size_annotations(deployment: Json) -> dict[str, str]:
    replicas = rolling.replicas_of(deployment)
    surge = 0 if rolling.is_recreate(deployment) else rolling.bounds(deployment).surge
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(replicas + surge)}


def _annotate_new(steps: _Steps, deployment: Json, new: Json, revision: str) -> None:
    wanted = _copied_annotations(deployment)
    annotations = new["metadata"].get("annotations") or {}
    known = annotations.get(REVISION, "")
    if known != revision:
        wanted[REVISION] = revision
        if known:
            history = annotations.get(REVISION_HISTORY)
            wanted[REVISION_HISTORY] = f"{history},{known}" if history else known
    if any(annotations.get(k) != v for k, v in wanted.items()):
        steps.annotations[new["metadata"]["name"]] = wanted


def _next_revision(new: Json | None, old: Sequence[Json]) -> str:
    latest = max((_annotated(item, REVISION) for item in old), default=0)
    if new is not None and _annotated(new, REVISION) > latest:
        return str(_annotated(new, REVISION))
    return str(latest + 1)


def _copied_annotations(deployment: Json) -> dict[str, str]:
    annotations = deployment["metadata"].get("annotations") or {}
    return {k: v for k, v in annotations.items() if k not in _NOT_COPIED}


def _replica_set(deployment: Json, size: int, revision: str) -> Json:
    metadata, spec = deployment["metadata"], deployment["spec"]
    label = template_hash(deployment)
    template = spec["template"]
    template_metadata = template.get("metadata") or {}
    labels = {**(template_metadata.get("labels") or {}), HASH_LABEL: label}
    selector = spec.get("selector") or {}
    body: Json = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name'][:240]}-{label}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {
                **_copied_annotations(deployment),
                REVISION: revision,
                **_size_annotations(deployment),
            },
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": size,
            "selector": {
                **selector,
                "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: label},
            },
            "template": {**template, "metadata": {**template_metadata, "labels": labels}},
        },
    }
    if spec.get("minReadySeconds"):
        body["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return body


def _beyond_history(deployment: Json, new: Json | None, old: Sequence[Json]) -> tuple[Json, ...]:
    limit = deployment["spec"].get("revisionHistoryLimit")
    keep = HISTORY_LIMIT if limit is None else int(limit)
    idle = [
        item
        for item in old
        if not Sizes.of(item).wanted
        and not Sizes.of(item).running
        and "deletionTimestamp" not in item["metadata"]
    ]
    if new is None or len(idle) <= keep:
        return ()
    return tuple(sorted(idle, key=lambda item: _annotated(item, REVISION))[: len(idle) - keep])


def _without_hash(template: Json) -> Json:
    metadata = template.get("metadata") or {}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH_LABEL}
    rest = {k: v for k, v in metadata.items() if k not in ("labels", "creationTimestamp") and v}
    return {**template, "metadata": {**rest, "labels": labels}}


def _age(item: Json) -> tuple[str, str]:
    return item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]
