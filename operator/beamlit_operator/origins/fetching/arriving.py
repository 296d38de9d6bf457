"""A file that arrives in ranges of any order: which blocks are there, and its digest meanwhile.

Finished blocks are noted beside the file: a fetcher that was killed brings at most the blocks again
that were under way.

The digest is taken in the order of bytes by a thread of its own, meanwhile. It is what takes
longest where the network is fast, and nobody can help it. So those who bring content give way to
it: else it would begin in earnest when all is there, on one core, with the others idle.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Protocol

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.listing import OriginFile

PART_BYTES = 16 * 2**20
"""What one request asks for."""

BLOCK_BYTES = 2**20
"""What is noted as soon as it is there. A fetcher that is killed brings at most one block of each
connection again: together less than one part."""

CHUNK_BYTES = 256 * 1024
"""What is read of a connection at once."""

_DIGEST_BYTES = 4 * 2**20  # at once: after each, a thread waits for the interpreter

_DIGESTERS = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1)), thread_name_prefix="digest")

_GIVES_WAY = 5  # "nice" (sched(7)): a third of the weight, so that it is not starved by others


def bringers(connections: int, *, name: str) -> ThreadPoolExecutor:
    """Threads to bring content with, one for each connection. Where the system has priorities of
    threads (Linux), they give way to those that take digests."""
    return ThreadPoolExecutor(connections, thread_name_prefix=name, initializer=_give_way)


def _give_way() -> None:
    if sys.platform != "linux":
        return  # elsewhere a priority is the whole process's
    with contextlib.suppress(OSError):  # a sandbox forbids it
        os.nice(_GIVES_WAY)  # on Linux the calling thread's own: nice(2), pthreads(7)
        # What wakes up does not interrupt what runs.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Hash(Protocol):
    """One of `hashlib`'s."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Takes more of the content."""

    def hexdigest(self) -> str:
        """The digest of what was taken."""


