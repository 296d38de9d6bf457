"""Sets of fields, in the form ``managedFields`` has them (FieldsV1), and what an object's set is.

A set is a trie of dicts: ``f:name`` for a field, ``k:{...}`` for an item of a list map, ``v:...``
for one of a set. An empty dict is a member; a dict with children is one only if it holds ``.``.
The root is never a member. Sets are never modified. The rules are those of structured-merge-diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.kube import ApiError, Json

Fields = dict[str, Any]
"""A set of fields."""

ANY = Node(preserve=True)
"""The schema of what has none: objects are merged, lists are atomic."""


def item_key(item: Any, node: Node) -> str:
    """The trie key of an item of a list map or set.

    Raises:
        ApiError: 400, an item of a list map lacks its identifying fields.
    """
    if node.unique:
        return "v:" + json.dumps(item, separators=(",", ":"), sort_keys=True)
    if len(node.keys) == 1 and isinstance(item, dict):
        # Nearly all keys are one plain string, which needs no encoder.
        value = item.get(node.keys[0])
        if (
            isinstance(value, str)
            and value.isascii()
            and value.isprintable()
            and ('"' not in value and "\\" not in value)
        ):
            return f'k:{{"{node.keys[0]}":"{value}"}}'
    if not isinstance(item, dict):
        raise bad_request(f"associative list with keys {list(node.keys)} has an element {item!r}")
    key = {n: v for n, v in zip(node.keys, node.key_of(item), strict=True) if v is not None}
    if not key:
        raise bad_request(
            f"associative list with keys has an element that omits key field {node.keys[0]!r}"
        )
    return "k:" + json.dumps(key, separators=(",", ":"), sort_keys=True)


def keyed(items: list[Any], node: Node) -> dict[str, Any]:
    """The items of a list map or set by their trie key.

    Raises:
        ApiError: 400, two items have the same key.
    """
    found: dict[str, Any] = {}
    for item in items:
        key = item_key(item, node)
        if key in found:
            raise bad_request(f"duplicate entries for key {key[2:]} in an associative list")
        found[key] = item
    return found


def owned(value: Json, node: Node) -> Fields:
    """What somebody who applies ``value`` owns."""
    return _owned(value, node) or {}


def _owned(value: Any, node: Node) -> Fields | None:
    if isinstance(value, dict):
        if not value or node.atomic:
            return {}
        found: Fields = {}
        for name, entry in value.items():
            declared = node.properties.get(name)
            fields: Fields | None = {}
            if isinstance(entry, (dict, list)):
                fields = _owned(entry, declared or node.extra or ANY)
                if fields is None:
                    if declared is not None:
                        continue
                    fields = {}
            if fields and declared is None:
                fields = {".": {}, **fields}
            found["f:" + name] = fields
        return found or None
    if isinstance(value, list):
        if not (node.keys or node.unique):
            return {}
        inner = node.items or ANY
        return {
            key: {".": {}, **((_owned(item, inner) if node.keys else None) or {})}
            if node.keys
            else {}
            for key, item in keyed(value, node).items()
        }
    return {}


def _items(items: list[Any], node: Node) -> dict[str, Any] | None:
    """As :func:`keyed`; None for an atomic list, and for one whose keys are wrong: that is found
    and refused by validation, which says it better."""
    if not (node.keys or node.unique):
        return None
    try:
        return keyed(items, node)
    except ApiError:
        return None


def everything(value: Any, node: Node) -> Fields:
    """``value`` and all that is in it, containers included."""
    found: Fields = {}
    if isinstance(value, dict) and not node.atomic:
        for name, entry in value.items():
            if isinstance(entry, (dict, list)):
                found["f:" + name] = everything(entry, node.child(name) or ANY)
            else:
                found["f:" + name] = {}
    elif isinstance(value, list) and (items := _items(value, node)) is not None:
        inner = node.items or ANY
        for key, item in items.items():
            found[key] = everything(item, inner) if node.keys else {}
    if found:
        found["."] = {}
    return found


def compare(old: Any, new: Any, node: Node) -> tuple[Fields, Fields]:
    """The fields that ``new`` adds or changes, and those it lacks, as against ``old``."""
    changed: Fields = {}
    removed: Fields = {}
    if isinstance(old, dict):
        before = {"f:" + name: entry for name, entry in old.items()}
        after = {"f:" + name: entry for name, entry in new.items()}
    else:
        before, after = _items(old, node) or {}, _items(new, node) or {}
    for key, entry in after.items():
        child = (node.child(key[2:]) if key[0] == "f" else node.items) or ANY
        if key not in before:
            changed[key] = everything(entry, child)
            continue
        known = before[key]
        if known is entry or (known == entry and type(known) is type(entry)):
            continue
        if _comparable(known, entry, child):
            more, less = compare(known, entry, child)
            if more:
                changed[key] = more
            if less:
                removed[key] = less
        else:
            changed[key] = {}
    for key, entry in before.items():
        if key not in after:
            child = (node.child(key[2:]) if key[0] == "f" else node.items) or ANY
            removed[key] = everything(entry, child)
    return changed, removed


def _comparable(old: Any, new: Any, node: Node) -> bool:
    if node.atomic:
        return False
    if isinstance(old, dict):
        return isinstance(new, dict)
    if isinstance(old, list) and isinstance(new, list):
        return _items(old, node) is not None and _items(new, node) is not None
    return False


def _member(fields: Fields) -> bool:
    return not fields or "." in fields


def _build(children: Fields, member: bool) -> Fields | None:
    if not children:
        return {} if member else None
    if member:
        children["."] = {}
    return children


def union(first: Fields, second: Fields) -> Fields:
    """What is in either."""
    if not first or not second:
        return first or second
    found = dict(first)
    for key, fields in second.items():
        known = found.get(key)
        found[key] = fields if known is None else _union(known, fields)
    return found


def _union(first: Fields, second: Fields) -> Fields:
    if first is second:
        return first
    member = _member(first) or _member(second)
    children = {key: fields for key, fields in first.items() if key != "."}
    for key, fields in second.items():
        if key != ".":
            known = children.get(key)
            children[key] = fields if known is None else _union(known, fields)
    return _build(children, member) or {}


def intersection(first: Fields, second: Fields) -> Fields:
    """What is in both."""
    return _intersection(first, second, root=True) or {}


def _intersection(first: Fields, second: Fields, *, root: bool = False) -> Fields | None:
    children: Fields = {}
    for key, fields in first.items():
        other = second.get(key)
        if other is not None and key != ".":
            common = _intersection(fields, other)
            if common is not None:
                children[key] = common
    return _build(children, not root and _member(first) and _member(second))


def difference(first: Fields, second: Fields) -> Fields:
    """What is in the first only."""
    return (_difference(first, second, root=True) if second else first) or {}


def _difference(first: Fields, second: Fields, *, root: bool = False) -> Fields | None:
    children: Fields = {}
    for key, fields in first.items():
        if key == ".":
            continue
        other = second.get(key)
        left = fields if other is None else _difference(fields, other)
        if left is not None:
            children[key] = left
    return _build(children, not root and _member(first) and not _member(second))


def without(fields: Fields, *paths: tuple[str, ...]) -> Fields:
    """``fields`` less all that is at or below ``paths`` (of field names)."""
    for path in paths:
        fields = _cut(fields, path)
    return fields


def _cut(fields: Fields, path: tuple[str, ...]) -> Fields:
    key = "f:" + path[0]
    below = fields.get(key)
    if below is None:
        return fields
    left = _cut(below, path[1:]) if len(path) > 1 else {}
    if left is below:
        return fields
    return {k: left if k == key else v for k, v in fields.items() if k != key or left}


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The members as people write them: ``.spec.containers[name="a"].image``."""
    for key, below in fields.items():
        if key == ".":
            yield prefix
            continue
        if key[0] == "f":
            step = f".{key[2:]}"
        elif key[0] == "k":
            terms = (f"{k}={json.dumps(v)}" for k, v in json.loads(key[2:]).items())
            step = f"[{','.join(terms)}]"
        else:
            step = f"[={key[2:]}]"
        if below:
            yield from paths(below, prefix + step)
        else:
            yield prefix + step
