"""Whose turn it is to write a folder of a cache: one fetcher at a time, on whatever machine.

The lock is flock(2)'s on a file in the folder. It ends with the process that holds it, however that
ends. On NFS it is known to all clients since Linux 2.6.12, and is given up by the server when a
client is not heard of for its lease time (90 s by default).

| the folder                            | what happens                                           |
|---------------------------------------|--------------------------------------------------------|
| nobody writes it                      | it is ours                                             |
| another writes it                     | it is waited for, and told how far the other is        |
| another holds it, and nothing moves   | after :data:`STALLED_SECONDS` an error names who it is |
| was removed while it was waited for   | it is made anew                                        |
| cannot be written, holds the revision | it is read without a turn                              |
| cannot be written                     | an error says so                                       |
| is a link, or its records are         | refused: links may lead anywhere                       |

How long another may take is bounded by its own timeouts; one that was stopped (a frozen machine)
has none, hence the limit here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from beamlit_operator.origins.errors import OriginError, OriginReason, one_line
from beamlit_operator.origins.fetching.progress import PORT_VARIABLE
from beamlit_operator.origins.listing import RESERVED
from beamlit_operator.origins.sizes import mebibytes

LOCK = "lock"
USED = "used"

STALLED_SECONDS = 900.0
"""For how long the one that holds a folder may leave it as it is."""

_PATIENCE_SECONDS = 1.0
"""A turn that is over by then is not worth a line: somebody only looked."""

_TELL_SECONDS = 10.0
_FIRST_PAUSE, _LAST_PAUSE = 0.005, 0.25


@contextlib.contextmanager
def turn(
    directory: Path, *, may_be_read: Callable[[], bool], report: Callable[[str], None]
) -> Iterator[None]:
    """Holds ``directory`` until the end of the block, and notes that it is used.

    Args:
        directory: the folder, made if missing.
        may_be_read: whether it already holds what is wanted.
        report: takes lines for people.

    Raises:
        OriginError: it cannot be written, or another holds it and does nothing.
        OSError: the disk's other failures.
    """
    own = directory / RESERVED
    try:
        _refuse_links(directory, own)
        own.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(own, report)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        if not may_be_read():
            raise _not_writable(directory, error) from error
        yield
        return
    try:
        _note_use(own)
        yield
        _note_use(own)
    finally:
        os.close(descriptor)


def _refuse_links(*folders: Path) -> None:
    for folder in folders:
        if folder.is_symlink():
            raise OriginError(
                OriginReason.UNSAFE_PATH,
                f"{folder} is a link, which no folder of a cache may be: remove it",
            )


def _locked(own: Path, report: Callable[[str], None]) -> int:
    """A descriptor that holds the lock of the folder that has this name now."""
    while True:
        own.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(own / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _wait(descriptor, own, report)
            if _is_still(descriptor, own / LOCK):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, os.uname().nodename.encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # It was tidied away meanwhile.


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _wait(descriptor: int, own: Path, report: Callable[[str], None]) -> None:
    started = told = time.monotonic()
    pause = _FIRST_PAUSE
    while not _taken(descriptor):
        if time.monotonic() - started >= _PATIENCE_SECONDS:
            break
        time.sleep(pause)
        pause = min(pause * 2, _LAST_PAUSE)
    else:
        return
    seen, moved = _measured(own), time.monotonic()
    with contextlib.ExitStack() as stack:
        port = int(os.environ.get(PORT_VARIABLE) or 0)
        if port:
            from beamlit_operator.origins.fetching.progress_server import served

            stack.enter_context(served(port, lambda: _document(own)))
        report(f"{_holder(descriptor)} fetches the same files into the cache: waiting for it")
        while not _taken(descriptor):
            time.sleep(_LAST_PAUSE)
            now = time.monotonic()
            if now - told < _TELL_SECONDS:
                continue
            told, before, seen = now, seen, _measured(own)
            if seen != before:
                moved = now
                report(f"waiting for {_holder(descriptor)}: {mebibytes(seen[0])} are there")
            elif now - moved >= STALLED_SECONDS:
                raise OriginError(
                    OriginReason.LOCAL_DISK,
                    f"{_holder(descriptor)} holds {own.parent} of the cache, and has written"
                    f" nothing for {STALLED_SECONDS / 60:.0f} minutes: delete that pod",
                )


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """The pod whose turn it is, as it wrote itself down; good for a line and no more."""
    name = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    return f"pod {one_line(name)}" if name.isprintable() and name else "another pod"


def _measured(own: Path) -> tuple[int, int]:
    """Bytes on the disk that belong to what is being fetched, and how many files they are."""
    size = count = 0
    for folder, _, files in os.walk(own):
        for name in files:
            with contextlib.suppress(OSError):
                # What was written, not what was made room for.
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512
                count += 1
    return size, count


def _document(own: Path) -> dict[str, int]:
    """What a fetcher tells of its own fetch, of the other's; and that it is waited for."""
    total = 0
    for record in own.glob("work-*/wanted.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            total = int(json.loads(record.read_text())["bytes"])
    return {"fetchedBytes": min(_measured(own)[0], total), "totalBytes": total, "waiting": 1}


def _note_use(own: Path) -> None:
    """Its time is when a pod last started from here: what was not used for longest goes first."""
    with contextlib.suppress(OSError):
        (own / USED).touch()


def _not_writable(directory: Path, error: OSError) -> OriginError:
    return OriginError(
        OriginReason.LOCAL_DISK,
        f"{directory} cannot be written by user {os.getuid()} ({error.strerror}): the volume of the"
        " cache has to be writable by this user or group, as its claim's storage class decides",
    )
