"""Brings the files of a repository at one commit, and checks each against the Hub's digest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from beamlit_operator.origins import hub
from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.progress import Progress
from beamlit_operator.origins.ref import HubRef
from beamlit_operator.origins.staging import Staging

MAX_CONNECTIONS = 8
_ATTEMPTS = 4
_LONGEST_WAIT_SECONDS = 60.0


class Transfer:
    """Brings the files of one listing. The reference's revision is the listing's commit."""

    def __init__(
        self,
        ref: HubRef,
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

    def run(self, files: list[OriginFile]) -> None:
        """Brings ``files`` and hands each to the staging area, verified.

        Raises:
            OriginError: the first failure; what is under way is ended first.
            OSError: the disk's failures.
        """
        self._progress.watch(self._staging.parts / ".cache" / "huggingface" / "download")
        pool = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="hub")
        try:
            done, _ = wait(
                [pool.submit(self._file, file) for file in files], return_when=FIRST_EXCEPTION
            )
            for future in done:
                future.result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _file(self, file: OriginFile) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                part = hub.download(
                    self._ref,
                    self._credentials,
                    path=file.source,
                    into=self._staging.parts,
                )
                self._verify(file, part)
            except OriginError as problem:
                wait_seconds = 2.0**attempt
                if problem.reason is OriginReason.RATE_LIMITED:
                    wait_seconds = problem.retry_after_seconds
                if problem.stalled or attempt == _ATTEMPTS or self._stop.is_set():
                    raise
                self._stop.wait(min(wait_seconds, _LONGEST_WAIT_SECONDS))
            else:
                self._staging.complete(file, part)
                self._progress.add(file.size)
                self._progress.completed()
                return

    def _verify(self, file: OriginFile, part: Path) -> None:
        kind, _, expected = file.digest.partition(":")
        size = part.stat().st_size
        # Git's digest of a blob covers a header too: git-hash-object(1).
        digest = (
            hashlib.sha256()
            if kind == "sha256"
            else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        )
        with part.open("rb") as content:
            while chunk := content.read(2**20):
                digest.update(chunk)
        if size != file.size or digest.hexdigest() != expected:
            part.unlink()
            raise OriginError(
                OriginReason.CORRUPT,
                f"{file.path!r} of {self._ref.place} arrived with other content than the Hub lists:"
                " check the network and proxies between",
            )
