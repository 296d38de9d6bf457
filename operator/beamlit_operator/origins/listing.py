"""What an origin holds at one revision, and whether its names are safe on a disk. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from beamlit_operator.origins.errors import OriginError, OriginReason

RESERVED = ".beamlit"
"""The directory the fetcher keeps its own records in, beside the model's files."""

MAX_FILES = 100_000

LARGEST_BYTES = 2**53
"""Of one model: 8 PiB, and what every reader of JSON takes as it is."""

MAX_READ_BYTES = 32 * 2**20
"""The most that may be read of one file when an origin is looked at."""

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True, slots=True)
class OriginFile:
    """One file of a model.

    Attributes:
        path: where it goes, relative, with ``/``.
        size: bytes.
        digest: S3: the ETag without quotes. Hub: ``sha256:<hex>`` for large files,
            ``gitsha1:<hex>`` (the git blob id) for others. Web: ``sha256:<hex>``.
        source: its name in the store: the whole S3 key, the path in the repository, the url.
        version: S3: the id of its version, where the bucket keeps them.
        packed: it is a tar archive that holds files of the model, in the folder of this name; in
            all of it, when empty. None: it is what it is.
    """

    path: str
    size: int
    digest: str
    source: str
    version: str = ""
    packed: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedOrigin:
    """An origin at one immutable revision.

    Attributes:
        revision: Hub: the commit's sha (40 hex digits). S3: see :func:`objects_revision`. Web: see
            ``WebRef.revision``.
        files: sorted by path.
        bytes: sum of their sizes.
        as_of: S3 with versions: the time as of which the prefix holds this revision, in RFC 3339.
    """

    revision: str
    files: tuple[OriginFile, ...]
    bytes: int
    as_of: str | None = None


def resolved(revision: str, files: Iterable[OriginFile], *, place: str) -> ResolvedOrigin:
    """Puts a listing together, or refuses it.

    Raises:
        OriginError: ``UnsafePath`` or ``TooManyFiles``; ``Unreachable`` for sizes that no file has.
    """
    ordered = tuple(sorted(files, key=lambda file: file.path))
    if len(ordered) > MAX_FILES:
        raise too_many_files(place)
    check_paths((file.path for file in ordered), place=place)
    total = 0
    for file in ordered:
        # What a store's JSON has there may be anything.
        if type(file.size) is not int or not 0 <= file.size <= LARGEST_BYTES - total:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"{place}: the store lists {file.path[:200]!r} with a size that no file has: check"
                " endpoint",
            )
        total += file.size
    return ResolvedOrigin(revision, ordered, total)


def is_archive(path: str) -> bool:
    """Whether a file is one that can be unpacked, by its name."""
    return path.lower().endswith(_ARCHIVES)


def too_many_files(place: str) -> OriginError:
    return OriginError(
        OriginReason.TOO_MANY_FILES,
        f"{place} holds more than {MAX_FILES} files: name the folder of one model",
    )


def objects_revision(objects: Iterable[tuple[str, int, str]]) -> str:
    """The immutable revision of a set of S3 objects.

    ``sha256:`` and 64 hex digits: SHA-256 over one line per object, ordered by the UTF-8 bytes of
    its key. A line is the compact JSON array ``[key,size,etag]`` (non-ASCII escaped, ETag without
    quotes) and a newline. Keys are whole: the prefix is part of them. So the revision changes when
    any object is added, removed, renamed or written with other content.
    """
    digest = hashlib.sha256()
    for key, size, etag in sorted(objects, key=lambda item: item[0].encode()):
        digest.update(json.dumps([key, size, etag], separators=(",", ":")).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def check_paths(paths: Iterable[str], *, place: str) -> None:
    """Refuses names that leave the directory, and names that cannot both exist on a disk.

    Raises:
        OriginError: ``UnsafePath``.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        segments = path.split("/")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise _unsafe(place, path, "is no text") from None
        if (
            any(segment in ("", ".", "..") for segment in segments)
            or "\0" in path
            or segments[0] == RESERVED
        ):
            raise _unsafe(place, path, "is not a safe file name")
        if path in files:
            raise _unsafe(place, path, "exists twice")
        files.add(path)
        folders.update("/".join(segments[:end]) for end in range(1, len(segments)))
    for path in sorted(files & folders):
        raise _unsafe(place, path, "is a file and a folder at once")


def _unsafe(place: str, path: str, what: str) -> OriginError:
    return OriginError(
        OriginReason.UNSAFE_PATH, f"{path!r} in {place} {what}: rename or remove it there"
    )
