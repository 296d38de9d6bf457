"""What a valid CustomResourceDefinition is: its names, versions, columns and subresources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.crd_schema import schema_causes
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    not_supported,
    required,
)
from beamlit_operator.kube import Json

_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS: Final = tuple(
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"]
)


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
    shared = len({json.dumps(v.get("schema"), sort_keys=True) for v in versions}) == 1
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}]"
        if shared:
            # What all versions share is reported where the first API had it, and once.
            where = "spec"
            if index:
                continue
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        path = (
            f"{where}.validation.openAPIV3Schema" if shared else (f"{where}.schema.openAPIV3Schema")
        )
        if not schema:
            yield required(path, "schemas are required")
            continue
        yield from schema_causes(schema, path)
        yield from _selectable_causes(version, where, schema)
    for index, version in enumerate(versions):
        where = "spec" if len(versions) == 1 else f"spec.versions[{index}]"
        yield from _column_causes(version, where)
        yield from _scale_causes((version.get("subresources") or {}).get("scale"), where)


def _column_causes(version: Json, path: str) -> Iterator[Cause]:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            yield required(f"{where}.name")
        kind, style = column.get("type", ""), column.get("format", "")
        if kind not in _COLUMN_TYPES:
            why = f"must be one of {','.join(_COLUMN_TYPES)}"
            yield bad_value(f"{where}.type", kind, why)
        if style and style not in _COLUMN_FORMATS:
            why = f"must be one of {','.join(_COLUMN_FORMATS)}"
            yield bad_value(f"{where}.format", style, why)
        yield from _path_causes(f"{where}.JSONPath", column.get("jsonPath", ""))


def _scale_causes(scale: Any, path: str) -> Iterator[Cause]:
    if not isinstance(scale, dict):
        return
    for name, homes, home in (
        ("specReplicasPath", (".spec.",), ".spec"),
        ("statusReplicasPath", (".status.",), ".status"),
        ("labelSelectorPath", (".spec.", ".status."), "either .spec or .status"),
    ):
        where = f"{path}.subresources.scale.{name}"
        value = scale.get(name, "")
        if not value and name == "labelSelectorPath":
            continue
        wrong = list(_path_causes(where, value))
        yield from wrong
        if not wrong and not value.startswith(homes):
            yield bad_value(where, value, f"should be a json path under {home}")


def _path_causes(where: str, value: str) -> Iterator[Cause]:
    if not value:
        yield required(where)
    elif not value.startswith("."):
        yield bad_value(where, value, "must be a simple json path starting with .")


def _selectable_causes(version: Json, path: str, schema: Json) -> Iterator[Cause]:
    for index, field in enumerate(version.get("selectableFields") or ()):
        where = f"{path}.selectableFields[{index}].jsonPath"
        value = field.get("jsonPath", "")
        if not value.startswith("."):
            yield bad_value(where, value, "is an invalid path: expected [ or . at the beginning")
            continue
        found: Any = schema
        for step in value[1:].split("."):
            found = (found.get("properties") or {}).get(step) if found else None
        if not found or found.get("type") not in ("string", "boolean", "integer"):
            yield bad_value(where, value, "is an invalid path: does not refer to a valid field")
