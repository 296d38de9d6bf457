"""Waiting until files are on the disk, so that they are there whatever happens to the machine.

One call for a file takes milliseconds, most of them for the file system's journal. So many files
are left to one call for the whole file system (syncfs(2)), where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

MANY = 32
"""Files for which one call for the whole file system is quicker, whatever else it has to write."""


def to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk (fsync(2)).

    Raises:
        OSError: they cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def all_to_disk(paths: Collection[Path], *, below: Path) -> None:
    """The same for all of these files and folders below one folder.

    Raises:
        OSError: they cannot be written.
    """
    if len(paths) > MANY and _synced(below):
        return
    for path in paths:
        to_disk(path)


def _synced(folder: Path) -> bool:
    """Waits for the whole file system of a folder; False where that cannot be asked for."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return bool(libc.syncfs(descriptor) == 0)
    finally:
        os.close(descriptor)
