"""Protobuf messages put together from parts that are serialised already. Pure.

The route table has thousands of parts and changes one at a time. A serialised message is its fields
one after the other, so the table is joined from the bytes of its parts
(https://protobuf.dev/programming-guides/encoding): what did not change is not serialised again.
"""

from __future__ import annotations

from typing import Any

from beamlit_operator.gateway.protos import Message

_LENGTH_DELIMITED = 2


class Field:
    """A field of a message type that holds text or another message."""

    def __init__(self, message: Any, name: str) -> None:
        self._tag = _tag(message.DESCRIPTOR, name)

    def __call__(self, content: bytes) -> bytes:
        """The field with this content; again and again for a repeated one."""
        return _field(self._tag, content)


class MapField:
    """A field that maps text to messages: on the wire, pairs of a key and a value."""

    def __init__(self, message: Any, name: str) -> None:
        self._tag = _tag(message.DESCRIPTOR, name)
        pair = message.DESCRIPTOR.fields_by_name[name].message_type
        self._key, self._value = _tag(pair, "key"), _tag(pair, "value")

    def __call__(self, key: str, value: bytes) -> bytes:
        """One entry."""
        return _field(self._tag, _field(self._key, key.encode()) + _field(self._value, value))


def _tag(descriptor: Any, name: str) -> bytes:
    return _varint(descriptor.fields_by_name[name].number << 3 | _LENGTH_DELIMITED)


def _field(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, _varint(len(content)), content))


def serialized(message: Message) -> bytes:
    """The bytes of a message, the same ones every time."""
    found: bytes = message.SerializeToString(deterministic=True)
    return found


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
