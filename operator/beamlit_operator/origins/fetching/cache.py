"""A cache of models' files on a volume: its folders, and how they are removed.

One folder for each identity, which is 32 hexadecimal digits (:mod:`workloads.cache`)::

    VOLUME/<identity>/             files, and .beamlit/ with the fetcher's records (:mod:`.staging`)
    VOLUME/.gone-<identity>-<n>/   was a folder; is being removed

Names on the volume are not trusted: only folders of such names are touched, no link is followed on
the way, and what a record says decides nothing but whether the folder counts as complete. A folder
is removed under its lock, and has another name before the first of its files goes: who is killed in
between leaves something that nobody takes for a model.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from beamlit_operator.origins.fetching.eviction import Entry
from beamlit_operator.origins.fetching.turns import LOCK, USED
from beamlit_operator.origins.listing import RESERVED

IDENTITY = re.compile(r"[0-9a-f]{32}")
_GONE = re.compile(r"\.gone-[0-9a-f]{32}-[0-9a-f]+")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MAX_MARKER = 64 * 2**20


def entries(root: Path) -> list[Entry]:
    """The folders of a cache, by name.

    Raises:
        OSError: the volume cannot be read.
    """
    with _opened(root) as volume:
        names = sorted(name for name in os.listdir(volume) if IDENTITY.fullmatch(name))
        found = (_entry(volume, name) for name in names)
        return [entry for entry in found if entry is not None]


def remove(root: Path, name: str, *, condemned: Callable[[Entry], bool]) -> bool:
    """Removes one folder, if nobody fetches into it and ``condemned`` still says so under its lock.

    Returns:
        Whether it is gone.

    Raises:
        OSError: it cannot be removed.
    """
    if IDENTITY.fullmatch(name) is None:
        return False
    with _opened(root) as volume, contextlib.ExitStack() as stack:
        if not _lock(volume, name, stack):
            return False
        entry = _entry(volume, name)
        if entry is None or not condemned(entry):
            return False
        gone = f".gone-{name}-{secrets.token_hex(4)}"
        os.rename(name, gone, src_dir_fd=volume, dst_dir_fd=volume)
        os.fsync(volume)
        shutil.rmtree(gone, dir_fd=volume)
        return True


def remove_gone(root: Path) -> None:
    """Removes what an interrupted removal has left.

    Raises:
        OSError: it cannot be removed.
    """
    with _opened(root) as volume:
        for name in os.listdir(volume):
            if _GONE.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):  # Another is at it, too.
                    shutil.rmtree(name, dir_fd=volume)


def remove_leftovers(root: Path) -> None:
    """Makes room, as far as that takes nothing from anybody: what interrupted removals left, and
    folders that are not complete and that nobody fetches into. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        remove_gone(root)
    for entry in entries(root):
        if not entry.complete:
            with contextlib.suppress(OSError):
                remove(root, entry.name, condemned=lambda found: not found.complete)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(volume: int, name: str, stack: contextlib.ExitStack) -> bool:
    """Takes a folder's lock until the stack ends; False while another has it.

    A folder without records has no lock: nothing was fetched into it.
    """
    own = _descend(volume, name, RESERVED, stack)
    if own is None:
        return True
    try:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666, dir_fd=own)
    except FileNotFoundError:
        return False  # Somebody else has removed it this moment.
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # By its name once more: the folder may have been removed before, and made anew by a fetcher.
    now = _descend(volume, name, RESERVED, stack)
    try:
        return now is not None and os.path.samestat(
            os.fstat(lock), os.stat(LOCK, dir_fd=now, follow_symlinks=False)
        )
    except FileNotFoundError:
        return False


def _entry(volume: int, name: str) -> Entry | None:
    """What a folder is; None if it is none, or gone."""
    with contextlib.ExitStack() as stack:
        folder = _descend(volume, name, None, stack)
        if folder is None:
            return None
        own = _descend(volume, name, RESERVED, stack)
        marker = _marker(own) if own is not None else None
        return Entry(
            name=name,
            complete=marker is not None,
            bytes=_size(folder),
            used=_used(folder, own),
            holds=str((marker or {}).get("revision", "")),
        )


def _descend(volume: int, name: str, below: str | None, stack: contextlib.ExitStack) -> int | None:
    """A folder, or a folder in it, without following a link on the way; None if there is none."""
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=volume)
        stack.callback(os.close, descriptor)
        if below is not None:
            descriptor = os.open(below, _FOLDER, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
    except OSError:
        return None
    return descriptor


def _marker(own: int) -> dict[str, object] | None:
    try:
        # Not blocking: it may be a pipe that somebody has put there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open("published.json", flags, dir_fd=own)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        try:
            content = json.loads(file.read(_MAX_MARKER))
        except (OSError, ValueError, RecursionError):
            return None
    known = isinstance(content, dict) and isinstance(content.get("files"), dict)
    return content if known else None


def _used(folder: int, own: int | None) -> float:
    with contextlib.suppress(OSError):
        if own is not None:
            return os.stat(USED, dir_fd=own, follow_symlinks=False).st_mtime
    return os.fstat(folder).st_mtime


def _size(folder: int) -> int:
    """Bytes on the disk below a folder."""
    size = 0
    for _, _, files, descriptor in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        for name in files:
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                size += found.st_blocks * 512
    return size
