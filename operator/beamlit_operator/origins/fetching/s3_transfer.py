"""Brings S3 objects in parallel ranges, and takes nothing but the revision that was listed.

Every range is asked for with ``If-Match``, so that an object which changed after it was listed
fails instead of being stitched together from two versions. How a killed one goes on is told in
:mod:`.arriving`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError as Urllib3Error

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.arriving import (
    CHUNK_BYTES,
    Arriving,
    bringers,
    part_name,
    write_at,
)
from beamlit_operator.origins.fetching.progress import Progress
from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.ref import S3Ref
from beamlit_operator.origins.stores import s3
from beamlit_operator.origins.stores.reach import why

_ATTEMPTS = 5

_MD5 = re.compile(r"[0-9a-f]{32}")


class _Object(Arriving):
    """One object on its way."""

    def __init__(self, file: OriginFile, path: Path, *, stop: threading.Event) -> None:
        # The store's own digest; it guards against accidents, not against attackers.
        md5 = partial(hashlib.md5, usedforsecurity=False)
        super().__init__(file, path, hasher=md5, stop=stop)
        self.encrypted = False


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
        objects = [
            _Object(file, self._staging.parts / part_name(file), stop=self._stop) for file in files
        ]
        pool = bringers(s3.MAX_CONNECTIONS, name="s3")
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
        except KeyboardInterrupt:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # a store may be slow to answer
            raise
        except BaseException:
            self._end(pool, client)
            raise
        self._end(pool, client)

    def _end(self, pool: ThreadPoolExecutor, client: Any) -> None:
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
        first = item.digest()
        if first != item.file.digest:
            item.forget()
            self._progress.add(-item.file.size)
            for start, end in item.whole():
                self._range(client, item, start, end)
            second = item.digest()
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
            **s3.version_of(item.file),
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
                chunk = body.read(min(CHUNK_BYTES, end - offset))
                if not chunk:
                    raise _Short(offset)
                with item.writing:
                    write_at(descriptor, chunk, offset)
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
            f"{self._ref.place} cannot be reached: {why(error)}",
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


def _is_final(problem: OriginError) -> bool:
    return problem.reason is OriginReason.CHANGED


def _has_md5(item: _Object) -> bool:
    """Whether the ETag is the content's MD5, as far as is known."""
    return _MD5.fullmatch(item.file.digest) is not None and not item.encrypted
