"""Reads Kubernetes' protobuf bodies: ``kubectl create`` sends built-in types that way.

Only requests are read; answers are JSON, which every client that sends protobuf accepts too. The
field numbers are in ``protobuf_fields.txt``, made from Kubernetes' own ``.proto`` files.
"""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.devcluster.apiserver.schemas import META, definitions
from beamlit_operator.kube import Json

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_API: Final = "io.k8s.api."

OTHERS: Final[dict[str, str]] = {
    "DeleteOptions": META + "DeleteOptions",
    "Scale": _API + "autoscaling.v1.Scale",
    "Binding": _API + "core.v1.Binding",
    "Eviction": _API + "policy.v1.Eviction",
    "TokenReview": _API + "authentication.v1.TokenReview",
    "TokenRequest": _API + "authentication.v1.TokenRequest",
    "SelfSubjectReview": _API + "authentication.v1.SelfSubjectReview",
    "SubjectAccessReview": _API + "authorization.v1.SubjectAccessReview",
    "SelfSubjectAccessReview": _API + "authorization.v1.SelfSubjectAccessReview",
    "SelfSubjectRulesReview": _API + "authorization.v1.SelfSubjectRulesReview",
    "LocalSubjectAccessReview": _API + "authorization.v1.LocalSubjectAccessReview",
}
"""Kinds that are sent but not stored, by name."""


class Field(NamedTuple):
    """One field of a message."""

    name: str
    type: str
    repeated: bool
    is_map: bool


@functools.cache
def _messages() -> dict[str, dict[int, Field]]:
    text = importlib.resources.files(__package__).joinpath("protobuf_fields.txt").read_text("utf-8")
    found: dict[str, dict[int, Field]] = {}
    for line in text.splitlines():
        name, *fields = line.split()
        found[name] = {}
        for field in fields:
            number, label, kind = field.split(":")
            found[name][int(number)] = Field(
                label, kind.lstrip("*%"), kind.startswith("*"), kind.startswith("%")
            )
    return found


@functools.cache
def _message_of(api_version: str, kind: str) -> str | None:
    if kind in OTHERS:
        return OTHERS[kind]
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": kind}
    for name, definition in definitions().items():
        if wanted in definition.get("x-kubernetes-group-version-kind", ()):
            return name
    return None


def decode(body: bytes) -> Json:
    """The object in a protobuf body.

    Raises:
        ApiError: 400 when it is malformed, or of a kind that is not known in protobuf.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not in Kubernetes' protobuf format")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        header = dict(_fields(_bytes(envelope.get(1, b""))))
        api_version, kind = (_bytes(header.get(n, b"")).decode() for n in (1, 2))
        name = _message_of(api_version, kind)
        if name is None or name not in _messages():
            raise bad_request(f"{api_version} {kind} cannot be sent as protobuf; send JSON")
        item = _message(name, _bytes(envelope.get(2, b"")))
    except (ValueError, IndexError, OverflowError, OSError, RecursionError, struct.error) as error:
        raise bad_request(f"the protobuf body is malformed: {error}") from error
    return {**item, "apiVersion": api_version, "kind": kind}


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each field, in order."""
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        wire = tag & 7
        if wire == 0:
            number, position = _varint(body, position)
            yield tag >> 3, number
            continue
        if wire == 2:
            size, position = _varint(body, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not used by Kubernetes")
        if position + size > len(body):
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, body[position : position + size]
        position += size


def _message(name: str, body: bytes) -> Any:
    special = _SPECIAL.get(name.removeprefix("io.k8s.apimachinery.pkg."))
    if special is not None:
        return special(dict(_fields(body)))
    known = _messages()[name]
    # A struct that Go embeds is not published; nothing is embedded in one in turn.
    published = definitions().get(name)
    declared = published.get("properties", {}) if published else {f.name for f in known.values()}
    item: Json = {}
    for number, raw in _fields(body):
        field = known.get(number)
        if field is None:
            continue
        if field.is_map:
            pair = dict(_fields(_bytes(raw)))
            key = _bytes(pair.get(1, b"")).decode()
            item.setdefault(field.name, {})[key] = _value(field.type, pair.get(2, b""))
            continue
        value = _value(field.type, raw)
        label = field.name
        if label not in declared:
            # Few fields ("Webhooks", "uID") have another spelling than their JSON.
            label = next((name for name in declared if name.lower() == label.lower()), label)
        if field.repeated:
            item.setdefault(label, []).append(value)
        elif label not in declared and isinstance(value, dict):
            # An embedded struct: its fields stand in the parent's JSON.
            item.update(value)
        elif value is not None and value != "":
            # Protobuf has every plain string, JSON only those that are not empty.
            item[label] = value
    if name.endswith(".Probe"):
        return {key: value for key, value in item.items() if value != 0}
    return item


def _value(kind: str, raw: int | bytes) -> Any:
    if kind == "i":
        number = raw if isinstance(raw, int) else 0
        return number - (1 << 64) if number >= 1 << 63 else number
    if kind == "b":
        return bool(raw)
    if kind == "s":
        return _bytes(raw).decode()
    if kind == "y":
        return base64.b64encode(_bytes(raw)).decode()
    if kind == "d":
        return struct.unpack("<d", _bytes(raw))[0]
    return _message(kind, _bytes(raw))


def _time(fields: dict[int, int | bytes]) -> str | None:
    seconds = fields.get(1)
    if not isinstance(seconds, int):
        return None
    moment = datetime.fromtimestamp(_value("i", seconds), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(fields: dict[int, int | bytes]) -> str | None:
    seconds, nanos = fields.get(1), fields.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        return None
    moment = datetime.fromtimestamp(_value("i", seconds), UTC).replace(microsecond=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _int_or_string(fields: dict[int, int | bytes]) -> int | str:
    if fields.get(1, 0) == 0:
        return int(_value("i", fields.get(2, 0)))
    return _bytes(fields.get(3, b"")).decode()


def _raw(fields: dict[int, int | bytes]) -> Any:
    text = _bytes(fields.get(1, b""))
    return json.loads(text) if text else None


_SPECIAL: Final[dict[str, Any]] = {
    "apis.meta.v1.Time": _time,
    "apis.meta.v1.MicroTime": _micro_time,
    "apis.meta.v1.FieldsV1": _raw,
    "runtime.RawExtension": _raw,
    "util.intstr.IntOrString": _int_or_string,
    "api.resource.Quantity": lambda fields: _bytes(fields.get(1, b"")).decode(),
}
