"""From half-fetched to published: the directory a model is fetched into.

A model server must never see half a model. So files are collected beside it, on the same volume::

    DIRECTORY/.beamlit/lock            one fetcher at a time
    DIRECTORY/.beamlit/home/           what the Hub's library keeps for itself
    DIRECTORY/.beamlit/work-<hash>/    what is being fetched of one revision
        parts/<n>                      a file that is not complete
        files/<path>                   complete and verified
        ready.json                     all are: only moving is left
    DIRECTORY/.beamlit/published.json  the completion marker: revision and files

A fetch that is killed at any point leaves no marker, and the next one goes on where it was. When
the whole machine went down, everything is fetched again: data that was not on the disk yet is lost
then, though the records say otherwise. That is cheaper than waiting for the disk at every start.

A directory that is *shared* lasts longer than a machine, and others see it: a folder of a cache
(:mod:`.cache`). There all files are on the disk before the marker says so, and large ones as soon
as they are complete; what may not be there is thrown away when another machine, or the same after
a restart, goes on. More files are in it then::

    DIRECTORY/.beamlit/used            its time of change says when a pod last started from here
    DIRECTORY/.beamlit/work-<hash>/on-disk       complete files that are on the disk, a line each
    DIRECTORY/.beamlit/work-<hash>/wanted.json   how many bytes there will be, for those who wait
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.durable import all_to_disk, to_disk
from beamlit_operator.origins.fetching.spelling import check_spelling
from beamlit_operator.origins.fetching.turns import turn
from beamlit_operator.origins.listing import RESERVED, OriginFile, ResolvedOrigin

HOME = f"{RESERVED}/home"
"""Below the directory: a place to write for libraries, for when the process' home has none."""

WANTED = "wanted.json"
"""In the work area of a shared directory: how many bytes there will be."""

_LARGE = 4 * 2**20
"""Bytes of a file for which to wait at once: it would be a pity to fetch it again."""

# What a file system needs for itself, and small files' rounding up to blocks.
_SPARE_BYTES = 16 * 2**20
_BLOCK_BYTES = 4096


