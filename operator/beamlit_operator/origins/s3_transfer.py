"""Brings S3 objects in parallel ranges, and takes nothing but the revision that was listed.

Every range is asked for with ``If-Match``, so that an object which changed after it was listed
fails instead of being stitched together from two versions. Finished blocks are noted beside the
file: a fetcher that was killed brings at most the blocks again that were under way.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from io import FileIO
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError as Urllib3Error

from beamlit_operator.origins import s3
from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.progress import Progress
from beamlit_operator.origins.ref import S3Ref
from beamlit_operator.origins.staging import Staging

PART_BYTES = 16 * 2**20
"""What one request asks for."""

BLOCK_BYTES = 2 * 2**20
"""What is noted as soon as it is there. A fetcher that is killed brings at most one block of each
connection again: together as much as one part."""

_CHUNK_BYTES = 256 * 1024
_DIGEST_BYTES = 2**20
_ATTEMPTS = 5

_MD5 = re.compile(r"[0-9a-f]{32}")


class _Object:
    """One object on its way: its file, and which of its blocks are there."""

    def __init__(self, file: OriginFile, path: Path) -> None:
        self.file = file
        self.path = path
        self._record = path.with_suffix(".done")
        self._lock = threading.Lock()
        self.encrypted = False
        self._block = min(BLOCK_BYTES, PART_BYTES)
        blocks = range(0, max(file.size, 1), self._block)
        self._done = self._recorded() if path.exists() else set()
        missing = [start for start in blocks if start not in self._done]
        self._left = len(missing)
        self._claimed = False
        self.brought = file.size - sum(map(self._length, missing))
        self.pending = list(self._ranges(missing))
        self._content = _Content(path)

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
        """Takes the blocks that are there from the beginning on into the digest, unless another
        thread does: with many ranges most of the content is digested when the last one is there."""
        self._content.advance(lambda: self._done, length=self._length)

    def md5(self) -> str:
        """The digest of the whole content. All blocks must be there."""
        return self._content.digest()

    def forget(self) -> None:
        """Everything has to be brought again."""
        self._record.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._content = _Content(self.path)

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
    """The MD5 of a file that grows in ranges of any order; it is computed in the order of bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # The store's own digest; it guards against accidents, not against attackers.
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._upto = 0

    def advance(self, done: Callable[[], set[int]], *, length: Callable[[int], int]) -> None:
        """Digests on through the ranges in ``done`` until one is missing; returns at once when
        another thread is at it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._upto not in done():
                return
            with self._path.open("rb", buffering=0) as file:
                while self._upto in done():
                    self._take(file, self._upto + length(self._upto))
        finally:
            self._lock.release()

    def digest(self) -> str:
        """Digests the rest."""
        with self._lock, self._path.open("rb", buffering=0) as file:
            self._take(file, os.fstat(file.fileno()).st_size)
            return self._md5.hexdigest()

    def _take(self, file: FileIO, end: int) -> None:
        file.seek(self._upto)
        while self._upto < end:
            chunk = file.read(min(_DIGEST_BYTES, end - self._upto))
            if not chunk:  # shorter than it should be: the digest will tell
                return
            self._md5.update(chunk)
            self._upto += len(chunk)


class Transfer:
    """Brings the objects of one listing."""

    def __init__(
        self,
        ref: S3Ref,
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
        client = s3.client(self._ref, self._credentials)
        objects = [_Object(file, self._staging.parts / _part_name(file)) for file in files]
        pool = ThreadPoolExecutor(s3.MAX_CONNECTIONS, thread_name_prefix="s3")
        try:
            futures = []
            for item in objects:
                self._progress.add(item.brought)
                if not item.pending:  # killed between the last block and the verification
                    futures.append(pool.submit(self._conclude, client, item))
                futures += [pool.submit(self._part, client, item, *each) for each in item.pending]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            client.close()

    def _part(self, client: Any, item: _Object, start: int, end: int) -> None:
        self._range(client, item, start, end)
        if item.claim():
            self._conclude(client, item)
        elif _has_md5(item):
            item.digest_ahead()

    def _conclude(self, client: Any, item: _Object) -> None:
        """Compares with the ETag, where that is an MD5.

        An ETag of 32 hex digits is the content's MD5 at most stores, but not where objects are
        encrypted with a managed key and not in directory buckets. So a mismatch is believed only
        if the second attempt brings other bytes than the first.
        """
        if not _has_md5(item):
            self._completed(item)
            return
        first = item.md5()
        if first != item.file.digest:
            item.forget()
            self._progress.add(-item.file.size)
            for start, end in item.whole():
                self._range(client, item, start, end)
            second = item.md5()
            if second not in (first, item.file.digest):
                item.forget()
                raise OriginError(
                    OriginReason.CORRUPT,
                    f"{item.file.source!r} of {self._ref.place} arrives differently each time: "
                    "check the network and proxies between",
                )
        self._completed(item)

    def _completed(self, item: _Object) -> None:
        item.complete(self._staging)
        self._progress.completed()

    def _range(self, client: Any, item: _Object, start: int, end: int) -> None:
        """Brings one range, going on after interruptions where they happened."""
        offset, failures = start, 0
        descriptor = os.open(item.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            while offset < end:
                before = offset
                try:
                    offset = self._stream(client, item, descriptor, offset, end)
                except (ClientError, BotoCoreError, Urllib3Error, ConnectionError, _Short) as error:
                    offset = error.offset if isinstance(error, _Short) else before
                    failures = 1 if offset > before else failures + 1
                    problem = self._judge(error, item)
                    if failures >= _ATTEMPTS or problem.stalled or _is_final(problem):
                        raise problem from None
                    self._stop.wait(min(0.2 * 2**failures, 5.0))
                if self._stop.is_set():
                    raise OriginError(OriginReason.UNREACHABLE, "interrupted")
        finally:
            os.close(descriptor)

    def _stream(self, client: Any, item: _Object, descriptor: int, offset: int, end: int) -> int:
        answer = client.get_object(
            Bucket=self._ref.bucket,
            Key=item.file.source,
            IfMatch=f'"{item.file.digest}"',
            Range=f"bytes={offset}-{end - 1}",
        )
        body = answer["Body"]
        try:
            # Not every compatible store honours If-Match.
            if answer.get("ETag", "").strip('"') != item.file.digest:
                raise self._changed(item)
            if answer.get("ContentRange", f"bytes {offset}-").split("-")[0] != f"bytes {offset}":
                raise self._changed(item)
            if answer["ContentLength"] != end - offset:
                raise self._changed(item)
            if str(answer.get("ServerSideEncryption", "")).startswith("aws:kms"):
                item.encrypted = True
            while offset < end and not self._stop.is_set():
                chunk = body.read(min(_CHUNK_BYTES, end - offset))
                if not chunk:
                    raise _Short(offset)
                _write_at(descriptor, chunk, offset)
                before, offset = offset, offset + len(chunk)
                self._progress.add(len(chunk))
                if item.reached(before, offset) and offset < end and _has_md5(item):
                    item.digest_ahead()
        except (BotoCoreError, Urllib3Error, ConnectionError):
            raise _Short(offset) from None
        finally:
            body.close()
        return offset

    def _judge(self, error: Exception, item: _Object) -> OriginError:
        if isinstance(error, _Short):
            return OriginError(
                OriginReason.UNREACHABLE,
                f"the store of {self._ref.place} breaks off while sending {item.file.source!r}: "
                "check the network and the store",
            )
        if isinstance(error, ClientError | BotoCoreError):
            problem = s3.judge(error, self._ref, self._credentials)
            return self._changed(item) if problem.reason is OriginReason.CHANGED else problem
        return OriginError(
            OriginReason.UNREACHABLE,
            f"{self._ref.place} cannot be reached ({type(error).__name__}): check the network",
        )

    def _changed(self, item: _Object) -> OriginError:
        return OriginError(
            OriginReason.CHANGED,
            f"object {item.file.source!r} of {self._ref.place} was changed or removed while it was "
            "fetched: the next attempt takes what is there then",
        )


class _Short(Exception):  # noqa: N818 - not an error of the caller's
    """The body ended or broke at ``offset``."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def _part_name(file: OriginFile) -> str:
    """The same for the next fetcher, whatever is complete then; and short, whatever the key is."""
    return hashlib.sha256(file.path.encode()).hexdigest()[:32]


def _is_final(problem: OriginError) -> bool:
    return problem.reason is OriginReason.CHANGED


def _write_at(descriptor: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _has_md5(item: _Object) -> bool:
    """Whether the ETag is the content's MD5, as far as is known."""
    return _MD5.fullmatch(item.file.digest) is not None and not item.encrypted
