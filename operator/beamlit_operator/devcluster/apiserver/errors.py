"""The refusals of the API server: one function per reason, with Kubernetes' codes and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.kube import ApiError, Json


@dataclass(frozen=True, slots=True)
class Cause:
    """One violated field: ``reason`` as in ``details.causes[].reason``, ``field`` a dotted path."""

    reason: str
    message: str
    field: str

    def as_json(self) -> Json:
        """The entry of ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def required(field: str, detail: str = "") -> Cause:
    """The field must be set."""
    return Cause("FieldValueRequired", f"Required value{': ' + detail if detail else ''}", field)


def bad_value(field: str, value: Any, detail: str) -> Cause:
    """The field's value is not allowed."""
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {detail}", field)


def forbidden_field(field: str, detail: str) -> Cause:
    """The field may not be set (here, or now)."""
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def not_supported(field: str, value: Any, allowed: Iterable[Any]) -> Cause:
    """The field's value is not one of the enumerated ones."""
    listed = ", ".join(show(item) for item in allowed)
    return Cause(
        "FieldValueNotSupported",
        f"Unsupported value: {show(value)}: supported values: {listed}",
        field,
    )


def show(value: Any) -> str:
    """A value as Kubernetes prints it in messages: quoted strings, ``true``, short for objects."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, dict):
        return '"object"'
    if isinstance(value, list):
        return '"array"'
    return str(value)


def status_body(error: ApiError) -> Json:
    """The ``v1`` Status object that travels for ``error``."""
    body: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "code": error.status,
    }
    if error.reason:
        body["reason"] = error.reason
    if error.details:
        body["details"] = dict(error.details)
    return body


def _details(group: str, plural: str, name: str, **more: Any) -> Mapping[str, Any]:
    details = {"name": name, "group": group, "kind": plural, **more}
    return {key: value for key, value in details.items() if value}


def qualified(group: str, plural: str) -> str:
    """``deployments.apps``, or ``pods`` for the core group."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(
        404,
        "NotFound",
        f'{qualified(group, plural)} "{name}" not found',
        details=_details(group, plural, name),
    )


class UnknownPathError(ApiError):
    """404 for a path that nobody serves: answered as plain text."""


def no_such_path(group: str | None = None) -> ApiError:
    """404: no such resource is served. ``group`` None, or one of custom resources: in plain text,
    as a real API server does it where no built-in group is asked."""
    if group is None or ("." in group and not group.endswith(".k8s.io")):
        return UnknownPathError(404, "NotFound", "404 page not found")
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """409: the name is taken."""
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(group, plural)} "{name}" already exists',
        details=_details(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiError:
    """409: the object changed since it was read, or a precondition does not hold."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}',
        details=_details(group, plural, name),
    )


def invalid(group: str, kind: str, name: str, causes: Iterable[Cause]) -> ApiError:
    """422: the object breaks its schema or a rule."""
    found = list(dict.fromkeys(causes))
    lines = [f"{cause.field}: {cause.message}" for cause in found]
    listed = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    return ApiError(
        422,
        "Invalid",
        f'{qualified(group, kind)} "{name}" is invalid: {listed}',
        details=_details(group, kind, name, causes=[cause.as_json() for cause in found]),
    )


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """403: understood, and refused."""
    return ApiError(
        403,
        "Forbidden",
        f'{qualified(group, plural)} "{name}" is forbidden: {why}',
        details=_details(group, plural, name),
    )


def not_allowed(what: str) -> ApiError:
    """405: the resource does not have this verb."""
    return ApiError(405, "MethodNotAllowed", f"{what} is not supported by this API server")


def not_implemented(what: str) -> ApiError:
    """501: Kubernetes has it, the embedded cluster does not."""
    return ApiError(
        501, "NotImplemented", f"the embedded cluster does not implement {what}; use a real cluster"
    )


def unsupported_media(media_type: str, allowed: Iterable[str]) -> ApiError:
    """415: the body's format is unknown."""
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format ({media_type}) - "
        f"accepted media types include: {', '.join(allowed)}",
    )


def expired(detail: str) -> ApiError:
    """410: the history does not reach back that far."""
    return ApiError(410, "Expired", detail)
