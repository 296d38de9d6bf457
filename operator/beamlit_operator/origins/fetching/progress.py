"""Tells how far a fetch is: on a terminal by a bar; else by a line a second in the log, and to
whoever asks over HTTP."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from beamlit_operator.origins.fetching.terminal import INTERVAL_SECONDS, Bar
from beamlit_operator.origins.sizes import mebibytes

PORT_VARIABLE = "BEAMLIT_PROGRESS_PORT"
"""Where to answer; set by the pod (`workloads.pods`). Without it nothing listens."""

_INTERVAL_SECONDS = 1.0


class Progress:
    """Counts bytes that arrive, and reports a line a second while they do.

    Used as a context manager around the fetch. A fetch that takes less than a second reports none
    and opens no port.
    """

    def __init__(
        self,
        total_bytes: int,
        report: Callable[[str], None],
        *,
        files: int = 0,
        port: int | None = None,
    ) -> None:
        """``files`` is how many there are; ``port``: by default the one the environment names."""
        self._total = total_bytes
        self._report = report
        self._bytes = 0
        self._files = files
        self._files_done = 0
        self._port = int(os.environ.get(PORT_VARIABLE) or 0) if port is None else port
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def add(self, count: int) -> None:
        """``count`` more bytes are there (negative: were thrown away)."""
        with self._lock:
            self._bytes += count

    def completed(self, files: int = 1) -> None:
        """So many more files are there and verified."""
        with self._lock:
            self._files_done += files

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if isinstance(self._report, Bar):
            self._draw(self._report)
            return
        last_bytes, last_seconds = self._measure(), time.monotonic()
        with ExitStack() as stack:
            if not self._ended.wait(_INTERVAL_SECONDS) and self._port:
                from beamlit_operator.origins.fetching.progress_server import served

                stack.enter_context(served(self._port, self._document))
            while not self._ended.is_set():
                now_bytes, now_seconds = self._measure(), time.monotonic()
                if now_bytes != last_bytes:
                    speed = max(now_bytes - last_bytes, 0) / (now_seconds - last_seconds)
                    percent = 100 * now_bytes // max(self._total, 1)
                    self._report(
                        f"{mebibytes(now_bytes)} of {mebibytes(self._total)} ({percent} %),"
                        f" {mebibytes(speed)}/s"
                    )
                    last_bytes, last_seconds = now_bytes, now_seconds
                self._ended.wait(_INTERVAL_SECONDS)

    def _draw(self, bar: Bar) -> None:
        bar.moved(self._document())
        while not self._ended.wait(INTERVAL_SECONDS):
            bar.moved(self._document())
        bar.moved(self._document())
        bar.end()

    def _document(self) -> dict[str, int]:
        with self._lock:
            done = self._files_done
        return {
            "fetchedBytes": self._measure(),
            "totalBytes": self._total,
            "files": self._files,
            "filesDone": done,
        }

    def _measure(self) -> int:
        return min(self._bytes, self._total)
