"""A file that arrives in ranges of any order: which blocks are there, and its digest meanwhile.

Finished blocks are noted beside the file: a fetcher that was killed brings at most the blocks again
that were under way.

The digest is taken in the order of bytes by a thread of its own. Those who bring content wait when
it is far behind *and* busy: else it would begin in earnest when all is there, on one core, with
the others idle. They do not wait while it has to wait itself, for a block that is late.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Protocol

from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.listing import OriginFile

PART_BYTES = 16 * 2**20
"""What one request asks for."""

BLOCK_BYTES = 2**20
"""What is noted as soon as it is there. A fetcher that is killed brings at most one block of each
connection again: together less than one part."""

LEAD_BYTES = 64 * 2**20
"""How far content may be ahead of a digest that is being taken."""

CHUNK_BYTES = 256 * 1024
"""What is read of a connection at once."""

_DIGEST_BYTES = 2**20

_DIGESTERS = ThreadPoolExecutor(2, thread_name_prefix="digest")


class Hash(Protocol):
    """One of `hashlib`'s."""

    def update(self, data: bytes, /) -> None:
        """Takes more of the content."""

    def hexdigest(self) -> str:
        """The digest of what was taken."""


class Arriving:
    """One file on its way, and which of its blocks are there."""

    def __init__(self, file: OriginFile, path: Path, *, hasher: Callable[[], Hash]) -> None:
        self.file = file
        self.path = path
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
        self._content = _Content(path, hasher())

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
        """Has the blocks that are there from the beginning on taken into the digest, and waits
        while that is far behind."""
        self._content.catch_up(self._done, length=self._length)

    def digest(self) -> str:
        """The digest of the whole content. All blocks must be there."""
        return self._content.digest()

    def forget(self) -> None:
        """Everything has to be brought again."""
        self._record.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._content = _Content(self.path, self._hasher())

    def restart(self) -> None:
        """As if nothing had ever arrived. Only while one thread is at this file."""
        self._record.unlink(missing_ok=True)
        with self.path.open("wb"):  # not removed: the thread has it open
            pass
        self._content = _Content(self.path, self._hasher())
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

    def __init__(self, path: Path, hasher: Hash) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._hash = hasher
        self._upto = 0
        self._moved = threading.Condition()
        self._is_asked = self._is_busy = False

    def catch_up(self, done: set[int], *, length: Callable[[int], int]) -> None:
        """Has a thread digest on through the blocks in ``done`` until one is missing; waits while
        it is at that and more than :data:`LEAD_BYTES` behind."""
        with self._moved:
            if not self._is_asked and not self._is_busy:
                self._is_asked = True
                _DIGESTERS.submit(self._advance, done, length)
            self._moved.wait_for(lambda: not self._is_busy or not self._is_far_behind(done))

    def _is_far_behind(self, done: set[int]) -> bool:
        return len(done) * BLOCK_BYTES - self._upto > LEAD_BYTES

    def _advance(self, done: set[int], length: Callable[[int], int]) -> None:
        with self._moved:
            self._is_asked = False
        if not self._lock.acquire(blocking=False):  # the rest is being digested already
            return
        try:
            if self._upto not in done:
                return
            with self._path.open("rb", buffering=0) as file:
                self._is_busy = True
                while self._upto in done:
                    self._take(file, self._upto + length(self._upto))
                    if not self._is_far_behind(done):  # else all would wake to wait again
                        with self._moved:
                            self._moved.notify_all()
        except FileNotFoundError:
            return  # everything is brought again, with another digest
        finally:
            self._lock.release()
            with self._moved:
                self._is_busy = False
                self._moved.notify_all()

    def digest(self) -> str:
        """Digests the rest."""
        with self._lock, self._path.open("rb", buffering=0) as file:
            self._take(file, os.fstat(file.fileno()).st_size)
            return self._hash.hexdigest()

    def _take(self, file: FileIO, end: int) -> None:
        file.seek(self._upto)
        while self._upto < end:
            chunk = file.read(min(_DIGEST_BYTES, end - self._upto))
            if not chunk:  # shorter than it should be: the digest will tell
                return
            self._hash.update(chunk)
            self._upto += len(chunk)


def part_name(file: OriginFile) -> str:
    """The same for the next fetcher, whatever is complete then; and short, whatever the key is."""
    return hashlib.sha256(file.path.encode()).hexdigest()[:32]


def write_at(descriptor: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
