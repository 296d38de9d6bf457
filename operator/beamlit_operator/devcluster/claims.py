"""What API server, controllers, scheduler and kubelet read off claims, volumes and classes. Pure.

Source: k8s.io/component-helpers/storage/volume of 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from beamlit_operator.devcluster.quantities import parse
from beamlit_operator.devcluster.selectors import matches, node_matches
from beamlit_operator.kube import PERSISTENT_VOLUME_CLAIMS, Json, Resource

CLAIMS: Final = PERSISTENT_VOLUME_CLAIMS
VOLUMES: Final = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES: Final = Resource(
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False
)

CLAIM_PROTECTION: Final = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION: Final = "kubernetes.io/pv-protection"

BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"

_DEFAULT: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"


def default_class(classes: Iterable[Json]) -> str | None:
    """The name of the default class: the youngest that says so, then the first by name."""
    chosen = [
        item["metadata"]
        for item in classes
        if any(annotation(item, name) == "true" for name in _DEFAULT)
    ]
    youngest = max((metadata["creationTimestamp"] for metadata in chosen), default="")
    names = [m["name"] for m in chosen if m["creationTimestamp"] == youngest]
    return min(names, default=None)


def annotation(item: Json, name: str) -> str | None:
    """An annotation, None when it is not there."""
    found = (item["metadata"].get("annotations") or {}).get(name)
    return None if found is None else str(found)


def class_of(item: Json) -> str:
    """The class of a claim or a volume, empty for none."""
    old = annotation(item, _BETA_CLASS)
    return str(item["spec"].get("storageClassName") or "") if old is None else old


def names_class(claim: Json) -> bool:
    """Whether a claim says which class it wants, be it none."""
    named = claim["spec"].get("storageClassName") is not None
    return named or annotation(claim, _BETA_CLASS) is not None


def waits_for_consumer(claim: Json, classes: Iterable[Json]) -> bool:
    """Whether the claim is bound only when a pod that uses it has a node."""
    name = class_of(claim)
    return any(
        item["metadata"]["name"] == name and item.get("volumeBindingMode") == "WaitForFirstConsumer"
        for item in classes
    )


def phase(item: Json) -> str:
    """The phase of a claim or volume."""
    return str((item.get("status") or {}).get("phase", "Pending"))


def is_going(item: Json) -> bool:
    """Whether it is being deleted."""
    return "deletionTimestamp" in item["metadata"]


def size(volume: Json) -> Fraction:
    """What a volume holds, in bytes."""
    return parse((volume["spec"].get("capacity") or {}).get("storage", 0))


def asked(claim: Json) -> Fraction:
    """What a claim asks for, in bytes."""
    return parse(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0))


def is_bound_to(volume: Json, claim: Json) -> bool:
    """Whether the volume is reserved for, or bound to, exactly this claim."""
    reference, metadata = volume["spec"].get("claimRef") or {}, claim["metadata"]
    return (
        reference.get("name") == metadata["name"]
        and reference.get("namespace") == metadata["namespace"]
        and reference.get("uid") in (None, "", metadata["uid"])
    )


def is_fully_bound(claim: Json) -> bool:
    """Whether the claim's binding is done."""
    done = annotation(claim, BIND_COMPLETED) is not None
    return done and bool(claim["spec"].get("volumeName"))


def mismatch(volume: Json, claim: Json) -> str | None:
    """Why a volume that a claim names does not do, None when it does."""
    if is_going(volume):
        return f'the volume is marked for deletion "{volume["metadata"]["name"]}"'
    if size(volume) < asked(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if _attributes(volume) != _attributes(claim):
        return "volumeAttributesClassName does not match"
    if not same_mode(volume, claim):
        return "incompatible volumeMode"
    if not _has_modes(volume, claim):
        return "incompatible accessMode"
    return None


def best_match(
    claim: Json, volumes: Iterable[Json], *, node: Json | None = None, waits: bool = False
) -> Json | None:
    """The volume a claim gets: one reserved for it, else the smallest with the fewest modes.

    With ``node`` (the scheduler asks) only one that can be used there; with ``waits`` (the claim is
    bound only for a pod) only one that is reserved.
    """
    best: tuple[int, Fraction, str] | None = None
    found = None
    for volume in volumes:
        spec = volume["spec"]
        if spec.get("claimRef") and not is_bound_to(volume, claim):
            continue
        if size(volume) < asked(claim) or is_going(volume) or not _has_modes(volume, claim):
            continue
        if not same_mode(volume, claim) or _attributes(volume) != _attributes(claim):
            continue
        reachable = node is None or usable_on(volume, node)
        if is_bound_to(volume, claim):
            return volume if reachable else None
        if (waits and node is None) or not reachable or phase(volume) != "Available":
            continue
        if class_of(volume) != class_of(claim) or not _selected(claim, volume):
            continue
        rank = (len(spec.get("accessModes") or ()), size(volume), volume["metadata"]["name"])
        if best is None or rank < best:
            best, found = rank, volume
    return found


def _selected(claim: Json, volume: Json) -> bool:
    selector = claim["spec"].get("selector")
    return selector is None or matches(selector, volume["metadata"].get("labels") or {})


def same_mode(volume: Json, claim: Json) -> bool:
    """Whether both are file systems, or both block devices."""
    mine, theirs = (item["spec"].get("volumeMode") or "Filesystem" for item in (volume, claim))
    return bool(mine == theirs)


def _has_modes(volume: Json, claim: Json) -> bool:
    return set(claim["spec"].get("accessModes") or ()) <= set(
        volume["spec"].get("accessModes") or ()
    )


def _attributes(item: Json) -> str:
    return str(item["spec"].get("volumeAttributesClassName") or "")


def usable_on(volume: Json, node: Json) -> bool:
    """Whether the volume's node affinity admits the node. Any one term is enough."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if required is None:
        return True
    return any(node_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def claim_names(pod: Json) -> list[str]:
    """The claims that a pod's volumes are, in their order."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    ]


def claim_keys(pod: Json) -> list[str]:
    """The same as ``namespace/name``."""
    namespace = pod["metadata"].get("namespace", "")
    return [f"{namespace}/{name}" for name in claim_names(pod)]


def reference_to(claim: Json) -> Json:
    """What a volume's ``claimRef`` says of the claim."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
