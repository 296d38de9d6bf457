"""A model's files in a PersistentVolumeClaim: which revision that is, and may they be served. The
same check is for those in an image that a kubelet mounts.

The operator looks (it cannot see files), a pod checks (it can). What a pod's check says:

| the folder                                       | result            |
|--------------------------------------------------|-------------------|
| is not there, is no folder, or holds no file     | NoObjects         |
| cannot be read                                   | AccessDenied      |
| has a link that leads out of it, or nowhere      | UnsafePath        |
| has more than 100,000 files                      | TooManyFiles      |
| has a pickle, by name or content, without leave  | PickleNotAllowed  |
| else                                             | may be served     |

Nothing can be left out of a folder that is mounted as it is: so one pickle is enough. Nothing is
written. Somebody may write to the claim after the check: what it holds is for those who may.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.errors import OriginError, OriginReason, invalid
from beamlit_operator.origins.listing import (
    MAX_FILES,
    OriginFile,
    ResolvedOrigin,
    too_many_files,
)
from beamlit_operator.origins.ociref import OciRef
from beamlit_operator.origins.pickles import is_pickle, pickles

UID = "CLAIM_UID"
"""What the operator found out about the claim: its uid."""

_LOST = "lost+found"
"""A file system's own folder, at its top; only its administrator may read it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a folder holds."""

    files: int
    bytes: int


def look(ref: ClaimRef, credentials: Mapping[str, str], /) -> ResolvedOrigin:
    """The revision. What the claim holds is not known: no files, no bytes.

    Raises:
        OriginError: ``InvalidReference``, where the claim was not looked up.
    """
    uid = credentials.get(UID)
    if not uid:
        raise _not_here(ref)
    return ResolvedOrigin(ref.digest(uid), (), 0)


def read(
    ref: ClaimRef,
    credentials: Mapping[str, str],
    file: OriginFile,
    start: int,
    length: int,
    /,
) -> bytes:
    """Nothing can be read: nobody but a pod sees the files.

    Raises:
        OriginError: ``InvalidReference``, always.
    """
    raise _not_here(ref)


def _not_here(ref: ClaimRef) -> OriginError:
    return invalid(f"{ref.place}: the files of a claim are seen by the pods that mount it only")


def check(ref: ClaimRef | OciRef, directory: Path, *, allow_pickle: bool) -> Checked:
    """Whether ``directory``, where the folder is mounted, may be served.

    Raises:
        OriginError: by the table above.
    """
    count = size = 0
    try:
        for path, entry in _files(ref, directory):
            count += 1
            if count > MAX_FILES:
                raise too_many_files(ref.place)
            size += entry.stat().st_size
            if not allow_pickle and (pickles([path]) or is_pickle(Path(entry.path))):
                raise OriginError(
                    OriginReason.PICKLE_NOT_ALLOWED,
                    f"{path!r} in {ref.place} can run code when loaded (pickle), and no file of "
                    "what is mounted can be left out: set spec.allowPickle of the Model if you "
                    "trust it, or remove or convert it",
                )
    except (FileNotFoundError, NotADirectoryError):
        problem = _nothing_there(ref, "is not there or is no folder: fill the claim")
        raise OriginError(OriginReason.NO_OBJECTS, problem) from None
    except PermissionError as error:
        shown = os.path.relpath(error.filename or directory, directory)
        raise OriginError(
            OriginReason.ACCESS_DENIED,
            f"{shown!r} in {ref.place} cannot be read by user {os.getuid()}: let others read it",
        ) from None
    except OSError as error:
        raise OriginError(
            OriginReason.UNREACHABLE, f"{ref.place} cannot be read: {error.strerror}"
        ) from None
    if not count:
        raise OriginError(OriginReason.NO_OBJECTS, _nothing_there(ref, "holds no file: fill it"))
    return Checked(count, size)


def _nothing_there(ref: ClaimRef | OciRef, what: str) -> str:
    if isinstance(ref, ClaimRef):
        return f"{ref.place} {what}, or correct the path"
    # What a kubelet that does not know images as volumes mounts is empty (KEP-4639).
    return (
        f"{ref.place} has no files in folder {ref.folder!r}: correct the path; or this cluster "
        "cannot mount images (Kubernetes 1.33, feature ImageVolume), and mode must be Fetch"
    )


def _files(ref: ClaimRef | OciRef, top: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file with its relative path. Links are followed to files, which are read, and looked at
    where they lead; folders behind links lie elsewhere in the folder and are met there."""
    root = top.resolve(strict=True)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_symlink() and not _leads_inside(Path(entry.path), root):
                    raise OriginError(
                        OriginReason.UNSAFE_PATH,
                        f"{path!r} in {ref.place} is a link that leads out of the folder or "
                        "nowhere, and servers would not find it: copy the file, or name the "
                        "folder that holds both",
                    )
                if entry.is_dir(follow_symlinks=False):
                    if path != _LOST:
                        waiting.append(f"{path}/")
                elif entry.is_file():
                    yield path, entry


def _leads_inside(link: Path, root: Path) -> bool:
    """An absolute link never does: the folder is mounted elsewhere for the model server."""
    try:
        return not os.path.isabs(os.readlink(link)) and link.resolve(strict=True).is_relative_to(
            root
        )
    except (OSError, RuntimeError):
        return False
