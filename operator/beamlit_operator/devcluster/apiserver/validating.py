"""Checks an object against its schema with jsonschema-rs and says what is wrong as Kubernetes does.

The fast path is one call that answers yes. Only for a refused object are the errors gathered and
translated to causes with field paths.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Protocol

import jsonschema_rs

from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    not_supported,
    required,
    show,
)
from beamlit_operator.devcluster.apiserver.schemas import definitions
from beamlit_operator.kube import Json

_REF = "#/$defs/"

_KEPT = (
    "type",
    "required",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)

# fmt: off
FORMATS = frozenset((
    "date-time", "date", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "byte", "duration",
    "float", "double", "cidr", "mac", "password",
))
# fmt: on


class Checker(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any) -> bool: ...

    def iter_errors(self, instance: Any) -> Iterable[jsonschema_rs.ValidationError]: ...


def custom_checker(source: Json | None) -> Checker | None:
    """The checker of an ``openAPIV3Schema``; None when everything is allowed.

    Raises:
        ValueError: the schema is no schema (for example, a pattern that does not compile).
    """
    if not source:
        return None
    return _compile(_plain(source, root=True))


def builtin_checker(name: str) -> Checker:
    """The checker of a built-in definition."""
    needed: dict[str, Json] = {}
    _collect(name, needed)
    return _compile({"$ref": _REF + name, "$defs": needed})


def _compile(schema: Json) -> Checker:
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        formats={
            "byte": _is_base64,
            "duration": lambda value: bool(_DURATION.fullmatch(value)),
            "mac": lambda value: bool(_MAC.fullmatch(value)),
            "cidr": _is_cidr,
        },
    )


_DURATION = re.compile(
    r"[-+]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*)"
)
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def _is_base64(value: str) -> bool:
    return _BASE64.fullmatch(value.replace("\n", "").replace("\r", "")) is not None


def _is_cidr(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


def _plain(source: Json, *, root: bool = False) -> Json:
    """A Kubernetes OpenAPI v3 schema as JSON Schema."""
    plain: Json = {key: source[key] for key in _KEPT if key in source}
    for bound in ("Minimum", "Maximum"):
        # OpenAPI's exclusive bounds are flags beside the bound.
        if source.get(f"exclusive{bound}") is True:
            plain[f"exclusive{bound}"] = plain.pop(bound.lower())
        else:
            plain.pop(f"exclusive{bound}", None)
    if source.get("x-kubernetes-int-or-string"):
        plain["type"] = ["integer", "string"]
    if source.get("nullable") and "type" in plain:
        plain["type"] = [*_as_list(plain["type"]), "null"]
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    _add_format(plain, source)
    if "properties" in source:
        plain["properties"] = {
            name: _plain(child)
            for name, child in source["properties"].items()
            if not (root and name in ("apiVersion", "kind", "metadata"))
        }
    if isinstance(source.get("additionalProperties"), dict):
        plain["additionalProperties"] = _plain(source["additionalProperties"])
    if isinstance(source.get("items"), dict):
        plain["items"] = _plain(source["items"])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in source:
            plain[key] = [_plain(child) for child in source[key]]
    if isinstance(source.get("not"), dict):
        plain["not"] = _plain(source["not"])
    return plain


def _add_format(plain: Json, source: Json) -> None:
    """Formats of numbers are bounds; JSON Schema knows formats of strings only."""
    name = source.get("format")
    if name in _BITS:
        bound = 1 << _BITS[name]
        plain["minimum"] = max(plain.get("minimum", -bound), -bound)
        plain["maximum"] = min(plain.get("maximum", bound - 1), bound - 1)
    elif name in FORMATS:
        plain["format"] = name


_BITS = {"int32": 31, "int64": 63}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _collect(name: str, needed: dict[str, Json]) -> None:
    if name in needed:
        return
    source = definitions()[name]
    if name.endswith(("JSONSchemaProps", ".FieldsV1")):
        needed[name] = {"type": "object"}
        return
    if name.endswith("intstr.IntOrString"):
        needed[name] = {"type": ["integer", "string"]}
        return
    if name.endswith("v1.MicroTime"):
        needed[name] = {"type": ["string", "null"], "pattern": MICRO_TIME.pattern}
        return
    if name.endswith("resource.Quantity"):
        needed[name] = {"type": ["number", "string"], "pattern": QUANTITY.pattern}
        return
    needed[name] = {}
    needed[name] = _typed(source, needed)


QUANTITY = re.compile(
    r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$"
)
"""How a resource quantity is written."""


MICRO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[-+]\d\d:\d\d)$")
"""A time with exactly six decimals, as Leases and Events have it."""


def _typed(source: Json, needed: dict[str, Json]) -> Json:
    if "$ref" in source:
        _collect(source["$ref"].removeprefix(_REF), needed)
        return {"$ref": source["$ref"]}
    plain: Json = {key: source[key] for key in ("type", "required") if key in source}
    _add_format(plain, source)
    if "properties" in source:
        plain["properties"] = {
            name: _typed(child, needed) for name, child in source["properties"].items()
        }
    for key in ("additionalProperties", "items"):
        if isinstance(source.get(key), dict):
            plain[key] = _typed(source[key], needed)
    return plain


def causes_of(checker: Checker, item: Json) -> list[Cause]:
    """What is wrong with ``item``, empty when nothing is."""
    if checker.is_valid(item):
        return []
    found: dict[tuple[str, str], tuple[int, Cause]] = {}
    for number, error in enumerate(checker.iter_errors(item)):
        name = str(error.kind.name)
        # Of the rules for a text Kubernetes reports the first that is broken.
        rank = _TEXT_RULES.index(name) if name in _TEXT_RULES else 0
        group = "text" if name in _TEXT_RULES else f"{number}"
        cause = _translate(error, item)
        key = (cause.field, group)
        if key not in found or rank < found[key][0]:
            found[key] = (rank, cause)
    return [cause for _, cause in found.values()][:64]


_TEXT_RULES = ("maxLength", "minLength", "pattern")


def field_path(path: Iterable[str | int]) -> str:
    """``spec.containers[0].image`` out of ``["spec", "containers", 0, "image"]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_$][\w$-]*", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step}]"
    return text


