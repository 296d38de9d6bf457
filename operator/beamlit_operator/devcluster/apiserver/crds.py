"""CustomResourceDefinitions: what a valid one is, and what it makes the server serve."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.builtin_columns import AGE
from beamlit_operator.devcluster.apiserver.cel import rule_problems
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    not_supported,
    required,
)
from beamlit_operator.devcluster.apiserver.schemas import Node, custom, custom_root
from beamlit_operator.devcluster.apiserver.served import Column, ScalePaths, Served
from beamlit_operator.devcluster.apiserver.validating import custom_checker
from beamlit_operator.kube import Json

CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that keeps a definition until its objects are gone."""

_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean")


def crd_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with a definition."""
    spec = item["spec"]
    names = spec.get("names") or {}
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if item["metadata"]["name"] != wanted:
        yield bad_value(
            "metadata.name",
            item["metadata"]["name"],
            'must be spec.names.plural+"."+spec.group',
        )
    if not _LABEL.fullmatch(names.get("plural", "")):
        yield bad_value("spec.names.plural", names.get("plural"), "must be a DNS-1035 label")
    if "." not in str(spec.get("group", "")):
        yield bad_value("spec.group", spec.get("group"), "should be a domain with at least one dot")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield not_supported("spec.scope", spec.get("scope"), ["Cluster", "Namespaced"])
    if (spec.get("conversion") or {}).get("strategy") not in (None, "None"):
        yield forbidden_field(
            "spec.conversion.strategy",
            "the embedded cluster has no conversion webhooks; use strategy None",
        )
    versions = spec.get("versions") or []
    if sum(1 for v in versions if v.get("storage")) != 1:
        yield bad_value(
            "spec.versions",
            versions,
            "must have exactly one version marked as storage version",
        )
    if old is not None and old["spec"].get("scope") != spec.get("scope"):
        yield bad_value("spec.scope", spec.get("scope"), "field is immutable")
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            yield required(path, "schemas are required")
            continue
        found = list(_structural_causes(schema, path, root=True))
        yield from found
        if not found:
            yield from _compile_causes(schema, path)


def _structural_causes(schema: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
    if not isinstance(schema, dict):
        yield bad_value(path, schema, "must be a schema object")
        return
    open_ended = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    kind = schema.get("type")
    if not kind and not open_ended:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    elif kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    if root and kind != "object":
        yield bad_value(f"{path}.type", kind or "", "must be object at the root")
    if schema.get("properties") and schema.get("additionalProperties"):
        yield forbidden_field(f"{path}.additionalProperties", "mutual exclusive with properties")
    for name in ("$ref", "definitions", "dependencies", "patternProperties", "id"):
        if schema.get(name):
            yield forbidden_field(f"{path}.{name}", f"{name} is not supported")
    if schema.get("uniqueItems") is True:
        yield forbidden_field(f"{path}.uniqueItems", "uniqueItems cannot be set to true")
    if kind == "array" and not schema.get("items"):
        yield required(f"{path}.items", "must be specified")
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") == "map" and not keys:
        yield required(
            f"{path}.x-kubernetes-list-map-keys",
            "must not be empty if x-kubernetes-list-type is map",
        )
    for name, child in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            yield from _structural_causes(child, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        yield from _structural_causes(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _structural_causes(
            schema["additionalProperties"], f"{path}.additionalProperties"
        )


def _compile_causes(schema: Json, path: str) -> Iterator[Cause]:
    try:
        checker = custom_checker(schema)
    except ValueError as error:
        yield bad_value(path, "schema", f"the schema does not compile: {error}")
        return
    for where, rule, why in rule_problems(custom(schema), path):
        yield bad_value(where, rule, why)
    yield from _default_causes(schema, path)
    del checker


def _default_causes(schema: Json, path: str) -> Iterator[Cause]:
    """A default must be valid under the schema it stands in."""
    if "default" in schema:
        checker = custom_checker(schema)
        if checker is not None and not checker.is_valid(schema["default"]):
            yield bad_value(f"{path}.default", schema["default"], "does not match the schema")
    for name, child in (schema.get("properties") or {}).items():
        yield from _default_causes(child, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _default_causes(schema[name], f"{path}.{name}")


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
