"""What a pod's claims have to say about where it may run. Pure.

The rules and sentences of kube-scheduler's plugins VolumeBinding and VolumeRestrictions of 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from beamlit_operator.devcluster.claims import (
    asked,
    best_match,
    claim_names,
    class_of,
    is_fully_bound,
    is_going,
    phase,
    usable_on,
    waits_for_consumer,
)
from beamlit_operator.kube import Json

_NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"


@dataclass(frozen=True, slots=True)
class Storage:
    """What is known about the claims of one pod."""

    claims: Mapping[str, Json] = field(default_factory=dict)
    """Those of the pod's namespace that it names, by name."""
    volumes: Mapping[str, Json] = field(default_factory=dict)
    classes: Sequence[Json] = ()
    taken: frozenset[str] = frozenset()
    """Names of claims that another pod with a node uses."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A claim that waits for a pod: the volume it gets, or None to have one made."""

    claim: Json
    volume: Json | None


def blocked(pod: Json, storage: Storage) -> str | None:
    """Why the pod can run nowhere, whatever the nodes are; None when nothing is in the way."""
    names = claim_names(pod)
    for name in names:
        claim = storage.claims.get(name)
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if phase(claim) == "Lost":
            volume = claim["spec"].get("volumeName") or ""
            return (
                f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            )
        if is_going(claim):
            return f'persistentvolumeclaim "{name}" is being deleted'
    waiting = {claim["metadata"]["name"] for claim in _waiting(pod, storage)}
    if any(name not in waiting and not is_fully_bound(storage.claims[name]) for name in names):
        return "pod has unbound immediate PersistentVolumeClaims"
    return None


def _waiting(pod: Json, storage: Storage) -> list[Json]:
    """The pod's claims that are bound when it has a node."""
    found = {name: storage.claims[name] for name in claim_names(pod)}
    return [
        claim
        for claim in found.values()
        if not claim["spec"].get("volumeName") and waits_for_consumer(claim, storage.classes)
    ]


def reasons_against(pod: Json, node: Json, storage: Storage) -> tuple[str, ...]:
    """Why the pod's claims keep it off the node; empty when they do not."""
    for name in claim_names(pod):
        modes = storage.claims[name]["spec"].get("accessModes") or ()
        if "ReadWriteOncePod" in modes and name in storage.taken:
            return (
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access "
                "mode already in-use by another pod",
            )
    for name in claim_names(pod):
        claim = storage.claims[name]
        if not is_fully_bound(claim):
            continue
        volume = storage.volumes.get(claim["spec"]["volumeName"])
        if volume is None:
            return ("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",)
        if not usable_on(volume, node):
            return ("node(s) didn't match PersistentVolume's node affinity",)
    if wishes(pod, node, storage) is None:
        return ("node(s) didn't find available persistent volumes to bind",)
    return ()


def wishes(pod: Json, node: Json, storage: Storage) -> list[Wish] | None:
    """What the claims that wait for a pod get on the node; None when there is nothing for one."""
    left = dict(storage.volumes)
    result = []
    # The smallest first, so that a larger volume is left for a larger claim.
    for claim in sorted(_waiting(pod, storage), key=asked):
        volume = best_match(claim, left.values(), node=node)
        if volume is None and not _can_be_made(claim, storage):
            return None
        if volume is not None:
            del left[volume["metadata"]["name"]]
        result.append(Wish(claim, volume))
    return result


def _can_be_made(claim: Json, storage: Storage) -> bool:
    name = class_of(claim)
    found = next((item for item in storage.classes if item["metadata"]["name"] == name), None)
    return found is not None and found.get("provisioner") not in ("", None, _NO_PROVISIONER)
