"""Whether an applied configuration fits the schema, as server-side apply asks before it merges.

Unlike other writes, an apply is never pruned: a field that the schema does not declare could not
be owned, so that it is refused (structured-merge-diff, typed/validate.go).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from beamlit_operator.devcluster.apiserver.errors import Cause, invalid, required
from beamlit_operator.devcluster.apiserver.fieldsets import ANY
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.kube import ApiError, Json


def check_typed(served: Served, config: Json) -> None:
    """Refuses ``config`` if it cannot be typed.

    Raises:
        ApiError: 500 (as Kubernetes has it), or 422 for a built-in list item without its key.
    """
    first = next(_problems(config, served.root, "", served.custom), None)
    metadata = config.get("metadata") or {}
    if first is not None:
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        group_version = served.api_version if served.group else f"/{served.version}"
        raise ApiError(
            500,
            "",
            f"failed to create typed patch object ({name}; {group_version}, "
            f"Kind={served.kind}): {first}",
        )
    # In Go the key of a built-in list is there, and empty; what validates the object misses it.
    lost = [] if served.custom else list(_lost_keys(config, served.root, ""))
    if lost:
        raise invalid(served.group, served.kind, metadata.get("name", ""), lost)


def _problems(value: Any, node: Node, path: str, custom: bool) -> Iterator[str]:
    if value is None or node.int_or_string or not node.type:
        return
    match node.type:
        case "object":
            if not isinstance(value, dict):
                yield f"{path}: expected map, got &{{{_go(value)}}}"
                return
            yield from _field_problems(value, node, path, custom)
        case "array":
            if not isinstance(value, list):
                yield f"{path}: expected list, got &{{{_go(value)}}}"
                return
            yield from _item_problems(value, node, path, custom)
        case "string" if not isinstance(value, str):
            yield f"{path}: expected string, got &value.valueUnstructured{{Value:{_go(value)}}}"
        case "boolean" if not isinstance(value, bool):
            yield f"{path}: expected boolean, got &{{{_go(value)}}}"
        case "integer" | "number" if isinstance(value, bool) or not isinstance(value, (int, float)):
            kind = {str: "string", bool: "boolean", dict: "map", list: "list"}[type(value)]
            yield f"{path}: expected numeric (int or float), got {kind}"


def _field_problems(value: Json, node: Node, path: str, custom: bool) -> Iterator[str]:
    open_ended = node.preserve or (not node.properties and node.extra is None)
    for name in sorted(value):
        child = node.child(name)
        if child is not None:
            yield from _problems(value[name], child, f"{path}.{name}", custom)
        elif not open_ended and not (node.embedded and name in ("apiVersion", "kind", "metadata")):
            yield f"{path}.{name}: field not declared in schema"


def _item_problems(value: list[Any], node: Node, path: str, custom: bool) -> Iterator[str]:
    if node.items is None:
        return
    seen: set[str] = set()
    for index, entry in enumerate(value):
        step = f"[{index}]"
        if node.unique:
            key = f"[={json.dumps(entry)}]"
        elif node.keys and isinstance(entry, dict):
            known = dict(zip(node.keys, node.key_of(entry), strict=True))
            given = {name: part for name, part in known.items() if part is not None}
            if not given:
                if custom:
                    yield (
                        f"{path}: element {index}: associative list with keys has an element that "
                        f"omits all key fields {json.dumps(list(node.keys))} (and doesn't have "
                        "default values for any key fields)"
                    )
                continue
            # A key with a default counts, but is not named.
            named = {name: part for name, part in given.items() if name in entry} or given
            step = "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in sorted(named.items())) + "]"
            key = "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in sorted(given.items())) + "]"
        else:
            yield from _problems(entry, node.items, path + step, custom)
            continue
        if key in seen:
            yield f"{path}: duplicate entries for key {key}"
        seen.add(key)
        yield from _problems(entry, node.items, path + step, custom)


def _lost_keys(value: Any, node: Node, path: str) -> Iterator[Cause]:
    if isinstance(value, dict):
        for name, entry in value.items():
            if isinstance(entry, (dict, list)):
                where = f"{path}.{name}" if path else name
                yield from _lost_keys(entry, node.child(name) or ANY, where)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                continue
            if node.keys and all(part is None for part in node.key_of(entry)):
                yield required(f"{path}[{index}].{node.keys[0]}")
            yield from _lost_keys(entry, node.items or ANY, f"{path}[{index}]")


def _go(value: Any) -> str:
    """A value as Go prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_go(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_go(item) for item in value) + "]"
    return str(value)
