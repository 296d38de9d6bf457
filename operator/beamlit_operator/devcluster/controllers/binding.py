"""What becomes of a claim and of a volume: bound, provisioned, released, reclaimed. Pure.

The rules and sentences of Kubernetes' persistent volume controller
(k8s.io/kubernetes/pkg/controller/volume/persistentvolume/pv_controller.go of 1.36).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from beamlit_operator.devcluster.claims import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    SELECTED_NODE,
    annotation,
    asked,
    best_match,
    class_of,
    default_class,
    is_bound_to,
    mismatch,
    names_class,
    phase,
    same_mode,
    waits_for_consumer,
)
from beamlit_operator.devcluster.quantities import parse
from beamlit_operator.kube import Json

NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"


@dataclass(frozen=True, slots=True)
class Told:
    """An event."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """What to do about a claim. At most one of ``bind``, ``phase``, ``into`` and ``provision``."""

    bind: Json | None = None
    """The volume that it is bound to, or whose binding is finished."""
    phase: str | None = None
    """Its phase, without a volume."""
    into: str | None = None
    """The class it gets."""
    provision: Json | None = None
    """The class that a volume is made of."""
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a claim is looked at together with."""

    volumes: Mapping[str, Json]
    """All, by name."""
    candidates: Iterable[Json]
    """Those that are free, and those reserved for the claim."""
    classes: Iterable[Json]


def decide_claim(claim: Json, around: Around) -> ClaimPlan:
    """What to do about a claim.

    | bound before | names volume | the volume is                | plan                         |
    |--------------|--------------|------------------------------|------------------------------|
    | yes          | no           |                              | Lost                         |
    | yes          | yes          | gone                         | Lost                         |
    | yes          | yes          | free, or the claim's         | bind (what is missing of it) |
    | yes          | yes          | another claim's              | Lost                         |
    | no           | yes          | not there                    | Pending                      |
    | no           | yes          | free, and fits               | bind                         |
    | no           | yes          | free, and does not fit       | Pending, VolumeMismatch      |
    | no           | yes          | reserved for the claim       | bind                         |
    | no           | yes          | another claim's              | Pending, FailedBinding       |
    | no           | no           | one matches                  | bind                         |
    | no           | no           | none; claim names no class,  | the default class            |
    |              |              | and there is a default       |                              |
    | no           | no           | none; class waits for a pod  | Pending, WaitForFirst...     |
    | no           | no           | none; class                  | provision                    |
    | no           | no           | none; no class               | Pending, FailedBinding       |
    """
    name = claim["spec"].get("volumeName") or ""
    if annotation(claim, BIND_COMPLETED) is not None:
        return _bound_before(claim, around.volumes.get(name) if name else None)
    if name:
        return _named(claim, name, around.volumes.get(name))
    return _unbound(claim, around)


def _bound_before(claim: Json, volume: Json | None) -> ClaimPlan:
    if not claim["spec"].get("volumeName"):
        text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return _lost(claim, Told("ClaimLost", text, "Warning"))
    if volume is None:
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return _lost(claim, Told("ClaimLost", text, "Warning"))
    reference = volume["spec"].get("claimRef")
    if reference and reference.get("uid") != claim["metadata"]["uid"]:
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        return _lost(claim, Told("ClaimMisbound", text, "Warning"))
    status = claim.get("status") or {}
    held = parse((status.get("capacity") or {}).get("storage", 0))
    if phase(claim) == "Bound" and asked(claim) > held:
        text = (
            "waiting for an external controller to expand this PVC; "
            "the embedded cluster does not grow volumes"
        )
        return ClaimPlan(bind=volume, told=Told("ExternalExpanding", text))
    return ClaimPlan(bind=volume)


def _lost(claim: Json, told: Told) -> ClaimPlan:
    return ClaimPlan() if phase(claim) == "Lost" else ClaimPlan(phase="Lost", told=told)


def _named(claim: Json, name: str, volume: Json | None) -> ClaimPlan:
    if volume is None:
        return ClaimPlan(phase="Pending")
    if not volume["spec"].get("claimRef"):
        why = mismatch(volume, claim)
        if why is None:
            return ClaimPlan(bind=volume)
        text = f'Cannot bind to requested volume "{name}": {why}'
        return ClaimPlan(phase="Pending", told=Told("VolumeMismatch", text, "Warning"))
    if is_bound_to(volume, claim):
        return ClaimPlan(bind=volume)
    text = f'volume "{name}" already bound to a different claim.'
    return ClaimPlan(phase="Pending", told=Told("FailedBinding", text, "Warning"))


