"""Pieces of schema that several kinds share, and what OpenAPI needs beyond pydantic."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from beamlit_operator.api import duration

_ADVICE = "x-advice"


def advice(words: str) -> dict[str, Any]:
    """The schema extension of a field with a pattern that says how its text is written: people are
    told that, and not the pattern."""
    return {_ADVICE: words}


def matching(pattern: str) -> str:
    """The CEL rule that refuses what a pattern refuses: both are Go's regular expressions."""
    quote = '"' if "'" in pattern else "'"
    return f"self.matches(r{quote}{pattern}{quote})"


def with_advice(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema, with a rule and its sentence in the place of a pattern that has advice."""
    if _ADVICE not in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key not in (_ADVICE, "pattern")}
    return rest | rules(rule(matching(schema["pattern"]), schema[_ADVICE]))


ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        json_schema_extra=advice(
            "write an object's name: lower-case letters, digits, '-' and '.', with a letter or "
            "digit first and last"
        ),
    ),
]
"""The name of a Kubernetes object (RFC 1123 subdomain)."""

LabelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra=advice(
            "write a name of at most 63 lower-case letters, digits, '-' and '.', with a letter or "
            "digit first and last"
        ),
    ),
]
"""A name that is also used as a label's value and in a URL, hence at most 63 characters."""

DisplayName = Annotated[str, Field(max_length=256)]

Duration = Annotated[
    str,
    Field(
        max_length=32,
        pattern=duration.PATTERN,
        json_schema_extra=advice(
            "write a duration as numbers with units (ms, s, m, h) and no spaces, such as 90s or "
            "1m30s"
        ),
    ),
]
"""A duration such as ``90s`` or ``1m30s``."""

IntOrString = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value),
    Field(max_length=32, json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""A number, or a string with a number; read as a string."""

FreeForm = Annotated[
    dict[str, Any],
    Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object of another API, kept as it is."""


def rule(expression: str, message: str, **more: str) -> dict[str, str]:
    """One CEL validation rule (``x-kubernetes-validations``)."""
    return {"rule": expression, "message": message, **more}


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """The schema extension that carries CEL rules."""
    return {"x-kubernetes-validations": list(entries)}


def list_map(*keys: str) -> dict[str, Any]:
    """The schema extension of a list whose items are identified by ``keys``."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def list_set() -> dict[str, Any]:
    """The schema extension of a list in which every value stands once."""
    return {"x-kubernetes-list-type": "set"}


def preserved_conditions() -> dict[str, Any]:
    """The schema extension of ``status.conditions``, merged by type."""
    return {**list_map("type"), "maxItems": 16}
