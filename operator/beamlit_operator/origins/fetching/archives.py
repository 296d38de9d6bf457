"""Unpacks archives that were fetched (`spec.unpack`), and never writes anywhere else.

An archive is a program for whoever unpacks it. So nothing of it reaches the disk but the content of
files, under names that were looked at, in a folder that was empty:

| in the archive                                       | what happens                            |
|------------------------------------------------------|-----------------------------------------|
| a file, with a name that stays in the folder         | unpacked; owner, mode and time are not  |
| a folder                                             | made when a file is in it               |
| a link to a file of the same archive                 | becomes that file                       |
| another link; a device, a pipe                       | ``UnsafePath``                          |
| ``..``, an absolute name, a drive, ``\\``, no UTF-8  | ``UnsafePath``                          |
| a name in ``.beamlit``, twice, or of a folder too    | ``UnsafePath``                          |
| more files than a model has                          | ``TooManyFiles``                        |
| 100 times its own size, beyond 256 MiB               | ``BadArchive``: a bomb                  |
| more than the volume holds                           | ``LocalDisk``                           |
| encrypted, cut off, damaged, of an unknown method    | ``BadArchive``                          |

Archives in archives stay as they are. Python's ``tarfile`` has a filter for most of this (PEP 706);
it is asked too.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching import zstandard
from beamlit_operator.origins.listing import MAX_FILES, RESERVED, OriginFile

MAX_RATIO = 100
FREE_OF_RATIO_BYTES = 256 * 2**20

_CHUNK_BYTES = 2**20
_SPARE_BYTES = 16 * 2**20
_CHECK_DISK_EVERY = 64 * 2**20
_LONGEST_NAME, _LONGEST_PATH = 255, 4000
_LONGEST_LINK = 4096
_LONGEST_HEADER = 2**20
_DIRECTORY_BYTES_PER_FILE = 160

_DRIVE = re.compile(r"[A-Za-z]:")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RecursionError,  # headers that announce headers
    NotImplementedError,  # parts of the zip format that Python does not know
    struct.error,
    ValueError,
    OverflowError,
)


class Unpacker:
    """Unpacks the archives of one model into one folder.

    Args:
        into: an empty folder.
        taken: names of the model's files that are no archives.
        place: the origin, for messages.
        only: of tar archives, the folder that counts: what else is in them is not even looked at.
    """

    def __init__(self, into: Path, *, taken: Collection[str], place: str, only: str = "") -> None:
        self._into = into
        self._only = f"{only}/" if only else ""
        self._place = place
        self._files: dict[str, int] = dict.fromkeys(taken, -1)
        self._folders = {folder for path in taken for folder in _folders(path)}
        self._archive = ""
        self._folder = ""
        self._here: dict[str, str] = {}  # names in the archive, and where they are
        self._allowed = 0
        self._until_check = 0

    def unpack(self, path: str, archive: Path) -> None:
        """Unpacks one archive where it lies.

        Args:
            path: its name in the model.
            archive: the file.

        Raises:
            OriginError: it is not safe, or not whole. What was written of it stays.
            OSError: the disk's failures.
        """
        self._archive, self._here = path, {}
        self._folder = path.rpartition("/")[0]
        self._allowed = FREE_OF_RATIO_BYTES + MAX_RATIO * archive.stat().st_size
        self._until_check = 0
        try:
            if path.lower().endswith(".zip"):
                self._zip(archive)
            else:
                self._tar(archive, kind=path.lower().rpartition(".")[2])
        except _DAMAGE as error:
            raise self._damaged(error) from None
        except OSError as error:
            # Not the disk's: bz2's own error, and a place in the file that cannot be.
            if error.errno not in (None, errno.EINVAL):
                raise
            raise self._damaged(error) from None

    def files(self) -> list[OriginFile]:
        """What was unpacked."""
        return [OriginFile(path, size, "", path) for path, size in self._files.items() if size >= 0]

    def _tar(self, path: Path, *, kind: str) -> None:
        links: list[tuple[str, str]] = []
        with _content(path, kind) as content:
            with tarfile.open(
                fileobj=content, mode="r|", bufsize=_CHUNK_BYTES, tarinfo=_Member
            ) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # or all stay in memory
                    if not member.name.removeprefix("./").startswith(self._only):
                        continue
                    name = self._name(member.name)
                    if member.isdir():
                        continue
                    if member.issym() or member.islnk():
                        start = name.rpartition("/")[0] if member.issym() else ""
                        links.append((name, _joined(start, member.linkname)))
                        self._count(len(links))
                        continue
                    if not member.isreg():
                        raise self._unsafe(member.name, "is no file, folder or link")
                    tarfile.data_filter(member, str(self._into))
                    with archive.extractfile(member) or _nothing() as source:
                        self._write(name, source, size=member.size)
            # The checksum comes last; a bomb may, too.
            while chunk := content.read(_CHUNK_BYTES):
                self._take(len(chunk))
        if kind == "tar" and not _ends_with_zeros(path):
            raise self._bad("is cut off: its end is missing")
        self._link(links)

    def _zip(self, path: Path) -> None:
        if _directory_bytes(path) > MAX_FILES * _DIRECTORY_BYTES_PER_FILE:
            raise self._too_many()
        links: list[tuple[str, str]] = []
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            self._count(len(members))
            size = sum(member.file_size for member in members)
            if size > self._allowed:
                raise self._bomb()
            self._check_disk(size)
            for member in members:
                name = self._name(member.orig_filename)
                kind = stat.S_IFMT(member.external_attr >> 16)
                # Not `is_dir`, which fails for an empty name in Python 3.11.
                if member.orig_filename.endswith("/") or kind == stat.S_IFDIR:
                    continue
                if member.flag_bits & 0x1:
                    raise self._bad(f"is encrypted ({name!r}): store it without a password")
                if member.compress_type not in _METHODS:
                    raise self._bad(f"has {name!r} packed by a method that is not known")
                if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                    raise self._unsafe(name, "is no file, folder or link")
                with archive.open(member) as source:
                    if kind == stat.S_IFLNK:
                        target = source.read(_LONGEST_LINK).decode()
                        links.append((name, _joined(name.rpartition("/")[0], target)))
                    else:
                        self._write(name, source, size=member.file_size)
        self._link(links)

    def _name(self, name: str) -> str:
        """A member's name, looked at; empty for the archive's own folder.

        Raises:
            OriginError: ``UnsafePath``.
        """
        segments = [segment for segment in name.split("/") if segment not in ("", ".")]
        try:
            longest = max((len(segment.encode()) for segment in segments), default=0)
            too_long = longest > _LONGEST_NAME or len(name.encode()) > _LONGEST_PATH
        except UnicodeEncodeError:
            raise self._unsafe(name, "is not UTF-8") from None
        if name.startswith("/") or _DRIVE.match(name):
            raise self._unsafe(name, "is absolute")
        if ".." in segments:
            raise self._unsafe(name, "leads out of the folder")
        if "\\" in name or "\0" in name:
            raise self._unsafe(name, "is not a safe file name")
        if too_long:
            raise self._unsafe(name[:100], "is too long")
        if RESERVED in segments:
            raise self._unsafe(name, f"is in {RESERVED}, which is the fetcher's own")
        return "/".join(segments)

    def _target(self, name: str) -> str:
        """Where a file of the archive goes in the model; from now on it is taken."""
        path = f"{self._folder}/{name}" if self._folder else name
        if not name:
            raise self._unsafe(name, "is no name of a file")
        if path in self._files:
            raise self._unsafe(name, "exists twice")
        if path in self._folders or any(folder in self._files for folder in _folders(path)):
            raise self._unsafe(name, "is a file and a folder at once")
        self._count(len(self._files) + 1)
        self._folders.update(_folders(path))
        self._files[path] = 0
        self._here[name] = path
        return path

    def _write(self, name: str, source: IO[bytes], *, size: int) -> None:
        path = self._target(name)
        target = self._into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        # Exclusive: nothing that is there is ever written to.
        try:
            made = target.open("xb")
        except FileExistsError:
            raise self._unsafe(
                name, "is there already under another spelling, which this volume does not tell"
            ) from None
        with made as file:
            while chunk := source.read(_CHUNK_BYTES):
                self._take(len(chunk))
                file.write(chunk)
                written += len(chunk)
        if written != size:
            raise self._bad(f"is damaged: {name!r} is shorter than it says")
        self._files[path] = size

    def _link(self, links: list[tuple[str, str]]) -> None:
        """Makes links to the files that they mean, once all of those are there."""
        while links:
            left: list[tuple[str, str]] = []
            for name, target in links:
                if target in self._here:
                    path = self._target(name)
                    where = self._into / path
                    where.parent.mkdir(parents=True, exist_ok=True)
                    self._same(self._into / self._here[target], where)
                    self._files[path] = self._files[self._here[target]]
                else:  # perhaps a link to a link
                    left.append((name, target))
            if len(left) == len(links):
                raise self._unsafe(left[0][0], "is a link to what is no file of the archive")
            links = left

    def _same(self, file: Path, where: Path) -> None:
        try:
            os.link(file, where)
        except OSError:  # some file systems know no second names
            self._take(file.stat().st_size)
            shutil.copyfile(file, where)

    def _take(self, count: int) -> None:
        """Counts unpacked bytes against what is allowed, and against the disk."""
        self._allowed -= count
        self._until_check -= count
        if self._allowed < 0:
            raise self._bomb()
        if self._until_check < 0:
            self._until_check = _CHECK_DISK_EVERY
            self._check_disk(0)

    def _check_disk(self, need: int) -> None:
        free = shutil.disk_usage(self._into).free
        if free < need + _SPARE_BYTES:
            raise OriginError(
                OriginReason.LOCAL_DISK,
                f"archive {self._archive!r} of {self._place} does not fit unpacked: "
                f"{free / 2**20:.0f} MiB are left; give the volume more room",
            )

    def _count(self, files: int) -> None:
        if files > MAX_FILES:
            raise self._too_many()

    def _too_many(self) -> OriginError:
        return OriginError(
            OriginReason.TOO_MANY_FILES,
            f"{self._archive!r} of {self._place} holds more than {MAX_FILES} files: pack one model",
        )

    def _bomb(self) -> OriginError:
        return self._bad(
            f"is more than {MAX_RATIO} times as large unpacked: store its files without packing"
        )

    def _damaged(self, error: Exception) -> OriginError:
        return self._bad(
            f"is cut off, damaged, or no archive of the kind that its name says"
            f" ({type(error).__name__}): pack it anew"
        )

    def _bad(self, what: str) -> OriginError:
        return OriginError(
            OriginReason.BAD_ARCHIVE, f"archive {self._archive!r} of {self._place} {what}"
        )

    def _unsafe(self, name: str, what: str) -> OriginError:
        return OriginError(
            OriginReason.UNSAFE_PATH,
            f"{name!r} in archive {self._archive!r} of {self._place} {what}: pack it anew without",
        )


def _content(path: Path, kind: str) -> AbstractContextManager[IO[bytes] | gzip.GzipFile]:
    """A tar file, whatever it is compressed with."""
    if kind == "tar":
        return path.open("rb")
    return zstandard.opened(path) if kind == "zst" else gzip.open(path)


class _Member(tarfile.TarInfo):
    """A header. Those that only hold another one's name or attributes are read into memory whole,
    by a size that they say themselves."""

    def _proc_member(self, archive: Any) -> Any:
        if self.type in _HEADERS and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return super()._proc_member(archive)  # type: ignore[misc]


_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _folders(path: str) -> Iterator[str]:
    """The folders that a path stands in."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _joined(start: str, target: str) -> str:
    """What a link in a folder of the archive means; empty, as no file is called, if it leaves."""
    if target.startswith("/"):
        return ""
    segments = start.split("/") if start else []
    for segment in target.split("/"):
        if segment == "..":
            if not segments:
                return ""
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    return "/".join(segments)


def _directory_bytes(path: Path) -> int:
    """The size of a zip file's directory, which is read into memory whole (APPNOTE 4.3.14-16)."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 65_557 - 20)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) < at + 22:
            raise zipfile.BadZipFile
        (found,) = struct.unpack_from("<L", tail, at + 12)
        if found != 0xFFFFFFFF:
            return int(found)
        locator = tail.rfind(b"PK\6\7", 0, at)
        if locator < 0:
            return int(found)
        (record,) = struct.unpack_from("<Q", tail, locator + 8)
        file.seek(record)
        (long,) = struct.unpack_from("<Q", file.read(56), 40)
        return int(long)


def _ends_with_zeros(path: Path) -> bool:
    """A tar file ends with blocks of zeros (pax(1)), unless it was cut off between two files."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < tarfile.BLOCKSIZE:
            return False
        file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        return not file.read().strip(b"\0")


def _nothing() -> IO[bytes]:
    raise tarfile.ReadError("a file without content")
