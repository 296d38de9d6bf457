"""Pruning and defaulting: what an object looks like before it is checked and stored.

Both work in place on a private copy, and skip what the schema says nothing about.
"""

from __future__ import annotations

import copy
from typing import Any

from beamlit_operator.devcluster.apiserver.schemas import META, MISSING, Node, builtin
from beamlit_operator.kube import Json


def prune(item: Json, root: Node, *, nulls: bool) -> list[str]:
    """Removes undeclared fields (and with ``nulls`` absent-meaning nulls); returns their paths."""
    unknown: list[str] = []
    _prune(item, root, "", unknown, nulls)
    return unknown


def _prune(value: Any, node: Node, path: str, unknown: list[str], nulls: bool) -> None:
    if isinstance(value, dict):
        properties, extra = node.properties, node.extra
        if not properties and extra is None and (node.preserve or not node.type):
            return
        for name in list(value):
            child = properties.get(name)
            if child is None:
                if extra is None:
                    if not node.preserve and not (
                        node.embedded and name in ("apiVersion", "kind", "metadata")
                    ):
                        unknown.append(f"{path}.{name}" if path else name)
                        del value[name]
                    continue
                child = extra
            field = value[name]
            if field is None:
                if nulls and (name in properties):
                    del value[name]
                continue
            if isinstance(field, (dict, list)):
                _prune(field, child, f"{path}.{name}" if path else name, unknown, nulls)
    elif isinstance(value, list) and node.items is not None:
        for index, entry in enumerate(value):
            if entry is None and nulls and node.items.properties:
                # In Go it is an empty struct, which then lacks what it requires.
                value[index] = {}
            elif isinstance(entry, (dict, list)):
                _prune(entry, node.items, f"{path}[{index}]", unknown, nulls)


def drop_nulls(value: Any, node: Node) -> None:
    """Removes, in place, null where a field of a custom resource is not nullable and has no
    default: it means that the field is absent. Items of lists are no fields."""
    if isinstance(value, dict):
        for name in list(value):
            child = node.child(name)
            if child is None:
                continue
            field = value[name]
            if field is None:
                if not child.nullable and child.default is MISSING and child.type:
                    del value[name]
            elif isinstance(field, (dict, list)):
                drop_nulls(field, child)
    elif isinstance(value, list) and node.items is not None:
        for entry in value:
            if isinstance(entry, (dict, list)):
                drop_nulls(entry, node.items)


def set_defaults(value: Any, node: Node) -> None:
    """Fills in constant defaults, also inside what a default brought; null counts as absent
    where the field has a default and is not nullable."""
    if isinstance(value, dict):
        for name, child in node.properties.items():
            present = value.get(name, MISSING)
            if present is MISSING or (present is None and not child.nullable):
                if child.default is MISSING:
                    continue
                present = value[name] = copy.deepcopy(child.default)
            if child.has_defaults and isinstance(present, (dict, list)):
                set_defaults(present, child)
        extra = node.extra
        if extra is not None and extra.has_defaults:
            for name, entry in value.items():
                if name not in node.properties:
                    if entry is None and not extra.nullable and extra.default is not MISSING:
                        value[name] = copy.deepcopy(extra.default)
                    set_defaults(value[name], extra)
    elif isinstance(value, list) and node.items is not None and node.items.has_defaults:
        for entry in value:
            set_defaults(entry, node.items)


def prune_metadata(metadata: Json) -> list[str]:
    """Prunes ``metadata`` alone, which is typed for every resource."""
    unknown: list[str] = []
    _prune(metadata, builtin(META + "ObjectMeta"), "metadata", unknown, True)
    return unknown