def _unbound(claim: Json, around: Around) -> ClaimPlan:
    classes = list(around.classes)
    waits = waits_for_consumer(claim, classes)
    volume = best_match(claim, around.candidates, waits=waits)
    if volume is not None:
        return ClaimPlan(bind=volume)
    default = None if names_class(claim) else default_class(classes)
    if default is not None:
        return ClaimPlan(into=default)
    if waits and annotation(claim, SELECTED_NODE) is None:
        text = "waiting for first consumer to be created before binding"
        return ClaimPlan(phase="Pending", told=Told("WaitForFirstConsumer", text))
    name = class_of(claim)
    if not name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return ClaimPlan(phase="Pending", told=Told("FailedBinding", text))
    found = next((item for item in classes if item["metadata"]["name"] == name), None)
    if found is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return ClaimPlan(phase="Pending", told=Told("ProvisioningFailed", text, "Warning"))
    return ClaimPlan(provision=found)


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What to do about a volume."""

    phase: str | None = None
    unbind: bool = False
    """Take its claim away again: all of it, or the uid where a person reserved it."""
    reclaim: bool = False
    wake: bool = False
    """Look at its claim: that finishes the binding."""
    told: Told | None = None


def decide_volume(volume: Json, claim: Json | None) -> VolumePlan:
    """What to do about a volume; ``claim`` is the one of the name in its ``claimRef``.

    | claimRef        | the claim                  | plan                                         |
    |-----------------|----------------------------|----------------------------------------------|
    | none            |                            | Available                                    |
    | without uid     |                            | Available (reserved); look at the claim      |
    | with uid        | gone, or another one       | Released (Failed stays), reclaim             |
    | with uid        | names no volume            | look at the claim                            |
    | with uid        | names this volume          | Bound                                        |
    | with uid        | names another volume       | provisioned for it with Delete: Released,    |
    |                 |                            | reclaim; else unbind                         |
    """
    reference = volume["spec"].get("claimRef")
    if not reference:
        return VolumePlan(phase="Available")
    if not reference.get("uid"):
        return VolumePlan(phase="Available", wake=True)
    if claim is None or claim["metadata"]["uid"] != reference["uid"]:
        return _released(volume)
    name = claim["spec"].get("volumeName") or ""
    if not name:
        if not same_mode(volume, claim):
            text = (
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim "
                f'"{claim["metadata"]["name"]}" due to incompatible volumeMode.'
            )
            return VolumePlan(told=Told("VolumeMismatch", text, "Warning"))
        return VolumePlan(wake=True)
    if name == volume["metadata"]["name"]:
        return VolumePlan(phase="Bound")
    made = annotation(volume, PROVISIONED_BY) is not None
    if made and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        return _released(volume)
    return VolumePlan(unbind=True)


def _released(volume: Json) -> VolumePlan:
    kept = phase(volume) in ("Released", "Failed")
    return VolumePlan(phase=None if kept else "Released", reclaim=True)


def bound_volume(volume: Json, claim: Json, reference: Json) -> Json | None:
    """The merge patch that makes the volume the claim's, None when it is."""
    if (volume["spec"].get("claimRef") or {}).get("uid") == claim["metadata"]["uid"]:
        return None
    body: Json = {"metadata": {}, "spec": {"claimRef": reference}}
    if not is_bound_to(volume, claim):
        body["metadata"]["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
    return body


def bound_claim(claim: Json, volume: Json) -> Json | None:
    """The merge patch that makes the claim the volume's, None when it is."""
    name = volume["metadata"]["name"]
    named = claim["spec"].get("volumeName") == name
    if named and annotation(claim, BIND_COMPLETED) is not None:
        return None
    annotations = {BIND_COMPLETED: "yes"}
    if not named:
        annotations[BOUND_BY_CONTROLLER] = "yes"
    return {"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}


def bound_status(claim: Json, volume: Json) -> Json | None:
    """The status of a claim that is bound, None when it says so.

    The capacity is taken over when the claim becomes bound, and not again.
    """
    status = claim.get("status") or {}
    modes = volume["spec"].get("accessModes")
    if status.get("phase") == "Bound" and status.get("accessModes") == modes:
        return None
    fresh: Json = {"phase": "Bound", "accessModes": modes}
    if status.get("phase") != "Bound":
        fresh["capacity"] = volume["spec"].get("capacity")
    return fresh


def unbound_volume(volume: Json) -> Json:
    """The merge patch that takes a volume's claim away; a person's reservation stays."""
    if annotation(volume, BOUND_BY_CONTROLLER) is None:
        return {"spec": {"claimRef": {"uid": None}}}
    return {"metadata": {"annotations": {BOUND_BY_CONTROLLER: None}}, "spec": {"claimRef": None}}
