"""Server-side tables: what ``kubectl get`` prints, from printer columns and JSONPaths."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.served import Column, Served
from beamlit_operator.devcluster.apiserver.store import Entry
from beamlit_operator.kube import Json

_NAME: Final = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": "Name must be unique within a namespace.",
    "priority": 0,
}


def table(served: Served, entries: list[Entry], *, headers: bool, include: str) -> Json:
    """A ``meta.k8s.io/v1`` Table without list metadata.

    ``include`` is None, Metadata or Object: how much of each object comes with its row.
    """
    columns = served.columns
    result: Json = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [],
        "rows": [_row(served, columns, entry, include) for entry in entries],
    }
    if headers:
        result["columnDefinitions"] = [_NAME, *(_definition(column) for column in columns)]
    return result


def _definition(column: Column) -> Json:
    return {
        "name": column.name,
        "type": "string" if column.format == "age" else column.type,
        "format": "" if column.format in ("age", "date") else column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(served: Served, columns: tuple[Column, ...], entry: Entry, include: str) -> Json:
    item = entry.view(served.api_version)
    row: Json = {"cells": [item["metadata"]["name"], *(_cell(column, item) for column in columns)]}
    if include == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": item["metadata"],
        }
    elif include == "Object":
        row["object"] = item
    return row


def _cell(column: Column, item: Json) -> Any:
    value = column.value(item) if callable(column.value) else _first(column.value, item)
    if column.format == "age":
        return age_of(value)
    if value is None:
        return "" if column.type in ("string", "date") else None
    if column.type == "string" and not isinstance(value, str):
        return _text(value)
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        import json

        return json.dumps(value, separators=(",", ":"))
    return str(value)


def age_of(timestamp: Any) -> str:
    """How long ago, as kubectl writes it (``5m12s``); ``<unknown>`` when there is no time."""
    if not isinstance(timestamp, str):
        return "<unknown>"
    try:
        then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return "<invalid>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return _short((datetime.now(UTC) - then).total_seconds())


def _short(seconds: float) -> str:
    """k8s.io/apimachinery/pkg/util/duration.HumanDuration."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s <= 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    minutes = s // 60
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = s // 3600
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        years, rest = divmod(days, 365)
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{days // 365}y"


def _first(path: str, item: Json) -> Any:
    found = evaluate(path, item)
    return found[0] if found else None


_STEP: Final = re.compile(
    r"\.(?P<name>(?:[^.\[\\]|\\.)+)"
    r"|\[\?\(@\.(?P<key>[^=!\s]+)\s*(?P<op>==|!=)\s*(?P<quote>[\"'])(?P<value>.*?)(?P=quote)\)\]"
    r"|\[(?P<q2>[\"'])(?P<quoted>.*?)(?P=q2)\]"
    r"|\[(?P<index>-?\d+)\]"
    r"|\[(?P<all>\*)\]"
)


@functools.lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[tuple[str, Any], ...]:
    path = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if path and path[0] not in ".[":
        path = "." + path
    steps: list[tuple[str, Any]] = []
    position = 0
    while position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            return (("nothing", None),)
        position = found.end()
        if found["name"] is not None:
            steps.append(("field", re.sub(r"\\(.)", r"\1", found["name"])))
        elif found["quoted"] is not None:
            steps.append(("field", found["quoted"]))
        elif found["index"] is not None:
            steps.append(("index", int(found["index"])))
        elif found["all"] is not None:
            steps.append(("all", None))
        else:
            steps.append(("filter", (found["key"].split("."), found["op"], found["value"])))
    return tuple(steps)


def evaluate(path: str, item: Json) -> list[Any]:
    """The values that a JSONPath (the subset that printer columns use) finds."""
    values: list[Any] = [item]
    for kind, argument in _steps(path):
        found: list[Any] = []
        for value in values:
            found += _advance(kind, argument, value)
        values = found
    return [value for value in values if value is not None]


def _advance(kind: str, argument: Any, value: Any) -> list[Any]:
    if kind == "field":
        return [value[argument]] if isinstance(value, dict) and argument in value else []
    if kind == "all":
        if isinstance(value, dict):
            return list(value.values())
        return list(value) if isinstance(value, list) else []
    if not isinstance(value, list):
        return []
    if kind == "index":
        return [value[argument]] if -len(value) <= argument < len(value) else []
    if kind == "filter":
        path, operator, wanted = argument
        return [e for e in value if (_text(_at(e, path)) == wanted) is (operator == "==")]
    return []


def _at(value: Any, path: list[str]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
