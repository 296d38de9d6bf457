"""Events are served twice, by the core group and by ``events.k8s.io``; they are stored once, as the
core group has them. The two differ in the names of some fields.
"""

from __future__ import annotations

from typing import Any, Final

from beamlit_operator.kube import Json

NEW: Final = "events.k8s.io/v1"
"""The ``apiVersion`` of the other form."""

_STORED: Final = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
}
_SHOWN: Final = {stored: shown for shown, stored in _STORED.items()}


def shown(item: Json) -> Json:
    """A stored event as ``events.k8s.io`` has it, sharing the rest."""
    found = {_SHOWN.get(name, name): value for name, value in item.items()}
    return {**found, "apiVersion": NEW}


def stored(body: Any) -> Any:
    """A body or patch for ``events.k8s.io`` as one for the core group, where it can be one."""
    if isinstance(body, list):
        return [_operation(operation) for operation in body]
    if not isinstance(body, dict):
        return body
    found = {_STORED.get(name, name): value for name, value in body.items()}
    if found.get("apiVersion") == NEW:
        found["apiVersion"] = "v1"
    return found


def _operation(operation: Any) -> Any:
    """One step of a JSON patch."""
    if not isinstance(operation, dict):
        return operation
    changed = dict(operation)
    for name in ("path", "from"):
        if isinstance(changed.get(name), str):
            empty, *steps = changed[name].split("/")
            if steps:
                steps[0] = _STORED.get(steps[0], steps[0])
            changed[name] = "/".join([empty, *steps])
    return changed
