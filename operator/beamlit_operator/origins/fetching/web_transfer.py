"""Brings files from web servers in parallel ranges, and checks each against its SHA-256.

| the server answers a range with | what happens                                                 |
|---------------------------------|--------------------------------------------------------------|
| 206                             | the other ranges of the file are asked for too               |
| 200, to the first range         | it knows none: the file is taken from its beginning in one   |
| 200, after 206 to another       | counts as a failure of the server                            |

The digest is taken while the content arrives. What a killed fetcher had is told in
:mod:`.arriving`; from a server without ranges everything is brought again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.arriving import (
    CHUNK_BYTES,
    Arriving,
    Hash,
    bringers,
    part_name,
    write_at,
)
from beamlit_operator.origins.fetching.progress import Progress
from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.stores import web
from beamlit_operator.origins.webref import WebRef, without_query

_ATTEMPTS = 6
_LONGEST_WAIT_SECONDS = 60.0


class RangedFile(Arriving):
    """One file on its way.

    Attributes:
        counted: how many of its bytes the progress has, while one thread is at it.
        ranged: the server sends ranges, and all of them have been asked for.
    """

    def __init__(
        self,
        file: OriginFile,
        path: Path,
        *,
        hasher: Callable[[], Hash] = hashlib.sha256,
        stop: threading.Event,
    ) -> None:
        super().__init__(file, path, hasher=hasher, stop=stop)
        self.counted = self.brought
        self.ranged = False


@dataclass(slots=True)
class Range:
    """What one thread brings: from the offset, which moves on, to before the end."""

    offset: int
    end: int


_R = TypeVar("_R")


class RangedTransfer(ABC, Generic[_R]):
    """Brings files from a server that may know ranges. Who inherits says how one is asked for."""

    threads = "web"

    def __init__(
        self,
        ref: _R,
        credentials: Mapping[str, str],
        *,
        staging: Staging,
        progress: Progress,
    ) -> None:
        self._ref = ref
        self._credentials = credentials
        self._staging = staging
        self._progress = progress
        self._stop = threading.Event()  # a file failed: the others end too
        self._under_way = 0
        self._ended: SimpleQueue[Future[None]] = SimpleQueue()
        self._lock = threading.Lock()

    def run(self, files: list[OriginFile]) -> None:
        """Brings ``files`` and hands each to the staging area, verified.

        Raises:
            OriginError: the first failure; what is under way is ended first.
            OSError: the disk's failures.
        """
        self._pool = bringers(web.MAX_CONNECTIONS, name=self.threads)
        try:
            for file in files:
                item = self._arriving(file, self._staging.parts / part_name(file))
                self._progress.add(item.brought)
                if item.pending:  # the others follow when the server is known to send ranges
                    self._submit(item, *item.pending[0])
                else:  # killed between the last block and the verification
                    self._submit(item, file.size, file.size)
            # What is under way submits more before it ends, so none left means that all is there.
            while self._under_way:
                self._ended.get().result()
                with self._lock:
                    self._under_way -= 1
        except KeyboardInterrupt:
            self._end(wait=False)  # a store may be slow to answer
            raise
        except BaseException:
            self._end(wait=True)
            raise
        self._end(wait=True)

    def _end(self, *, wait: bool) -> None:
        self._stop.set()
        self._pool.shutdown(wait=wait, cancel_futures=True)
        if wait:
            self._close()

    def _arriving(self, file: OriginFile, path: Path) -> RangedFile:
        return RangedFile(file, path, stop=self._stop)

    @abstractmethod
    def _open(self, item: RangedFile, offset: int, end: int) -> AbstractContextManager[Any]:
        """The answer to the question for a part of a file: its status, headers and content."""

    @abstractmethod
    def _refused(self, item: RangedFile, answer: Any) -> OriginError:
        """What an answer other than 200 and 206 means."""

    @abstractmethod
    def _mismatch(self, item: RangedFile, found: str) -> OriginError | None:
        """The content has another digest than it should; None: it is brought once more."""

    @abstractmethod
    def _named(self, item: RangedFile) -> str:
        """The file as messages name it."""

    @abstractmethod
    def _close(self) -> None:
        """Nobody asks any more."""

    def _submit(self, item: RangedFile, start: int, end: int) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            self._under_way += 1
            future = self._pool.submit(self._part, item, start, end)
        future.add_done_callback(self._ended.put)

    def _part(self, item: RangedFile, start: int, end: int) -> None:
        self._bring(item, Range(start, end))
        if item.claim():
            self._conclude(item)
        else:
            item.digest_ahead()

    def _conclude(self, item: RangedFile) -> None:
        found = item.digest()
        if found == item.file.digest.rpartition(":")[2]:
            item.complete(self._staging)
            self._progress.completed()
            return
        problem = self._mismatch(item, found)
        if problem is not None:
            item.forget()
            raise problem
        self._progress.add(-item.file.size)
        item.restart()
        item.counted, item.ranged = 0, False
        self._submit(item, *item.pending[0])

    def _bring(self, item: RangedFile, wanted: Range) -> None:
        """Brings one range, going on after interruptions where they happened."""
        furthest, failures = wanted.offset, 0
        descriptor = os.open(item.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            while wanted.offset < wanted.end:
                try:
                    self._ask(item, wanted, descriptor)
                except OriginError as problem:
                    failures = 1 if wanted.offset > furthest else failures + 1
                    furthest = max(furthest, wanted.offset)
                    final = problem.stalled or problem.reason is OriginReason.CORRUPT
                    if failures >= _ATTEMPTS or final:
                        raise
                    seconds = min(0.2 * 2**failures, 5.0)
                    if problem.reason is OriginReason.RATE_LIMITED:
                        seconds = min(problem.retry_after_seconds, _LONGEST_WAIT_SECONDS)
                    self._stop.wait(seconds)
                if self._stop.is_set():
                    raise OriginError(OriginReason.UNREACHABLE, "interrupted")
        finally:
            os.close(descriptor)

    def _ask(self, item: RangedFile, wanted: Range, descriptor: int) -> None:
        with self._open(item, wanted.offset, wanted.end) as answer:
            if answer.status in (200, 206):
                web.check_size(answer, item.file)
            if answer.status == 200 and not item.ranged:
                self._progress.add(-item.counted)
                item.counted = 0
                item.restart()
                wanted.offset, wanted.end = 0, item.file.size
            elif answer.status == 206 and web.range_start(answer) == wanted.offset:
                self._ask_for_others(item)
            elif answer.status in (200, 206):
                raise OriginError(
                    OriginReason.UNREACHABLE,
                    f"{self._named(item)}: the server sends another part than it was asked for",
                )
            else:
                raise self._refused(item, answer)
            self._take(item, answer, wanted, descriptor=descriptor)

    def _ask_for_others(self, item: RangedFile) -> None:
        if not item.ranged:
            item.ranged = True
            for start, end in item.pending[1:]:
                self._submit(item, start, end)

    def _take(self, item: RangedFile, answer: Any, wanted: Range, *, descriptor: int) -> None:
        while wanted.offset < wanted.end and not self._stop.is_set():
            chunk = answer.read(min(CHUNK_BYTES, wanted.end - wanted.offset))
            if not chunk:
                raise OriginError(
                    OriginReason.UNREACHABLE,
                    f"{self._named(item)}: the answer ends too early: check the server and proxies "
                    "between",
                )
            with item.writing:
                write_at(descriptor, chunk, wanted.offset)
            before, wanted.offset = wanted.offset, wanted.offset + len(chunk)
            if not item.ranged:
                item.counted += len(chunk)
            self._progress.add(len(chunk))
            if item.reached(before, wanted.offset) and wanted.offset < wanted.end:
                item.digest_ahead()


class Carried(RangedTransfer[_R]):
    """Brings files that are had by GET and named by their SHA-256."""

    def run(self, files: list[OriginFile]) -> None:
        self._client = self._connected()
        super().run(files)

    @abstractmethod
    def _connected(self) -> web.Asking:
        """Who asks."""

    def _open(self, item: RangedFile, offset: int, end: int) -> AbstractContextManager[Any]:
        asked = {"Range": f"bytes={offset}-{end - 1}"}
        return self._client.ask("GET", item.file.source, asked)

    def _refused(self, item: RangedFile, answer: Any) -> OriginError:
        return self._client.refused(answer, item.file.source)

    def _mismatch(self, item: RangedFile, found: str) -> OriginError:
        return OriginError(
            OriginReason.CORRUPT,
            # What was asked for can be looked up; what arrived stands nowhere else.
            f"{self._named(item)} has sha256 {found}, not"
            f" {item.file.digest.rpartition(':')[2][:12]}...: correct the digest if the file is"
            " meant, else the file",
        )

    def _named(self, item: RangedFile) -> str:
        return without_query(item.file.source)

    def _close(self) -> None:
        self._client.close()


class Transfer(Carried[WebRef]):
    """Brings the files of one reference."""

    def _connected(self) -> web.Client:
        return web.Client(self._ref.place, self._credentials)
