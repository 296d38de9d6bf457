"""Who owns which fields: ``metadata.managedFields`` read, changed and written back.

Server-side apply and every other write go through here. The algorithm is the one of
structured-merge-diff (merge/update.go), which the Kubernetes API server uses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from beamlit_operator.devcluster.apiserver.errors import Cause
from beamlit_operator.devcluster.apiserver.fieldsets import (
    Fields,
    compare,
    difference,
    intersection,
    owned,
    paths,
    union,
    without,
)
from beamlit_operator.devcluster.apiserver.merging import merge, remove_unowned
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.kube import ApiError, Json

Operation = Literal["Apply", "Update"]

_SYSTEM = tuple(
    ("metadata", name)
    for name in (
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "uid",
        "generation",
        "generateName",
        "managedFields",
        "resourceVersion",
    )
)

MOST_UPDATERS = 10
"""Non-apply managers kept apart; the oldest beyond it are merged into ``ancient-changes``."""


class Manager(NamedTuple):
    """Identifies an entry of managedFields."""

    name: str
    operation: Operation
    subresource: str
    api_version: str


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, and since when."""

    fields: Fields
    time: str


Managers = dict[Manager, Owned]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, through which subresource (empty: none), and at what time (RFC 3339)."""

    name: str
    subresource: str
    api_version: str
    time: str


def read(item: Json) -> Managers:
    """The managers recorded on ``item``; entries that make no sense are dropped."""
    found: Managers = {}
    for entry in item["metadata"].get("managedFields") or ():
        fields = entry.get("fieldsV1")
        if isinstance(fields, dict) and entry.get("operation") in ("Apply", "Update"):
            manager = Manager(
                entry.get("manager", ""),
                entry["operation"],
                entry.get("subresource", ""),
                entry.get("apiVersion", ""),
            )
            found[manager] = Owned(fields, entry.get("time", ""))
    return found


def written(managers: Managers) -> list[Json]:
    """``metadata.managedFields`` for ``managers``: appliers first, then by time."""
    entries = []
    for manager, own in sorted(
        managers.items(), key=lambda pair: (pair[0].operation, pair[1].time, pair[0])
    ):
        entry: Json = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": own.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": own.fields,
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def _ignored(fields: Fields, subresource: str, has_status: bool) -> Fields:
    fields = without(fields, ("apiVersion",), ("kind",), *_SYSTEM)
    if subresource == "status":
        return without(fields, ("spec",))
    return without(fields, ("status",)) if has_status else fields


def applied(
    live: Json, config: Json, root: Node, *, writer: Writer, force: bool, has_status: bool
) -> tuple[Json, Managers]:
    """Server-side apply of ``config`` on ``live``: the new object and its managers.

    Raises:
        ApiError: 409 with one cause per field that belongs to others, unless ``force``.
    """
    managers = read(live)
    me = Manager(writer.name, "Apply", writer.subresource, writer.api_version)
    last: Fields = {}
    for known in [m for m in managers if m[:3] == me[:3]]:
        last = union(last, managers.pop(known).fields)
    mine = _ignored(owned(config, root), writer.subresource, has_status)
    merged = merge(live, config, root)
    if last:
        kept = mine
        for own in managers.values():
            kept = union(kept, own.fields)
        merged = remove_unowned(merged, last, kept, root)
    changed, removed = _difference_of(live, merged, root)
    managers = _settle(managers, changed, removed, force=force, time=writer.time)
    unchanged = mine == last
    known_time = next((o.time for m, o in read(live).items() if m[:3] == me[:3]), writer.time)
    if mine:
        managers[me] = Owned(mine, known_time if unchanged else writer.time)
    return merged, managers


def _difference_of(old: Json, new: Json, root: Node) -> tuple[Fields, Fields]:
    if old is new:
        return {}, {}
    changed, removed = compare(old, new, root)
    return without(changed, *_SYSTEM), without(removed, *_SYSTEM)


def _settle(
    managers: Managers, changed: Fields, removed: Fields, *, force: bool, time: str
) -> Managers:
    """Takes changed and removed fields from everybody in ``managers``."""
    if not changed and not removed:
        return managers
    result: Managers = {}
    conflicts: dict[Manager, Fields] = {}
    for manager, own in managers.items():
        taken = intersection(own.fields, changed)
        if taken:
            conflicts[manager] = taken
        left = difference(difference(own.fields, taken), removed)
        if left:
            result[manager] = own if left == own.fields else replace(own, fields=left, time=time)
    if conflicts and not force:
        raise _conflict(conflicts)
    return result


def _conflict(conflicts: dict[Manager, Fields]) -> ApiError:
    """In the words of apimachinery's managedfields/internal/conflict.go."""
    causes: list[Cause] = []
    lines: list[str] = []
    for manager, fields in sorted(conflicts.items()):
        who = f'"{manager.name}"'
        if manager.subresource:
            who += f' with subresource "{manager.subresource}"'
        if manager.operation == "Update":
            who += f" using {manager.api_version}"
        listed = list(paths(fields))
        causes += [Cause("FieldManagerConflict", f"conflict with {who}", path) for path in listed]
        lines += [f"conflicts with {who}:", *(f"- {path}" for path in listed)]
    if len(causes) == 1:
        text = f"1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        text = f"{len(causes)} conflicts: " + "\n".join(lines)
    return ApiError(
        409,
        "Conflict",
        f"Apply failed with {text}",
        details={"causes": [cause.as_json() for cause in causes]},
    )


def updated(live: Json | None, new: Json, root: Node, *, writer: Writer) -> Managers:
    """The managers after a write that is not an apply: the writer owns what it changed."""
    managers = read(live) if live is not None else {}
    old: Json = live if live is not None else {"metadata": {}}
    changed, removed = _difference_of(old, new, root)
    changed = without(changed, ("apiVersion",), ("kind",))
    changed.pop(".", None)
    if not changed and not removed:
        return managers
    me = Manager(writer.name, "Update", writer.subresource, writer.api_version)
    mine = managers.pop(me, Owned({}, writer.time))
    managers = _settle(managers, changed, removed, force=True, time=writer.time)
    fields = difference(union(mine.fields, changed), removed)
    if fields:
        time = mine.time if fields == mine.fields else writer.time
        managers[me] = Owned(fields, time)
    return _bounded(managers)


def _bounded(managers: Managers) -> Managers:
    updaters = sorted((o.time, m) for m, o in managers.items() if m.operation == "Update")
    if len(updaters) <= MOST_UPDATERS:
        return managers
    result = dict(managers)
    ancient = Owned({}, "")
    for time, manager in updaters[: len(updaters) - MOST_UPDATERS + 1]:
        ancient = Owned(union(ancient.fields, result.pop(manager).fields), time)
    name = Manager("ancient-changes", "Update", "", updaters[0][1].api_version)
    result[name] = ancient
    return result
