"""Watches: what one watcher sees of a collection, with selectors, bookmarks and a bounded queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from beamlit_operator.devcluster.apiserver.selectors import Matcher
from beamlit_operator.devcluster.apiserver.store import Collection, Entry, Event, Store

BACKLOG: Final = 5_000
"""Events a watcher may fall behind before it is dropped; its client lists or watches again."""

BOOKMARKS: Final = 60.0
"""Seconds between bookmarks, as in Kubernetes."""

Kind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as this watcher sees it; a bookmark has a version only.

    ``initial_end`` marks the bookmark that ends a streamed list.
    """

    kind: Kind
    entry: Entry | None
    version: int
    initial_end: bool = False


class Watch:
    """One watcher. Registers with the collection at once, so that nothing is missed."""

    def __init__(
        self,
        store: Store,
        collection: Collection,
        *,
        namespace: str | None,
        matcher: Matcher | None,
        version: int | None,
        timeout: float,
        bookmarks: bool,
        initial_bookmark: bool = False,
    ) -> None:
        """``version`` None starts with what exists; ``timeout`` is in seconds.

        Raises:
            ApiError: 410, the history does not reach back to ``version``.
        """
        self._store = store
        self._collection = collection
        self._namespace = namespace
        self._matcher = matcher
        self._timeout = timeout
        self._bookmarks = bookmarks
        self._queue: deque[Seen] = deque()
        self._ready = asyncio.Event()
        self._ended = False
        self.dropped = False
        self._after = version or 0
        """A watch may begin in the future: it stays silent until then."""
        if version is None:
            entries = [e for e in collection.select(namespace) if self._selects(e)]
            entries.sort(key=lambda entry: entry.key)
            self._queue.extend(Seen("ADDED", e, e.version) for e in entries)
            if initial_bookmark:
                self._queue.append(Seen("BOOKMARK", None, store.version, initial_end=True))
        else:
            for event in collection.since(version):
                self._offer(event)
        collection.listeners.add(self._offer)

    def close(self) -> None:
        """Stops listening; safe to call twice."""
        self._collection.listeners.discard(self._offer)

    def end(self) -> None:
        """Ends the stream now, as at its timeout."""
        self._ended = True
        self._ready.set()

    def _selects(self, entry: Entry | None) -> bool:
        return entry is not None and (self._matcher is None or self._matcher(entry.obj))

    def _offer(self, event: Event) -> None:
        entry = event.entry
        if entry.version <= self._after:
            return
        if self._namespace is not None and entry.key.namespace != self._namespace:
            return
        if self._matcher is None:
            kind: Kind = event.type
        else:
            # An object that begins or ceases to match appears or disappears for this watcher.
            now = event.type != "DELETED" and self._selects(entry)
            before = self._selects(event.before)
            if not now and not before:
                return
            kind = "MODIFIED" if now and before else "ADDED" if now else "DELETED"
        if len(self._queue) >= BACKLOG:
            self.dropped = True
            self._queue.clear()
            self.close()
        else:
            self._queue.append(Seen(kind, entry, entry.version))
        self._ready.set()

    async def batches(self) -> AsyncIterator[list[Seen]]:
        """What happened, in order, as many events at a time as have gathered; ends at the timeout
        or when this watcher was too slow."""
        end = time.monotonic() + self._timeout
        bookmark = time.monotonic() + BOOKMARKS
        try:
            while not self.dropped and not self._ended:
                if self._queue:
                    batch = list(self._queue)
                    self._queue.clear()
                    self._ready.clear()
                    yield batch
                    continue
                self._ready.clear()
                now = time.monotonic()
                if now >= end:
                    break
                if self._bookmarks and now >= bookmark:
                    bookmark = now + BOOKMARKS
                    yield [Seen("BOOKMARK", None, self._store.version)]
                    continue
                until = min(end, bookmark) if self._bookmarks else end
                try:
                    async with asyncio.timeout(until - now):
                        await self._ready.wait()
                except TimeoutError:
                    continue
            if self._bookmarks and not self.dropped:
                yield [Seen("BOOKMARK", None, self._store.version)]
        finally:
            self.close()
