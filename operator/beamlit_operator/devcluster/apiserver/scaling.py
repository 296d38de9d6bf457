"""The scale subresource: an ``autoscaling/v1`` Scale over the replica fields of an object."""

from __future__ import annotations

from typing import Any

from beamlit_operator.devcluster.apiserver.errors import bad_request, bad_value, invalid
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry, Key
from beamlit_operator.kube import Json


def _at(item: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        item = item.get(step) if isinstance(item, dict) else None
    return item


def scale_of(entry: Entry, served: Served) -> Json:
    """The Scale of the object."""
    assert served.scale is not None
    metadata = entry.obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": _at(entry.obj, served.scale.status_replicas) or 0}
    selector = _at(entry.obj, served.scale.selector) if served.scale.selector else None
    if isinstance(selector, dict):
        status["selector"] = _selector_text(selector)
    elif isinstance(selector, str):
        status["selector"] = selector
    replicas = _at(entry.obj, served.scale.spec_replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector_text(selector: Json) -> str:
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        values = ",".join(term.get("values") or ())
        operator = term["operator"]
        if operator in ("In", "NotIn"):
            terms.append(f"{term['key']} {operator.lower()} ({values})")
        else:
            terms.append(term["key"] if operator == "Exists" else f"!{term['key']}")
    return ",".join(terms)


def wanted(served: Served, key: Key, body: Any) -> tuple[int, str]:
    """The replicas that a Scale asks for, and the version it was read at (empty: any).

    Raises:
        ApiError: 400 or 422.
    """
    parts = (
        [body.get(name) or {} for name in ("spec", "metadata")] if isinstance(body, dict) else [0]
    )
    if not all(isinstance(part, dict) for part in parts):
        raise bad_request("the body must be a Scale object")
    if body.get("kind", "Scale") != "Scale":
        raise bad_request(f"the kind in the data ({body['kind']}) must be Scale")
    metadata = body.get("metadata") or {}
    if metadata.get("name", key.name) != key.name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({key.name})"
        )
    number = (body.get("spec") or {}).get("replicas") or 0
    if isinstance(number, bool) or not isinstance(number, int):
        raise bad_request(f"spec.replicas must be an integer, not {number!r}")
    if number < 0:
        raise invalid(
            "autoscaling",
            "Scale",
            key.name,
            [bad_value("spec.replicas", number, "must be greater than or equal to 0")],
        )
    return number, str(metadata.get("resourceVersion") or "")


def with_replicas(item: Json, served: Served, number: int) -> Json:
    """A copy of ``item`` with the number set, sharing the rest."""
    assert served.scale is not None
    return _set(item, served.scale.spec_replicas, number)


def _set(item: Json, path: tuple[str, ...], number: int) -> Json:
    name = path[0]
    if len(path) == 1:
        return {**item, name: number}
    return {**item, name: _set(item.get(name) or {}, path[1:], number)}


def partial_config(served: Served, key: Key, number: int) -> Json:
    """The applied configuration of the object that stands for an applied Scale."""
    body: Json = {
        "apiVersion": served.api_version,
        "kind": served.kind,
        "metadata": {"name": key.name},
    }
    if served.namespaced:
        body["metadata"]["namespace"] = key.namespace
    return with_replicas(body, served, number)
