"""The beginnings of weight files: what safetensors and GGUF say of themselves before the weights.

Pure. Only a file's first bytes are here, out of a store and written by strangers: every length and
count in them is checked against what is there before it is used, and whatever is wrong raises
:class:`UnreadableError` or ends the reading.

Own code, since the libraries want the file: `safetensors` opens a path or takes all of its bytes,
`gguf` maps a path and needs numpy, and `huggingface_hub` reads headers of its own Hub only. Here
the weights stay where they are, and a header is a few lines to read:

safetensors (huggingface.co/docs/safetensors, "Format"): 8 bytes length, little-endian, then that
many bytes of JSON: `{name: {dtype, shape, data_offsets: [begin, end]}}`.

GGUF (github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, number of tensors, number
of key-value pairs, and these, each typed. Tokens of the vocabulary are among them, megabytes long;
what is asked for here stands before them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

MAX_HEADER = 4 * 2**20
"""Bytes of a header that are read at most: a sixteenth of a second of this process to parse. The
format allows 100 MB; a file of a thousand tensors has a tenth of one."""

GGUF_HEAD = 2**18
"""Bytes of a GGUF file that are read: general keys and those of the architecture come first."""

TYPE_BYTES: Mapping[str, int] = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of a number of each type of safetensors."""

GgufValue = int | float | str | bool | list[int]


class UnreadableError(Exception):
    """The bytes are not what the file's name says; a sentence without their content."""


def json_object(text: bytes) -> Mapping[str, Any]:
    """The JSON object in ``text``.

    Raises:
        UnreadableError: it is none, or too deep, or has numbers that nobody can mean.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableError("is not readable JSON") from None
    if not isinstance(found, dict):
        raise UnreadableError("is JSON, but no object")
    return found


def header_length(start: bytes) -> int:
    """How many bytes of JSON a safetensors file has after its first eight.

    Raises:
        UnreadableError: it is none, or longer than what is read of one.
    """
    if len(start) < 9 or start[8:9] != b"{":
        raise UnreadableError("does not begin as a safetensors file")
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_HEADER:
        raise UnreadableError(f"has a header of more than {MAX_HEADER} bytes")
    return int(length)


def tensor_bytes(header: bytes, *, data: int) -> dict[str, int]:
    """Bytes of weights by type, from a safetensors header.

    Args:
        header: the JSON.
        data: how many bytes come after it, by the file's size.

    Raises:
        UnreadableError: it tells of something that cannot be in this file.
    """
    found: dict[str, int] = {}
    for name, tensor in json_object(header).items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_whole, offsets))):
            raise UnreadableError("has a tensor without its place")
        begin, end = offsets
        dtype = tensor.get("dtype")
        if not (0 <= begin <= end <= data and isinstance(dtype, str) and len(dtype) <= 16):
            raise UnreadableError("has a tensor that is not within the file")
        found[dtype] = found.get(dtype, 0) + end - begin
    if sum(found.values()) > data:
        raise UnreadableError("has tensors that are larger than the file")
    return found


def gguf_metadata(head: bytes) -> dict[str, GgufValue]:
    """The metadata at the beginning of a GGUF file, as far as ``head`` goes. Lists of texts, such
    as the vocabulary, are left out.

    Raises:
        UnreadableError: it is no GGUF file of version 2 or 3, little-endian.
    """
    if head[:4] != b"GGUF" or len(head) < 24:
        raise UnreadableError("does not begin as a GGUF file")
    version, _, pairs = struct.unpack_from("<IQQ", head, 4)
    if version not in (2, 3):
        raise UnreadableError("is a GGUF file of an unknown version or byte order")
    reader = _Pairs(head, 24)
    found: dict[str, GgufValue] = {}
    try:
        for _ in range(pairs):
            key = reader.text()
            value = reader.value(reader.number("I"))
            if value is not None:
                found[key] = value
    except _EndError:
        pass
    return found


class _EndError(Exception):
    """There is no more to read, or none that makes sense."""


_SCALARS = ("B", "b", "H", "h", "I", "i", "f", "?", None, None, "Q", "q", "d")
"""By number of GGUF's types; 8 is a text, 9 an array."""

_TEXT, _ARRAY = 8, 9

_MAX_LIST = 1024
"""Numbers of a list that are kept: one for each layer."""


class _Pairs:
    """Reads values one after the other."""

    def __init__(self, head: bytes, at: int) -> None:
        self._head = head
        self._at = at

    def number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        self._need(size)
        (value,) = struct.unpack_from(f"<{code}", self._head, self._at)
        self._at += size
        return value

    def text(self) -> str:
        length = self.number("Q")
        self._need(length)
        value = self._head[self._at : self._at + length].decode(errors="replace")
        self._at += length
        return value

    def value(self, kind: int) -> GgufValue | None:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._list(self.number("I"), self.number("Q"))
        scalar: GgufValue = self.number(_scalar(kind))
        return scalar

    def _list(self, kind: int, count: int) -> list[int] | None:
        if kind == _TEXT:
            for _ in range(count):
                length = self.number("Q")
                self._need(length)
                self._at += length
            return None
        code = _scalar(kind)
        size = struct.calcsize(f"<{code}") * count
        self._need(size)
        self._at += size
        if count > _MAX_LIST or code in "fd":
            return None
        return list(struct.unpack_from(f"<{count}{code}", self._head, self._at - size))

    def _need(self, count: int) -> None:
        if count > len(self._head) - self._at:
            raise _EndError


def _scalar(kind: int) -> str:
    code = _SCALARS[kind] if kind < len(_SCALARS) else None
    if code is None:
        raise _EndError
    return code


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
