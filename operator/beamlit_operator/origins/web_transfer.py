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
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from beamlit_operator.origins import web
from beamlit_operator.origins.arriving import CHUNK_BYTES, Arriving, part_name, write_at
from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.progress import Progress
from beamlit_operator.origins.staging import Staging
from beamlit_operator.origins.webref import WebRef, without_query

_R = TypeVar("_R")

_ATTEMPTS = 6
_LONGEST_WAIT_SECONDS = 60.0


class _File(Arriving):
    """One file on its way.

    Attributes:
        counted: how many of its bytes the progress has, while one thread is at it.
        ranged: the server sends ranges, and all of them have been asked for.
    """

    def __init__(self, file: OriginFile, path: Path) -> None:
        super().__init__(file, path, hasher=hashlib.sha256)
        self.counted = self.brought
        self.ranged = False


@dataclass(slots=True)
class _Range:
    """What one thread brings: from the offset, which moves on, to before the end."""

    offset: int
    end: int


class Carried(ABC, Generic[_R]):
    """Brings files that are had by GET and named by their SHA-256."""

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
        self._futures: set[Future[None]] = set()
        self._lock = threading.Lock()

    def run(self, files: list[OriginFile]) -> None:
        """Brings ``files`` and hands each to the staging area, verified.

        Raises:
            OriginError: the first failure; what is under way is ended first.
            OSError: the disk's failures.
        """
        self._client = self._connected()
        self._pool = ThreadPoolExecutor(web.MAX_CONNECTIONS, thread_name_prefix="web")
        try:
            for file in files:
                item = _File(file, self._staging.parts / part_name(file))
                self._progress.add(item.brought)
                if item.pending:  # the others follow when the server is known to send ranges
                    self._submit(item, *item.pending[0])
                else:  # killed between the last block and the verification
                    self._submit(item, file.size, file.size)
            while True:
                with self._lock:
                    under_way = set(self._futures)
                if not under_way:
                    return
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                with self._lock:
                    self._futures -= done
        finally:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
            self._client.close()

    @abstractmethod
    def _connected(self) -> web.Asking:
        """Who asks."""

    def _submit(self, item: _File, start: int, end: int) -> None:
        with self._lock:
            if not self._stop.is_set():
                self._futures.add(self._pool.submit(self._part, item, start, end))

    def _part(self, item: _File, start: int, end: int) -> None:
        self._bring(item, _Range(start, end))
        if item.claim():
            self._conclude(item)
        else:
            item.digest_ahead()

    def _conclude(self, item: _File) -> None:
        expected, found = item.file.digest.removeprefix("sha256:"), item.digest()
        if found != expected:
            item.forget()
            raise OriginError(
                OriginReason.CORRUPT,
                f"{without_query(item.file.source)} has sha256 {found}, not {expected}: correct the"
                " digest if the file is meant, else the file",
            )
        item.complete(self._staging)
        self._progress.completed()

    def _bring(self, item: _File, wanted: _Range) -> None:
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

    def _ask(self, item: _File, wanted: _Range, descriptor: int) -> None:
        url = item.file.source
        asked = {"Range": f"bytes={wanted.offset}-{wanted.end - 1}"}
        with self._client.ask("GET", url, asked) as answer:
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
                    f"{without_query(url)}: the server sends another part than it was asked for",
                )
            else:
                raise self._client.refused(answer, url)
            self._take(item, answer, wanted, descriptor=descriptor)

    def _ask_for_others(self, item: _File) -> None:
        if not item.ranged:
            item.ranged = True
            for start, end in item.pending[1:]:
                self._submit(item, start, end)

    def _take(self, item: _File, answer: Any, wanted: _Range, *, descriptor: int) -> None:
        while wanted.offset < wanted.end and not self._stop.is_set():
            chunk = answer.read(min(CHUNK_BYTES, wanted.end - wanted.offset))
            if not chunk:
                raise OriginError(
                    OriginReason.UNREACHABLE,
                    f"{without_query(item.file.source)}: the answer ends too early: check the "
                    "server and proxies between",
                )
            write_at(descriptor, chunk, wanted.offset)
            before, wanted.offset = wanted.offset, wanted.offset + len(chunk)
            if not item.ranged:
                item.counted += len(chunk)
            self._progress.add(len(chunk))
            if item.reached(before, wanted.offset) and wanted.offset < wanted.end:
                item.digest_ahead()


class Transfer(Carried[WebRef]):
    """Brings the files of one reference."""

    def _connected(self) -> web.Client:
        return web.Client(self._ref.place, self._credentials)
