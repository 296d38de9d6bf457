"""Names that a volume does not tell apart: `Model.bin`, `model.bin` on SMB shares or a Mac's disk.

A store tells them apart, and there the second file would take the place of the first. So names that
may mean the same are tried on the volume itself; where nothing is alike, nothing is tried.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from beamlit_operator.origins.errors import OriginError, OriginReason


def check_spelling(paths: Iterable[str], *, folder: Path, place: str) -> None:
    """Looks for files of one model that would be one file on the volume.

    Args:
        paths: the model's files.
        folder: one to try names in; it is made, and removed again.
        place: where they go, for messages.

    Raises:
        OriginError: ``UnsafePath``.
        OSError: the disk's failures.
    """
    for one, other in _alike(paths):
        if is_same(one, other, folder=folder):
            raise OriginError(
                OriginReason.UNSAFE_PATH,
                f"{one!r} and {other!r} are one file on the volume of {place}, which does not tell"
                " such names apart: rename one of them at the origin, or use another volume",
            )


def is_same(one: str, other: str, *, folder: Path) -> bool:
    """Whether the volume of ``folder`` takes two paths for one."""
    try:
        (folder / one).parent.mkdir(parents=True)
        (folder / one).touch()
        return (folder / other).exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alike(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of files, or of a folder and what is like it, that differ in spelling only."""
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            part = "/".join(parts[:end])
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            before = seen.setdefault(key, part)
            if before != part:
                yield before, part
                break
