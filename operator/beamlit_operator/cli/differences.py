"""What differs between two objects, field by field, and the patch that makes one of the other.

| before  | after   | told as                                           | merge patch (RFC 7386) |
|---------|---------|---------------------------------------------------|------------------------|
| absent  | value   | added                                             | the value              |
| value   | absent  | removed                                           | null                   |
| mapping | mapping | field by field                                    | field by field         |
| list    | list    | by name where all entries have one, else as whole | the whole list         |
| else    | else    | changed, if they are not equal                    | the value              |

A mapping that is empty says as much as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]

ABSENT = object()
"""Stands for a field that is not there: None is a value."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as it was."""

    path: Path
    """Names from the root; of a list's entry its name in brackets, as in ``[MODE]``."""
    before: Any
    """The value, or `ABSENT`."""
    after: Any
    """The value, or `ABSENT`."""

    @property
    def field(self) -> str:
        """The path as people write it: ``spec.runtime.envs[MODE].value``."""
        return ".".join(self.path).replace(".[", "[")


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[Difference]:
    """Every difference, in the order of the fields' names."""
    if before == after or (_empty(before) and _empty(after)):
        return
    if (named := _named(before, after)) is not None:
        old, new = named
        for key in sorted({*old, *new}):
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), (*path, f"[{key}]"))
    elif _mapping(before) and _mapping(after):
        old, new = _fields(before), _fields(after)
        for key in sorted({*old, *new}):
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), (*path, key))
    else:
        yield Difference(path, before, after)


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that makes ``after`` of ``before``; empty when they are equal."""
    patch: dict[str, Any] = {}
    for key in {**before, **after}:
        if key not in after:
            patch[key] = None
        elif isinstance(before.get(key), dict) and isinstance(after[key], dict):
            if inner := merge_patch(before[key], after[key]):
                patch[key] = inner
        elif key not in before or before[key] != after[key]:
            patch[key] = after[key]
    return patch


def shown(value: Any) -> str:
    """A value in one line, ``-`` for one that is not there."""
    if value is ABSENT:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mapping(value: Any) -> bool:
    return value is ABSENT or isinstance(value, dict)


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _empty(value: Any) -> bool:
    return value is ABSENT or value in ({}, [], None)


def _named(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Both lists by the names of their entries; None where that cannot be."""
    if not isinstance(before, list) or not isinstance(after, list):
        return None
    old, new = _by_name(before), _by_name(after)
    return None if old is None or new is None else (old, new)


def _by_name(entries: list[Any]) -> dict[str, Any] | None:
    names = [each.get("name") if isinstance(each, dict) else None for each in entries]
    known = [name for name in names if isinstance(name, str)]
    if len(set(known)) != len(entries):
        return None
    return dict(zip(known, entries, strict=True))
