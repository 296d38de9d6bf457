"""Objects as the operator keeps them: packed, and opened when they are looked at.

An object of a Deployment's size takes 52 KiB as Python's dicts, 24 KiB without what nobody reads of
it, and 4 KiB packed; to open one takes some ten microseconds. A cluster has five such objects for
every deployment, and most of them are not looked at for hours.
"""

from __future__ import annotations

import json
import marshal
import zlib
from dataclasses import dataclass
from typing import cast

from beamlit_operator.kube import Json


@dataclass(frozen=True, slots=True)
class Packed:
    """One version of one object."""

    uid: str
    version: str
    data: bytes

    def open(self) -> Json:
        """The object; a copy of the caller's own."""
        return cast("Json", marshal.loads(self.data))  # noqa: S302 - our own bytes

    def older(self, candidate: Json) -> bool:
        """Whether ``candidate`` is a later version, or another object.

        resourceVersions of one resource compare as numbers (KEP-5504); should a server's not be
        numbers, any other version counts as newer.
        """
        metadata = candidate["metadata"]
        if metadata.get("uid", "") != self.uid:
            return True
        version = str(metadata.get("resourceVersion", ""))
        if version.isdigit() and self.version.isdigit():
            return int(version) > int(self.version)
        return version != self.version


def packed(item: Json) -> Packed:
    """Packs an object as it is."""
    metadata = item["metadata"]
    uid, version = metadata.get("uid", ""), str(metadata.get("resourceVersion", ""))
    return Packed(uid or "", version, marshal.dumps(item))


def packed_names(names: tuple[str, ...]) -> bytes:
    """Packs the names of files. An origin may have 100,000: 8 MiB as they are, and a thirtieth
    packed, since they are much alike. The same names are the same bytes, which marshal does not
    promise."""
    return zlib.compress(json.dumps(names, separators=(",", ":")).encode(), 1)


def names_of(data: bytes) -> tuple[str, ...]:
    """The names that :func:`packed_names` packed."""
    return tuple(json.loads(zlib.decompress(data)))
