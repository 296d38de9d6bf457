"""Lays the archives of an OCI image or artifact over each other, as container engines do.

| in a layer               | what happens (OCI Image Spec, layer.md)                              |
|--------------------------|----------------------------------------------------------------------|
| a file                   | is there, instead of what layers below have under its name           |
| ``.wh.NAME``, a whiteout | NAME of the layers below, file or folder, is not there any more      |
| ``.wh..wh..opq``         | nothing of the layers below is left in its folder                    |

Each layer is unpacked for itself and as carefully as any archive (:mod:`.archives`); of an image
only the model's folder is looked at, so that what else is in it can neither harm nor refuse it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename, dirname

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.archives import Unpacker
from beamlit_operator.origins.listing import OriginFile

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Laid:
    """A file of the model, and where it was unpacked."""

    file: OriginFile
    where: Path


def lay(
    archives: Sequence[OriginFile],
    *,
    found: Callable[[OriginFile], Path],
    into: Path,
    place: str,
    report: Callable[[str], None],
) -> list[Laid]:
    """Unpacks the layers and returns what is there in the end.

    Args:
        archives: those that are ``packed``, the lowest first.
        found: where each lies.
        into: a folder to unpack in; what is in it is removed.
        place: the origin, for messages.
        report: takes lines for people.

    Raises:
        OriginError: one of them is not safe or not whole, or no file is left.
        OSError: the disk's failures.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    there: dict[str, Laid] = {}
    for number, archive in enumerate(archives):
        report(f"unpacking {archive.path}")
        folder = into / str(number)
        folder.mkdir()
        unpacker = Unpacker(folder, taken=(), place=place, only=archive.packed or "")
        unpacker.unpack(archive.path, found(archive))
        there = laid_over(there, unpacker.files(), folder=folder, only=archive.packed or "")
    if not there:
        folders = sorted({archive.packed or "" for archive in archives})
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"{place} has no file in folder {folders[0]!r}: name the model's in the origin's path",
        )
    return list(there.values())


def laid_over(
    below: dict[str, Laid], layer: Iterable[OriginFile], *, folder: Path, only: str
) -> dict[str, Laid]:
    """What is there when a layer lies over others. Pure.

    Args:
        below: what is there without it, by path.
        layer: its files, with the names they have in it.
        folder: where they were unpacked.
        only: the folder of it that counts, which is taken off the names.
    """
    start = f"{only}/" if only else ""
    files: dict[str, Laid] = {}
    hidden: set[str] = set()
    emptied: set[str] = set()
    for each in layer:
        path = each.path.removeprefix(start)
        name, parent = basename(path), dirname(path)
        if name == _OPAQUE:
            emptied.add(parent)
        elif name.startswith(_WHITEOUT):
            gone = name.removeprefix(_WHITEOUT)
            hidden.add(f"{parent}/{gone}" if parent else gone)
        else:
            files[path] = Laid(OriginFile(path, each.size, "", path), folder / each.path)
    # A file in the place of a folder, or of one that is in the way of a folder.
    folders = {above for path in files for above in _above(path)}
    kept = {
        path: laid
        for path, laid in below.items()
        if path not in folders
        and not any(above in hidden or above in files for above in (path, *_above(path)))
        and not any(above in emptied for above in (*_above(path), ""))
    }
    return {**kept, **files}


def _above(path: str) -> list[str]:
    """The folders that a path stands in."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