class Arriving:
    """One file on its way, and which of its blocks are there. ``stop`` ends what goes on by itself:
    the digest."""

    def __init__(
        self, file: OriginFile, path: Path, *, hasher: Callable[[], Hash], stop: threading.Event
    ) -> None:
        self.file = file
        self.path = path
        self._stop = stop
        self._record = path.with_suffix(".done")
        # For every write: the kernel takes one at a time, and threads that wait for it there spin.
        self.writing = threading.Lock()
        self._lock = threading.Lock()
        self._hasher = hasher
        self._block = min(BLOCK_BYTES, PART_BYTES)
        blocks = range(0, max(file.size, 1), self._block)
        self._done = self._recorded() if path.exists() else set()
        missing = [start for start in blocks if start not in self._done]
        self._left = len(missing)
        self._claimed = False
        self.brought = file.size - sum(map(self._length, missing))
        self.pending = list(self._ranges(missing))
        self._content = _Content(path, hasher(), stop)

    def whole(self) -> list[tuple[int, int]]:
        """The ranges of the whole object."""
        return list(self._ranges(range(0, max(self.file.size, 1), self._block)))

    def _ranges(self, blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Blocks in order as ranges of at most a part, from the first byte to before the last."""
        start = end = -1
        for block in blocks:
            if block != end or block - start >= PART_BYTES:
                if end >= 0:
                    yield start, end
                start = block
            end = block + self._length(block)
        if end >= 0:
            yield start, end

    def _length(self, block: int) -> int:
        return min(self._block, self.file.size - block)

    def reached(self, before: int, offset: int) -> bool:
        """Notes the blocks that were completed by going from ``before`` to ``offset`` in a range
        that began with a block; true if there were any."""
        first = before - before % self._block
        noted = [
            block
            for block in range(first, offset, self._block)
            if block + self._length(block) <= offset
        ]
        if not noted:
            return False
        with self._lock:
            self._done.update(noted)
            self._left -= len(noted)
            if self.file.size > self._block:  # what has one block is complete now
                with self._record.open("a") as record:
                    record.write("".join(f"{start}\n" for start in noted))
        return True

    def claim(self) -> bool:
        """True for the one thread that has to conclude: nothing is missing any more."""
        with self._lock:
            if self._claimed or (self._left > 0 and self.file.size):
                return False
            self._claimed = True
            return True

    def digest_ahead(self) -> None:
        """Has the blocks that are there from the beginning on taken into the digest. Does not
        wait."""
        self._content.catch_up(self._done, length=self._length)

    def digest(self) -> str:
        """The digest of the whole content. All blocks must be there.

        Raises:
            OriginError: what is under way is to stop.
        """
        return self._content.digest()

    def forget(self) -> None:
        """Everything has to be brought again."""
        self._record.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._content = _Content(self.path, self._hasher(), self._stop)

    def restart(self) -> None:
        """As if nothing had ever arrived. Only while one thread is at this file."""
        self._record.unlink(missing_ok=True)
        with self.path.open("wb"):  # not removed: the thread has it open
            pass
        self._content = _Content(self.path, self._hasher(), self._stop)
        self._done.clear()
        self._left = len(range(0, max(self.file.size, 1), self._block))
        self._claimed = False
        self.pending = self.whole()

    def complete(self, staging: Staging) -> None:
        staging.complete(self.file, self.path)
        self._record.unlink(missing_ok=True)

    def _recorded(self) -> set[int]:
        try:
            lines = self._record.read_text().split("\n")
        except FileNotFoundError:
            return set()
        found = {int(line) for line in lines[:-1] if line.isdigit()}  # the last is empty or torn
        return {start for start in found if start % self._block == 0}


class _Content:
    """The digest of a file that grows in ranges of any order; taken in the order of bytes."""

    def __init__(self, path: Path, hasher: Hash, stop: threading.Event) -> None:
        self._path = path
        self._hash = hasher
        self._stop = stop
        self._lock = threading.Lock()
        self._upto = 0
        self._is_asked = False  # who does not see it in time asks once too often

    def catch_up(self, done: set[int], *, length: Callable[[int], int]) -> None:
        """Has a thread digest on through the blocks in ``done`` until one is missing."""
        if not self._is_asked and self._upto in done:
            self._is_asked = True
            _DIGESTERS.submit(self._advance, done, length)

    def _advance(self, done: set[int], length: Callable[[int], int]) -> None:
        if not self._lock.acquire(blocking=False):  # the rest is being digested already
            return
        try:
            with self._path.open("rb", buffering=0) as file:
                buffer = bytearray(_DIGEST_BYTES)
                while (end := self._upto) in done and not self._stop.is_set():
                    while end in done and end - self._upto < _DIGEST_BYTES:
                        end += length(end)
                    self._take(file, end, buffer)
                    if self._upto < end:  # everything is brought again, with another digest
                        return
        except FileNotFoundError:
            return  # the same
        finally:
            self._lock.release()
            self._is_asked = False

    def digest(self) -> str:
        """Digests the rest, and by a thread that nothing is preferred to if that is much."""
        with self._lock, self._path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            left = max(size - self._upto, 0)
            if left > _DIGEST_BYTES:
                _DIGESTERS.submit(self._take, file, size, bytearray(_DIGEST_BYTES)).result()
            else:
                self._take(file, size, bytearray(left))
            return self._hash.hexdigest()

    def _take(self, file: FileIO, end: int, buffer: bytearray) -> None:
        view = memoryview(buffer)
        file.seek(self._upto)
        while self._upto < end:
            count = file.readinto(view[: end - self._upto])
            if not count:  # shorter than it should be: the digest will tell
                return
            self._hash.update(view[:count])
            self._upto += count
            if self._stop.is_set():
                raise OriginError(OriginReason.UNREACHABLE, "interrupted")


def part_name(file: OriginFile) -> str:
    """The same for the next fetcher, whatever is complete then; and short, whatever the key is."""
    return hashlib.sha256(file.path.encode()).hexdigest()[:32]


def write_at(descriptor: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
