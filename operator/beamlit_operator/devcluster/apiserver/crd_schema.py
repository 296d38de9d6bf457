"""What the schema in a CustomResourceDefinition may look like: structural, with sound lists, rules
and defaults. The checks and their words are those of k8s.io/apiextensions-apiserver.

One check of Kubernetes is not made: the estimated cost of rules. A definition that is refused for
its cost by a real API server is accepted here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.cel import rule_causes
from beamlit_operator.devcluster.apiserver.crd_rules import rule_problems
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    not_supported,
    required,
)
from beamlit_operator.devcluster.apiserver.schemas import MISSING, custom
from beamlit_operator.devcluster.apiserver.store import duplicate
from beamlit_operator.devcluster.apiserver.structural import prune
from beamlit_operator.devcluster.apiserver.validating import causes_of, custom_checker
from beamlit_operator.kube import Json

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES: Final = ("atomic", "set", "map")
_NOT_RE2: Final = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:=|!|<=|<!|>)|\\[1-9])")
"""What other regular expressions have and Go's do not: looking around, and back."""

# fmt: off
_KEYWORDS: Final = frozenset((
    "$ref", "$schema", "additionalItems", "additionalProperties", "allOf", "anyOf", "default",
    "definitions", "dependencies", "description", "enum", "example", "exclusiveMaximum",
    "exclusiveMinimum", "externalDocs", "format", "id", "items", "maxItems", "maxLength",
    "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
    "not", "nullable", "oneOf", "pattern", "patternProperties", "properties", "required", "title",
    "type", "uniqueItems", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
))
# fmt: on


def prune_keywords(definition: Json) -> list[str]:
    """Removes from all schemas, in place, what no schema has (and defaults of null, which are
    none); returns the paths of the former."""
    unknown: list[str] = []
    spec = definition.get("spec")
    versions = spec.get("versions") if isinstance(spec, dict) else None
    # Its shape was not checked yet: what is no schema is left for that check to refuse.
    for index, version in enumerate(versions if isinstance(versions, list) else ()):
        holder = version.get("schema") if isinstance(version, dict) else None
        if isinstance(holder, dict):
            path = f"spec.versions[{index}].schema.openAPIV3Schema"
            _prune_schema(holder.get("openAPIV3Schema"), path, unknown)
    return unknown


def _prune_schema(schema: Any, path: str, unknown: list[str]) -> None:
    if not isinstance(schema, dict):
        return
    if schema.get("default", MISSING) is None:
        del schema["default"]
    for name in list(schema):
        value = schema[name]
        if name not in _KEYWORDS:
            unknown.append(f"{path}.{name}")
            del schema[name]
        elif name in ("properties", "patternProperties", "definitions"):
            for key, child in value.items() if isinstance(value, dict) else ():
                _prune_schema(child, f"{path}.{name}.{key}", unknown)
        elif name in ("allOf", "anyOf", "oneOf"):
            for index, child in enumerate(value if isinstance(value, list) else ()):
                _prune_schema(child, f"{path}.{name}[{index}]", unknown)
        elif name in ("items", "additionalProperties", "not"):
            _prune_schema(value, f"{path}.{name}", unknown)


def schema_causes(schema: Any, path: str) -> list[Cause]:
    """What is wrong with the ``openAPIV3Schema`` found at ``path``."""
    found = list(_structural_causes(schema, path, root=True))
    if found:
        return found
    try:
        custom_checker(schema)
    except ValueError as error:
        return [bad_value(path, "schema", f"the schema does not compile: {error}")]
    found = list(rule_problems(schema, path))
    return found or list(_default_causes(schema, path))


