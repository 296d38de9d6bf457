"""PersistentVolumes, claims and StorageClasses: dependent defaults, and rules a manifest can break.

Source: k8s.io/kubernetes/pkg/apis/core/validation and pkg/apis/storage/validation of 1.36. Of the
sources of a volume only ``hostPath`` and ``local`` are looked into: others are stored as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    not_supported,
    required,
)
from beamlit_operator.devcluster.apiserver.metadata import now_text
from beamlit_operator.devcluster.quantities import parse
from beamlit_operator.kube import Json

ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_RECLAIM: Final = ("Delete", "Recycle", "Retain")
_MODES: Final = ("Block", "Filesystem")
_NOT_SOURCES: Final = frozenset(
    (
        *("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity"),
        *("persistentVolumeReclaimPolicy", "storageClassName", "volumeAttributesClassName"),
        "volumeMode",
    )
)
"""What a PersistentVolume's spec has apart from the one source it names."""

_SNAPSHOTS: Final = "snapshot.storage.k8s.io"


def default_claim(item: Json, creating: bool) -> None:
    """A claim begins Pending; what it would be filled from stands in both fields (KEP 1495)."""
    spec = item["spec"]
    _texts((spec.get("resources") or {}).get("requests"))
    _texts((spec.get("resources") or {}).get("limits"))
    source = spec.get("dataSource")
    if source is not None and not _claim_or_snapshot(source):
        del spec["dataSource"]
    if "dataSource" in spec:
        spec.setdefault("dataSourceRef", dict(spec["dataSource"]))
    elif spec.get("dataSourceRef") and not spec["dataSourceRef"].get("namespace"):
        spec["dataSource"] = dict(spec["dataSourceRef"])
    if creating:
        item["status"] = {"phase": "Pending"}


def _claim_or_snapshot(source: Json) -> bool:
    kind, group = source.get("kind"), source.get("apiGroup") or ""
    return (kind, group) in (("PersistentVolumeClaim", ""), ("VolumeSnapshot", _SNAPSHOTS))


def default_volume(item: Json, creating: bool) -> None:
    """A volume begins Pending."""
    _texts(item["spec"].get("capacity"))
    if creating:
        item["status"] = {"phase": "Pending", "lastPhaseTransitionTime": now_text()}


def _texts(amounts: Json | None) -> None:
    """Quantities travel as text, whatever a manifest wrote."""
    for name, value in (amounts or {}).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert amounts is not None
            amounts[name] = str(value)


def stamp_phase(old: Json, new: Json) -> None:
    """Notes, in place, when a volume's phase changed, unless the client did."""
    before, after = old.get("status") or {}, new.get("status")
    if not isinstance(after, dict):
        return
    known, told = before.get("lastPhaseTransitionTime"), after.get("lastPhaseTransitionTime")
    if before.get("phase") != after.get("phase"):
        if told in (None, known):
            after["lastPhaseTransitionTime"] = now_text()
    elif told is None and known is not None:
        after["lastPhaseTransitionTime"] = known