def _translate(error: jsonschema_rs.ValidationError, item: Json) -> Cause:
    path = list(error.instance_path)
    field = field_path(path) or "<nil>"
    kind: Any = error.kind
    value: Any = error.instance
    name = str(kind.name)
    match name:
        case "required":
            return required(field_path([*path, kind.property]))
        case "enum":
            return not_supported(field, value, [o for o in _as_list(kind.options) if o is not None])
        case "type":
            expected = _expected(kind)
            shown = _type_name(value)
            return Cause(
                "FieldValueTypeInvalid",
                f"Invalid value: {show(shown)}: {field} in body must be of type {expected}: "
                f"{show(shown)}",
                field,
            )
        case "pattern":
            return bad_value(field, value, f"{field} in body should match '{kind.pattern}'")
        case "format":
            return Cause(
                "FieldValueTypeInvalid",
                f"Invalid value: {show(value)}: {field} in body must be of type {kind.format}: "
                f"{show(value)}",
                field,
            )
        case "minLength":
            return bad_value(
                field, value, f"{field} in body should be at least {kind.limit} chars long"
            )
        case "maxLength":
            return Cause(
                "FieldValueTooLong", f"Too long: may not be more than {kind.limit} bytes", field
            )
        case "minItems" | "minProperties":
            noun = "items" if name == "minItems" else "properties"
            return bad_value(
                field, len(value), f"{field} in body should have at least {kind.limit} {noun}"
            )
        case "maxItems":
            return Cause(
                "FieldValueTooMany",
                f"Too many: {len(value)}: must have at most {kind.limit} items",
                field,
            )
        case "maxProperties":
            return Cause(
                "FieldValueTooMany",
                f"Too many: {len(value)}: must have at most {kind.limit} items",
                field,
            )
        case "minimum":
            return bad_value(
                field, value, f"{field} in body should be greater than or equal to {kind.limit}"
            )
        case "maximum":
            return bad_value(
                field, value, f"{field} in body should be less than or equal to {kind.limit}"
            )
        case "exclusiveMinimum":
            return bad_value(field, value, f"{field} in body should be greater than {kind.limit}")
        case "exclusiveMaximum":
            return bad_value(field, value, f"{field} in body should be less than {kind.limit}")
        case "multipleOf":
            return bad_value(
                field, value, f"{field} in body should be a multiple of {kind.multiple_of}"
            )
        case "uniqueItems":
            return Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", field)
        case "oneOf":
            return bad_value(
                field, value, f'"{field}" must validate one and only one schema (oneOf)'
            )
        case "anyOf":
            return bad_value(field, value, f'"{field}" must validate at least one schema (anyOf)')
        case "not":
            return bad_value(field, value, f'"{field}" must not validate the schema (not)')
        case _:
            return bad_value(field, value, error.message)


def _expected(kind: Any) -> str:
    return ",".join(sorted(str(item) for item in _as_list(kind.types) if str(item) != "null"))


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)
