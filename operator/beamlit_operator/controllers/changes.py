"""What a change of a Policy or Environment was, in words, and which client made it."""

from __future__ import annotations

import json
from typing import Any

from beamlit_operator.kube import Json

MOST_TEXT = 240
"""Characters of one side of a difference."""


def difference(before: Json, after: Json) -> str:
    """The fields of a spec that differ: ``locations: country:us -> country:au``."""
    return "; ".join(
        f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _text(value: Any) -> str:
    if value in (None, [], {}, ""):
        return "nothing"
    words = ", ".join(map(_item, value)) if isinstance(value, list) else _item(value)
    return words if len(words) <= MOST_TEXT else words[: MOST_TEXT - 3] + "..."


def _item(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        if set(value) == {"type", "name"}:
            return f"{value['type']}:{value['name']}"
        if set(value) <= {"name", "mandatory"}:
            return f"{value['name']} (mandatory)" if value.get("mandatory") else value["name"]
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def last_manager(item: Json) -> str:
    """The field manager that wrote last, of those that write no subresource."""
    found = [
        (str(entry.get("time") or ""), str(entry.get("manager") or ""))
        for entry in item["metadata"].get("managedFields") or ()
        if not entry.get("subresource")
    ]
    return max(found, default=("", ""))[1]