def _structural_causes(schema: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
    if not isinstance(schema, dict):
        yield bad_value(path, schema, "must be a schema object")
        return
    for name in ("$ref", "definitions", "dependencies", "patternProperties", "id"):
        if schema.get(name):
            yield forbidden_field(f"{path}.{name}", f"{name} is not supported")
    kind = schema.get("type")
    mixed = schema.get("x-kubernetes-int-or-string")
    open_ended = mixed or schema.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not open_ended and not schema.get("$ref"):
        yield required(f"{path}.type", "must not be empty for specified object fields")
    elif kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    if root and kind != "object":
        yield bad_value(f"{path}.type", kind or "", "must be object at the root")
    if schema.get("uniqueItems") is True:
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden_field(f"{path}.uniqueItems", why)
    yield from _pattern_causes(schema, path)
    yield from _list_causes(schema, path)
    for name in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(name) or ()):
            yield from _part_causes(part, f"{path}.{name}[{index}]", mixed=bool(mixed))
    if isinstance(schema.get("not"), dict):
        yield from _part_causes(schema["not"], f"{path}.not", mixed=bool(mixed))
    extra = schema.get("additionalProperties")
    if schema.get("properties") and extra is not None:
        why = "additionalProperties and properties are mutual exclusive"
        yield forbidden_field(f"{path}.additionalProperties", why)
    elif extra is False:
        why = "additionalProperties cannot be set to false"
        yield forbidden_field(f"{path}.additionalProperties", why)
    for name, child in (schema.get("properties") or {}).items():
        if root and name == "metadata":
            yield from _metadata_causes(child, f"{path}.properties[metadata]")
        else:
            yield from _structural_causes(child, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        yield from _structural_causes(schema["items"], f"{path}.items")
    if isinstance(extra, dict):
        yield from _structural_causes(extra, f"{path}.additionalProperties")


def _metadata_causes(schema: Any, path: str) -> Iterator[Cause]:
    """Metadata is typed already; a schema may only restrict what it is called."""
    if not isinstance(schema, dict):
        return
    if "default" in schema:
        yield forbidden_field(f"{path}.default", "must not be set in top-level metadata")
    allowed = {"name", "generateName"}
    if set(schema) - {"type", "properties", "default"} or set(schema.get("properties") or ()) - (
        allowed
    ):
        yield forbidden_field(
            path,
            "must not specify anything other than name and generateName, but metadata is "
            "implicitly specified",
        )


def _part_causes(part: Any, path: str, *, mixed: bool) -> Iterator[Cause]:
    """Below allOf, anyOf, oneOf and not there are only restrictions."""
    if not isinstance(part, dict):
        return
    for name in ("type", "title", "description"):
        if part.get(name) and not (mixed and name == "type"):
            yield forbidden_field(f"{path}.{name}", "must be empty to be structural")
    for name in ("default", "additionalProperties"):
        if name in part:
            yield forbidden_field(f"{path}.{name}", "must be undefined to be structural")
    if part.get("nullable"):
        yield forbidden_field(f"{path}.nullable", "must be false to be structural")
    for name, child in (part.get("properties") or {}).items():
        yield from _part_causes(child, f"{path}.properties[{name}]", mixed=False)
    yield from _part_causes(part.get("items"), f"{path}.items", mixed=False)
    yield from _pattern_causes(part, path)


def _pattern_causes(schema: Json, path: str) -> Iterator[Cause]:
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return
    why = ""
    if _NOT_RE2.search(pattern):
        why = "error parsing regexp: invalid or unsupported Perl syntax"
    else:
        try:
            custom_checker({"type": "string", "pattern": pattern})
        except ValueError:
            why = f"error parsing regexp: `{pattern}`"
    if why:
        text = f"must be a valid regular expression, but isn't: {why}"
        yield bad_value(f"{path}.pattern", pattern, text)


def _list_causes(schema: Json, path: str) -> Iterator[Cause]:
    items = schema.get("items")
    if schema.get("type") == "array":
        if isinstance(items, list):
            why = "items must be a schema object and not an array"
            yield forbidden_field(f"{path}.items", why)
            return
        if not items:
            yield required(f"{path}.items", "must be specified")
            return
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if kind is not None and kind not in _LIST_TYPES:
        yield not_supported(f"{path}.x-kubernetes-list-type", kind, _LIST_TYPES)
    if kind != "map":
        if keys:
            why = "must be map if x-kubernetes-list-map-keys is non-empty"
            yield required(f"{path}.x-kubernetes-list-type", why)
    elif not keys:
        why = "must not be empty if x-kubernetes-list-type is map"
        yield required(f"{path}.x-kubernetes-list-map-keys", why)
    elif isinstance(items, dict):
        yield from _key_causes(items, keys, path)
    if kind == "set" and isinstance(items, dict) and items.get("type") in ("object", "array"):
        inner = "map" if items["type"] == "object" else "list"
        name = f"x-kubernetes-{inner}-type"
        if items.get(name) != "atomic":
            why = "must be atomic as item of a list with x-kubernetes-list-type=set"
            yield bad_value(f"{path}.items.{name}", items.get(name), why)


def _key_causes(items: Json, keys: list[str], path: str) -> Iterator[Cause]:
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield bad_value(f"{path}.items.type", items.get("type", ""), why)
        return
    properties = items.get("properties") or {}
    if any(key not in properties for key in keys):
        why = f"Invalid value: {json.dumps(keys)}: entries must all be names of item properties"
        yield Cause("FieldValueInvalid", why, f"{path}.x-kubernetes-list-map-keys")
    for key in keys:
        child = properties.get(key)
        if not isinstance(child, dict):
            continue
        where = f"{path}.items.properties[{key}]"
        if child.get("type") in ("object", "array"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield bad_value(f"{where}.type", child["type"], why)
        elif "default" not in child and key not in (items.get("required") or ()):
            why = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be "
                "a required property"
            )
            yield required(f"{where}.default", why)


def _default_causes(schema: Json, path: str) -> Iterator[Cause]:
    """A default must be valid where it stands, as it stands: nothing is filled in before."""
    if "default" in schema:
        yield from _one_default(schema, f"{path}.default")
    for name, child in (schema.get("properties") or {}).items():
        yield from _default_causes(child, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _default_causes(schema[name], f"{path}.{name}")


def _one_default(schema: Json, path: str) -> Iterator[Cause]:
    value = schema["default"]
    node = custom(schema)
    if isinstance(value, (dict, list)):
        pruned = duplicate(value)
        if prune({"": pruned}, custom({"type": "object", "properties": {"": schema}}), nulls=False):
            shown = json.dumps(value, separators=(",", ":"))
            why = f"Invalid value: {shown}: must not have unknown fields"
            yield Cause("FieldValueInvalid", why, path)
    checker = custom_checker(schema)
    found = causes_of(checker, value) if checker is not None else []
    for cause in found:
        below = "" if cause.field == "<nil>" else f".{cause.field}"
        message = cause.message.replace(f"{cause.field} in body", " in body")
        yield Cause(cause.reason, message, path + below)
    if not found:
        for cause in rule_causes(value, None, node):
            yield Cause(cause.reason, cause.message, path)
