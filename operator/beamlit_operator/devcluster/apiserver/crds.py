"""CustomResourceDefinitions: what a valid one makes the server serve."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from beamlit_operator.devcluster.apiserver.builtin_columns import AGE
from beamlit_operator.devcluster.apiserver.schemas import Node, custom_root
from beamlit_operator.devcluster.apiserver.served import Column, ScalePaths, Served
from beamlit_operator.devcluster.apiserver.validating import custom_checker
from beamlit_operator.kube import Json

CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that keeps a definition until its objects are gone."""


def served_by(definition: Json) -> list[Served]:
    """What a (valid) definition makes the server serve."""
    spec = definition["spec"]
    names = spec["names"]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    found = []
    for place, version in enumerate(_by_priority(spec["versions"])):
        if not version.get("served", True):
            continue
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        subresources = version.get("subresources") or {}
        columns = tuple(_column(c) for c in version.get("additionalPrinterColumns") or ())
        found.append(
            Served(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                singular=names.get("singular") or names["kind"].lower(),
                kind=names["kind"],
                list_kind=names.get("listKind") or names["kind"] + "List",
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale=_scale(subresources["scale"]) if subresources.get("scale") else None,
                generation=True,
                storage_version=storage,
                columns=columns or (AGE,),
                selectable=frozenset(
                    field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()
                ),
                schema=schema,
                custom=True,
                priority=place,
                make_root=partial(_root, schema),
                make_checker=partial(custom_checker, schema),
            )
        )
    return found


def _root(schema: Json | None) -> Node:
    return custom_root(schema)


def _by_priority(versions: list[Json]) -> list[Json]:
    """GA before beta before alpha, higher numbers first, as Kubernetes sorts versions."""

    def key(version: Json) -> tuple[int, int, int, str]:
        found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version["name"])
        if found is None:
            return (3, 0, 0, version["name"])
        stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
        return (stage, -int(found[1]), -int(found[3] or 0), "")

    return sorted(versions, key=key)


def _column(source: Json) -> Column:
    return Column(
        source["name"],
        source["type"],
        source["jsonPath"],
        source.get("priority", 0),
        source.get("description", ""),
        "age" if source["type"] == "date" else source.get("format", ""),
    )


def _scale(source: Json) -> ScalePaths:
    def path(name: str) -> tuple[str, ...]:
        return tuple(step for step in source.get(name, "").split(".") if step)

    return ScalePaths(
        path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath")
    )


def established_status(definition: Json, now: str) -> Json:
    """The status of a definition that is served."""
    spec = definition["spec"]
    before = {c["type"]: c for c in (definition.get("status") or {}).get("conditions") or ()}
    conditions = []
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        known = before.get(kind, {})
        since = known.get("lastTransitionTime", now) if known.get("status") == "True" else now
        conditions.append(
            {
                "type": kind,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": since,
            }
        )
    stored = list((definition.get("status") or {}).get("storedVersions") or ())
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    if storage not in stored:
        stored.append(storage)
    return {"conditions": conditions, "acceptedNames": spec["names"], "storedVersions": stored}