class Staging:
    """The work area of one revision in one directory. Made by :func:`stage`."""

    def __init__(self, directory: Path, revision: str, *, shared: bool = False) -> None:
        self.shared = shared
        self._lasts_until = "fsync" if shared else _boot()
        self.directory = directory
        self.revision = revision
        self._own = directory / RESERVED
        self._marker = self._own / "published.json"
        self.work = self._own / f"work-{hashlib.sha256(revision.encode()).hexdigest()[:16]}"
        self.parts = self.work / "parts"
        self._files = self.work / "files"
        self._ready = self.work / "ready.json"
        self._on_disk = self.work / "on-disk"

    def is_published(self) -> bool:
        """The directory holds this revision completely."""
        marker = _read(self._marker)
        if marker is None or marker.get("revision") != self.revision:
            return False
        if marker.get("boot") != self._lasts_until:
            return False
        root = str(self.directory)
        return all(_has(f"{root}/{path}", size) for path, size in marker["files"].items())

    def prepare(self, wanted: ResolvedOrigin) -> list[OriginFile]:
        """Makes room, and returns the files that are not complete yet.

        Raises:
            OriginError: ``LocalDisk``, if they do not fit.
        """
        for other in self._own.glob("work-*"):
            if other != self.work:
                shutil.rmtree(other)
            elif not self._is_of_this_boot(other / "boot"):
                self._forget_parts(other)
        self.parts.mkdir(parents=True, exist_ok=True)
        (self.work / "boot").write_text(_boot())
        self._check_names(wanted)
        missing = [file for file in wanted.files if not _has(self._files / file.path, file.size)]
        # What lies in parts is counted twice, to the safe side: it may have to be fetched again.
        need = sum(file.size + _BLOCK_BYTES for file in missing) + _SPARE_BYTES
        free = shutil.disk_usage(self.directory).free
        if free < need and self.shared:
            from beamlit_operator.origins.fetching.cache import remove_leftovers

            remove_leftovers(self.directory.parent)
            free = shutil.disk_usage(self.directory).free
        if free < need:
            more = "give the volume more room"
            if self.shared:
                more += ", or the cache a limit, so that what nobody uses goes in time"
            raise OriginError(
                OriginReason.LOCAL_DISK,
                f"{self.directory} has {free / 2**20:.0f} MiB free, but {need / 2**20:.0f} MiB are "
                f"needed: {more}",
            )
        if self.shared:
            (self.work / WANTED).write_text(json.dumps({"bytes": wanted.bytes}))
        return missing

    def _check_names(self, wanted: ResolvedOrigin) -> None:
        paths = [file.path for file in wanted.files]
        check_spelling(paths, folder=self.work / "names", place=str(self.directory))

    def _forget_parts(self, work: Path) -> None:
        """What another machine, or this one before it was started again, may not have written."""
        if not self.shared:
            shutil.rmtree(work)
            return
        there = self._known_on_disk()
        for path in [path for path in work.rglob("*") if path.is_file()]:
            if path != self._on_disk and path not in there:
                path.unlink()

    def complete(self, file: OriginFile, part: Path) -> None:
        """Takes over a verified file."""
        target = self._files / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        lasting = self.shared and file.size >= _LARGE
        if lasting:
            to_disk(part)
        part.replace(target)
        if lasting:
            with self._on_disk.open("a") as record:
                record.write(f"{json.dumps(file.path)}\n")

    def fetched(self, file: OriginFile) -> Path:
        """Where a complete file is until it is published."""
        return self._files / file.path

    def publish(self, wanted: ResolvedOrigin) -> None:
        """Moves all files into place and then says so, with the marker."""
        self._check_names(wanted)  # once more: archives may have brought others
        if self.shared:
            files = {self._files / file.path for file in wanted.files}
            folders = {path.parent for path in files}
            all_to_disk((files - self._known_on_disk()) | folders, below=self._files)
        _write(self._ready, {"files": {file.path: file.size for file in wanted.files}})
        self.finish()

    def finish(self) -> bool:
        """Ends a publication that was begun, perhaps by a fetcher that was killed."""
        ready = _read(self._ready)
        if ready is None or not (self.shared or self._is_of_this_boot(self.work / "boot")):
            return False
        files: dict[str, int] = ready["files"]
        before = _read(self._marker)
        self._marker.unlink(missing_ok=True)
        for path in set(before["files"] if before else ()) - files.keys():
            self._remove(path)
        root = self.directory.resolve()
        for path in files:
            source, target = self._files / path, self.directory / path
            if not source.exists():
                continue  # moved already
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(root):
                raise OriginError(
                    OriginReason.UNSAFE_PATH,
                    f"{target.parent} leads out of {self.directory}: remove that link",
                )
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            source.replace(target)
        if self.shared:
            folders = {(self.directory / path).parent for path in files} | {self.directory}
            all_to_disk(folders, below=self.directory)
        marker: dict[str, object] = {
            "revision": self.revision,
            "boot": self._lasts_until,
            "files": files,
        }
        _write(self._marker, marker)
        if self.shared:
            to_disk(self._own)
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.directory / HOME, ignore_errors=True)
        return True

    def _known_on_disk(self) -> set[Path]:
        """The complete files that are on the disk for sure."""
        try:
            lines = self._on_disk.read_text().split("\n")[:-1]  # the last is empty or torn
        except FileNotFoundError:
            return set()
        found = set()
        for line in lines:
            with contextlib.suppress(ValueError):
                found.add(self._files / str(json.loads(line)))
        return found

    def _is_of_this_boot(self, record: Path) -> bool:
        try:
            return record.read_text() == _boot()
        except FileNotFoundError:
            return False

    def _remove(self, path: str) -> None:
        """Removes a file of the revision before, and the folders it leaves empty."""
        (self.directory / path).unlink(missing_ok=True)
        folder = (self.directory / path).parent
        with contextlib.suppress(OSError):  # not empty
            while folder != self.directory:
                folder.rmdir()
                folder = folder.parent


@contextlib.contextmanager
def stage(
    directory: Path,
    revision: str,
    *,
    shared: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[Staging]:
    """Opens ``directory`` for fetching ``revision``; waits for another fetcher to end.

    Args:
        directory: made if missing.
        revision: what it is to hold.
        shared: it is a folder of a cache: others use it too, and it outlives this machine.
        report: takes lines for people, such as that another fetcher is waited for.

    Raises:
        OriginError: ``LocalDisk``, if the directory cannot be made or written, here or later.
    """
    try:
        if shared:
            staging = Staging(directory, revision, shared=True)
            with turn(directory, may_be_read=staging.is_published, report=report):
                yield staging
            return
        own = directory / RESERVED
        own.mkdir(parents=True, exist_ok=True)
        with (own / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however it ends
            yield Staging(directory, revision)
    except OSError as error:
        raise OriginError(
            OriginReason.LOCAL_DISK,
            f"{error.filename or directory}: {error.strerror or error}: check the volume",
        ) from error


def _has(path: Path | str, size: int) -> bool:
    try:
        # One question for each file: a cache may be on another machine.
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _boot() -> str:
    """Another one after each start of the machine (proc_sys_kernel(5)); empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    # On a volume that others write it may be anything.
    known = isinstance(content, dict) and isinstance(content.get("files"), dict)
    return content if known else None


def _write(path: Path, content: dict[str, object]) -> None:
    draft = path.with_suffix(".new")
    with draft.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
