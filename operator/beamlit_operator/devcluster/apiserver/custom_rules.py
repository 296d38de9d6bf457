"""What a custom resource may not be: its schema, the keys of its lists, its CEL rules.

As in Kubernetes, rules are not evaluated on an object whose schema errors could mislead them, and
a refusal says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.cel import rule_causes
from beamlit_operator.devcluster.apiserver.errors import Cause, show
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.validating import causes_of
from beamlit_operator.kube import Json

_BLOCKING: Final = frozenset(
    (
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    )
)

_UNCHECKED: Final = Cause(
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
    "<nil>",
)


def custom_causes(served: Served, item: Json, old: Json | None) -> list[Cause]:
    """Everything that ``item`` breaks; ``old`` is what it replaces, None on create."""
    checker = served.checker
    causes = causes_of(checker, item) if checker is not None else []
    for name, child in served.root.properties.items():
        if name not in ("metadata", "apiVersion", "kind") and name in item:
            causes += _double_causes(item[name], child, name)
    if not served.root.has_rules:
        return causes
    if any(cause.reason in _BLOCKING for cause in causes):
        return [*causes, _UNCHECKED]
    return causes + rule_causes(item, old, served.root)


def _double_causes(value: Any, node: Node, path: str) -> Iterator[Cause]:
    """Items that a list map or set has twice."""
    if isinstance(value, dict):
        for name, entry in value.items():
            child = node.child(name)
            if child is not None and isinstance(entry, (dict, list)):
                yield from _double_causes(entry, child, f"{path}.{name}")
    elif isinstance(value, list) and node.items is not None:
        seen: list[Any] = []
        for index, entry in enumerate(value):
            where = f"{path}[{index}]"
            key = _identity(entry, node)
            if key is not None:
                if key in seen:
                    shown = show(entry) if node.unique else _key_text(node, entry)
                    yield Cause("FieldValueDuplicate", f"Duplicate value: {shown}", where)
                seen.append(key)
            if isinstance(entry, (dict, list)):
                yield from _double_causes(entry, node.items, where)


def _identity(entry: Any, node: Node) -> Any:
    if node.unique:
        return (type(entry).__name__, entry)
    return node.key_of(entry) if node.keys and isinstance(entry, dict) else None


def _key_text(node: Node, entry: Json) -> str:
    key = dict(zip(node.keys, node.key_of(entry), strict=True))
    return json.dumps(key, separators=(",", ":"), sort_keys=True)


def custom_warnings(item: Json, old: Json | None) -> Iterator[str]:
    """What is allowed and unwise."""
    known = (old["metadata"].get("finalizers") or ()) if old is not None else ()
    for name in item["metadata"].get("finalizers") or ():
        if "/" not in name and name not in known:
            yield (
                f"metadata.finalizers: {show(name)}: prefer a domain-qualified finalizer name to "
                "avoid accidental conflicts with other finalizer writers"
            )
