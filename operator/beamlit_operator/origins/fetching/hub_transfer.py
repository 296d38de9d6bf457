"""Brings the files of a repository at one commit, and checks each against the Hub's digest.

| file                          | how it is asked for                                            |
|-------------------------------|----------------------------------------------------------------|
| small: git's own              | at the Hub, in one request                                     |
| large (LFS), with a Xet hash  | in ranges, by :mod:`origins.stores.hub_xet`                    |
| large, without, or Xet failed | in ranges, where the Hub says that it is; that is asked again  |
|                               | when the address is not good any more                          |

The token goes to the Hub's own host only. A file that arrives with another digest is brought once
more, by plain HTTP, before that counts as an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.fetching.arriving import Hash
from beamlit_operator.origins.fetching.progress import Progress
from beamlit_operator.origins.fetching.staging import Staging
from beamlit_operator.origins.fetching.web_transfer import RangedFile, RangedTransfer
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.ref import HubRef
from beamlit_operator.origins.stores import hub, hub_xet, web
from beamlit_operator.origins.stores.trust import AUTHORITIES


class _File(RangedFile):
    """One file on its way.

    Attributes:
        where: the Hub's answer to where it is; None: not known, or not good any more.
        plain: Xet is not tried any more.
        again: it is brought for the second time.
    """

    def __init__(self, file: OriginFile, path: Path, *, stop: threading.Event) -> None:
        super().__init__(file, path, hasher=_hasher(file), stop=stop)
        self.lock = threading.Lock()
        self.where: hub.Located | None = None
        self.plain = self.again = False


class Transfer(RangedTransfer[HubRef]):
    """Brings the files of one listing. The reference's revision is the listing's commit."""

    threads = "hub"

    def __init__(
        self,
        ref: HubRef,
        credentials: Mapping[str, str],
        *,
        staging: Staging,
        progress: Progress,
    ) -> None:
        super().__init__(ref, credentials, staging=staging, progress=progress)
        self._hub = web.Client(ref.place, credentials)
        trusted = {key: value for key, value in credentials.items() if key == AUTHORITIES}
        self._elsewhere = web.Client(ref.place, trusted)
        self._may_xet = hub_xet.is_usable(credentials)
        self._xet = hub_xet.Xet(credentials.get(hub.TOKEN))

    def _arriving(self, file: OriginFile, path: Path) -> _File:
        return _File(file, path, stop=self._stop)

    def _open(self, item: RangedFile, offset: int, end: int) -> AbstractContextManager[Any]:
        assert isinstance(item, _File)
        where = self._where(item)
        if where.xet is not None and self._may_xet and not item.plain:
            return self._by_xet(item, where.xet, offset=offset, end=end)
        client = self._hub if where.is_hub else self._elsewhere
        return client.ask("GET", where.url, {"Range": f"bytes={offset}-{end - 1}"})

    def _where(self, item: _File) -> hub.Located:
        with item.lock:
            if item.where is None:
                item.where = (
                    hub.locate(self._ref, self._credentials, item.file)
                    if item.file.digest.startswith("sha256:")
                    else hub.Located(hub.url_of(self._ref, item.file), is_hub=True)
                )
            return item.where

    @contextlib.contextmanager
    def _by_xet(
        self, item: _File, file: hub_xet.XetFile, *, offset: int, end: int
    ) -> Iterator[Any]:
        content = self._xet.read(file, offset, end)
        try:
            yield _Answer(content, offset=offset, end=end, size=file.size)
        except hub_xet.XetFailedError as error:
            item.plain = True
            raise OriginError(
                OriginReason.UNREACHABLE, f"{self._named(item)} cannot be had by Xet ({error})"
            ) from None
        finally:
            content.close()  # type: ignore[attr-defined]  # a generator's

    def _refused(self, item: RangedFile, answer: Any) -> OriginError:
        assert isinstance(item, _File)
        where, item.where = item.where, None
        status = int(answer.status)
        if status == 429:
            return OriginError(
                OriginReason.RATE_LIMITED,
                f"the Hub's rate limit is reached for {self._ref.place}: it is tried again later",
                retry_after_seconds=hub.retry_after(answer.headers),
            )
        if status in (401, 403, 404) and (where is None or where.is_hub):
            # The Hub's own words are in the answer to HEAD, and judged there.
            hub.locate(self._ref, self._credentials, item.file)
        return OriginError(
            OriginReason.UNREACHABLE, f"the Hub answered {status} for {self._named(item)}"
        )

    def _mismatch(self, item: RangedFile, found: str) -> OriginError | None:
        assert isinstance(item, _File)
        if not item.again:
            item.again = item.plain = True
            item.where = None
            return None
        return OriginError(
            OriginReason.CORRUPT,
            f"{self._named(item)} arrived with other content than the Hub lists: check the network"
            " and proxies between",
        )

    def _named(self, item: RangedFile) -> str:
        return f"{item.file.path!r} of {self._ref.place}"

    def _close(self) -> None:
        self._hub.close()
        self._elsewhere.close()
        self._xet.close()


class _Answer:
    """What Xet sends, in the form of an answer over HTTP."""

    status = 206

    def __init__(self, content: Iterator[bytes], *, offset: int, end: int, size: int) -> None:
        self.headers = {"Content-Range": f"bytes {offset}-{end - 1}/{size}"}
        self._content = content
        self._rest = memoryview(b"")

    def read(self, length: int) -> memoryview:
        """At most ``length`` bytes; none at the end."""
        while not self._rest:
            chunk = next(self._content, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk)
        part, self._rest = self._rest[:length], self._rest[length:]
        return part


def _hasher(file: OriginFile) -> Callable[[], Hash]:
    if file.digest.startswith("sha256:"):
        return hashlib.sha256
    # Git's digest of a blob covers a header too: git-hash-object(1).
    return lambda: hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
