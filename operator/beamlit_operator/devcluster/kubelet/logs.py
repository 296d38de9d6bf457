"""Container logs: written to files with time stamps and a bound, read back and followed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from beamlit_operator.devcluster.timestamps import now_utc

MAX_BYTES = 10 * 1024 * 1024
"""Size at which a log is rotated; kubelet's containerLogMaxSize. One older part is kept."""

MAX_LINE = 16 * 1024
"""Longest piece of a line kept together, as container runtimes do."""

CHUNK = 64 * 1024


class ContainerLog:
    """The log of one attempt of one container. Lines are stored as ``<time> <text>``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = path.open("ab", buffering=0)
        self._size = path.stat().st_size
        self._partial = b""
        self._rotations = 0
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Adds what a process wrote."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        while len(self._partial) > MAX_LINE:
            lines.append(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        self._store(lines)

    def close(self) -> None:
        """Stores what is left and ends the readers that follow."""
        if self._file is not None:
            if self._partial:
                self._store([self._partial])
                self._partial = b""
            self._file.close()
            self._file = None
        self._tell()

    def _store(self, lines: list[bytes]) -> None:
        if not lines or self._file is None:
            return
        stamp = now_utc().strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        block = b"".join(b"%s %s\n" % (stamp, line) for line in lines)
        self._file.write(block)
        self._size += len(block)
        if self._size >= self._max_bytes:
            self._file.close()
            self.path.replace(older_part(self.path))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
            self._rotations += 1
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self, tail: int | None, *, timestamps: bool) -> AsyncIterator[bytes]:
        """What is there, then what comes, until the container ends."""
        shape = _shaper(timestamps)
        file = self.path.open("rb")
        try:
            rotations = self._rotations
            lines = _lines(older_part(self.path)) if tail is None or tail > 0 else iter(())
            current = file.readlines()
            for line in _tail(chain(lines, current), tail):
                yield shape(line)
            while True:
                news = self._news
                lines_now = file.readlines()
                if lines_now:
                    yield b"".join(shape(line) for line in lines_now)
                    continue
                if rotations != self._rotations:
                    # Rotated meanwhile: this handle still read the end of the older part.
                    file.close()
                    file, rotations = self.path.open("rb"), self._rotations
                    continue
                if self._file is None:
                    return
                await news.wait()
        finally:
            file.close()


def older_part(path: Path) -> Path:
    """Where a log goes when it is rotated."""
    return path.with_name(f"{path.name}.1")


async def read(path: Path, tail: int | None, *, timestamps: bool) -> AsyncIterator[bytes]:
    """What a log holds now."""
    shape = _shaper(timestamps)
    block: list[bytes] = []
    size = 0
    for line in _tail(chain(_lines(older_part(path)), _lines(path)), tail):
        block.append(shape(line))
        size += len(line)
        if size >= CHUNK:
            yield b"".join(block)
            block, size = [], 0
            await asyncio.sleep(0)
    if block:
        yield b"".join(block)


def last_words(path: Path, *, lines: int = 80, limit: int = 2048) -> str:
    """The end of a log for ``terminationMessagePolicy: FallbackToLogsOnError``."""
    shape = _shaper(False)
    text = b"".join(shape(line) for line in _tail(_lines(path), lines))
    return text[-limit:].decode(errors="replace")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _tail(lines: Iterator[bytes], count: int | None) -> Iterator[bytes]:
    return lines if count is None else iter(deque(lines, maxlen=max(count, 0)))


def _shaper(timestamps: bool) -> Callable[[bytes], bytes]:
    return (lambda line: line) if timestamps else (lambda line: line.partition(b" ")[2])