def claim_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with a PersistentVolumeClaim."""
    spec = item["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    yield from _access_causes(spec)
    asked = (spec.get("resources") or {}).get("requests") or {}
    where = "spec.resources[storage]"
    if "storage" not in asked:
        yield required(where)
    else:
        yield from _amount_causes(asked["storage"], where)
    yield from _mode_causes(spec)
    for name in ("dataSource", "dataSourceRef"):
        if spec.get(name) is not None:
            yield from _source_causes(spec[name], f"spec.{name}")
    if old is not None:
        yield from _claim_changes(item, old)


def _access_causes(spec: Json) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield not_supported("spec.accessModes", mode, ACCESS_MODES)
    others = [mode for mode in modes if mode in ACCESS_MODES and mode != "ReadWriteOncePod"]
    if "ReadWriteOncePod" in modes and others:
        yield forbidden_field(
            "spec.accessModes", "may not use ReadWriteOncePod with other access modes"
        )


def _amount_causes(text: Any, where: str) -> Iterator[Cause]:
    try:
        amount = parse(text)
    except ValueError:
        yield bad_value(where, text, "must be a valid resource quantity")
        return
    if amount <= 0:
        yield bad_value(where, text, "must be greater than zero")


def _mode_causes(spec: Json) -> Iterator[Cause]:
    if spec.get("volumeMode") not in (None, *_MODES):
        yield not_supported("spec.volumeMode", spec["volumeMode"], _MODES)


def _source_causes(source: Json, where: str) -> Iterator[Cause]:
    for name in ("name", "kind"):
        if not source.get(name):
            yield required(f"{where}.{name}")
    if not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        yield bad_value(where, source.get("kind"), why)


_BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"


def _claim_changes(item: Json, old: Json) -> Iterator[Cause]:
    """A claim's spec is fixed, but for its volume and class (once, from nothing), and what a bound
    claim asks for."""
    before, after = dict(old["spec"]), dict(item["spec"])
    bound = (item.get("status") or {}).get("phase") == "Bound"
    if not before.get("volumeName"):
        before.pop("volumeName", None)
        after.pop("volumeName", None)
    if before.get("storageClassName") is None:
        named = (old["metadata"].get("annotations") or {}).get(_BETA_CLASS)
        if named is None or named == after.get("storageClassName"):
            after.pop("storageClassName", None)
    sizes = [_storage(spec) for spec in (before, after)]
    if bound:
        for spec in (before, after):
            spec.pop("volumeAttributesClassName", None)
            spec["resources"] = _without_storage(spec.get("resources") or {})
    if before != after:
        yield forbidden_field(
            "spec",
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims",
        )
    have = parse(((old.get("status") or {}).get("capacity") or {}).get("storage", 0))
    if None not in sizes and sizes[1] < sizes[0] and sizes[1] <= have:
        yield forbidden_field(
            "spec.resources.requests.storage", "field can not be less than status.capacity"
        )
    if old["spec"].get("volumeMode") != item["spec"].get("volumeMode"):
        yield bad_value("volumeMode", item["spec"].get("volumeMode"), "field is immutable")


def _storage(spec: Json) -> Any:
    """What a claim asks for; None if that is no quantity, which is told elsewhere."""
    try:
        return parse(((spec.get("resources") or {}).get("requests") or {}).get("storage", 0))
    except ValueError:
        return None


def _without_storage(resources: Json) -> Json:
    asked = {k: v for k, v in (resources.get("requests") or {}).items() if k != "storage"}
    return {**resources, "requests": asked}


def volume_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with a PersistentVolume."""
    spec = item["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    yield from _access_causes(spec)
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    if set(capacity) != {"storage"}:
        yield not_supported("spec.capacity", capacity, ["storage"])
    for name, text in capacity.items():
        yield from _amount_causes(text, f"spec.capacity[{name}]")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in (None, "", *_RECLAIM):
        yield not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM)
    yield from _mode_causes(spec)
    affinity = spec.get("nodeAffinity")
    if affinity is not None and affinity.get("required") is None:
        yield required("spec.nodeAffinity.required", "must specify required node constraints")
    yield from _volume_source_causes(spec)
    if old is not None:
        if _source_of(old["spec"]) != _source_of(spec):
            yield forbidden_field(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            )
        if old["spec"].get("volumeMode") != spec.get("volumeMode"):
            yield bad_value("volumeMode", spec.get("volumeMode"), "field is immutable")
        before = old["spec"].get("nodeAffinity")
        if before is not None and before != affinity:
            yield bad_value("nodeAffinity", affinity, "field is immutable")


def _source_of(spec: Json) -> Json:
    return {name: value for name, value in spec.items() if name not in _NOT_SOURCES}


def _volume_source_causes(spec: Json) -> Iterator[Cause]:
    sources = sorted(_source_of(spec))
    if not sources:
        yield required("spec", "must specify a volume type")
    for name in sources[1:]:
        yield forbidden_field(f"spec.{name}", "may not specify more than 1 volume type")
    for name in ("hostPath", "local"):
        if name in spec:
            path = (spec[name] or {}).get("path") or ""
            if not path:
                yield required(f"spec.{name}.path")
            yield from no_backsteps(path, f"spec.{name}.path")
    if "local" in spec and spec.get("nodeAffinity") is None:
        yield required("spec.nodeAffinity", "Local volume requires node affinity")


def no_backsteps(path: str, where: str) -> Iterator[Cause]:
    """A path may not have ``..`` in it."""
    if ".." in path.split("/"):
        yield bad_value(where, path, "must not contain '..'")


def class_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with a StorageClass."""
    if not item.get("provisioner"):
        yield required("provisioner")
    if item.get("reclaimPolicy") not in (None, "", "Delete", "Retain"):
        yield not_supported("reclaimPolicy", item["reclaimPolicy"], ["Delete", "Retain"])
    binding = ["Immediate", "WaitForFirstConsumer"]
    if item.get("volumeBindingMode") not in binding:
        yield not_supported("volumeBindingMode", item.get("volumeBindingMode"), binding)
    if old is not None:
        for name in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            if (old.get(name) or None) != (item.get(name) or None):
                yield bad_value(name, item.get(name), "field is immutable")
