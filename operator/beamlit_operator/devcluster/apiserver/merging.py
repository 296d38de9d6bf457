"""Combining values for server-side apply: merge what is applied, drop what no longer is.

Neither function modifies its arguments; unchanged parts are shared, and an unchanged value is
returned as the same object, so that comparing is cheap.
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.devcluster.apiserver.fieldsets import ANY, Fields, item_key, keyed
from beamlit_operator.devcluster.apiserver.schemas import Node


def merge(live: Any, applied: Any, node: Node) -> Any:
    """``live`` with everything that ``applied`` says."""
    if isinstance(live, dict) and isinstance(applied, dict):
        if node.atomic:
            return live if live == applied else applied
        changed: dict[str, Any] | None = None
        for name, entry in applied.items():
            known = live.get(name, ANY)
            if known is ANY:
                value = entry
            elif isinstance(entry, (dict, list)):
                value = merge(known, entry, node.child(name) or ANY)
            else:
                value = known if known == entry and type(known) is type(entry) else entry
            if value is not known:
                if changed is None:
                    changed = dict(live)
                changed[name] = value
        return live if changed is None else changed
    if isinstance(live, list) and isinstance(applied, list):
        if node.keys or node.unique:
            return _merge_lists(live, applied, node)
        return live if live == applied else applied
    return live if live == applied and type(live) is type(applied) else applied


def _merge_lists(live: list[Any], applied: list[Any], node: Node) -> list[Any]:
    """The applied items keep their order among themselves, the others their place before them."""
    known, wanted = keyed(live, node), keyed(applied, node)
    inner = node.items or ANY
    order = iter(wanted)
    done: set[str] = set()
    result: list[Any] = []

    def place(key: str) -> None:
        done.add(key)
        entry = wanted[key]
        result.append(merge(known[key], entry, inner) if key in known and node.keys else entry)

    for key, entry in known.items():
        if key not in wanted:
            result.append(entry)
        elif key not in done:
            for ahead in order:
                place(ahead)
                if ahead == key:
                    break
    for key in order:
        place(key)
    same = len(result) == len(live) and all(a is b for a, b in zip(result, live, strict=True))
    return live if same else result


def remove_unowned(value: Any, last: Fields, kept: Fields, node: Node) -> Any:
    """``value`` without the fields in ``last`` of which nothing is in ``kept`` any more."""
    if isinstance(value, dict):
        if node.atomic:
            return value
        result: dict[str, Any] | None = None
        for key, below in last.items():
            name = key[2:]
            if key == "." or name not in value:
                continue
            keep = kept.get(key)
            if keep is None:
                if result is None:
                    result = dict(value)
                del result[name]
            elif below:
                left = remove_unowned(value[name], below, keep, node.child(name) or ANY)
                if left is not value[name]:
                    if result is None:
                        result = dict(value)
                    result[name] = left
        return value if result is None else result
    if isinstance(value, list) and (node.keys or node.unique):
        items: list[Any] = []
        changed = False
        for entry in value:
            key = item_key(entry, node)
            was, keep = last.get(key), kept.get(key)
            if was is not None and keep is None:
                changed = True
                continue
            left = entry
            if was and keep is not None and node.keys:
                left = remove_unowned(entry, was, keep, node.items or ANY)
                changed = changed or left is not entry
            items.append(left)
        return items if changed else value
    return value
