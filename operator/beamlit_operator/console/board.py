"""Keeps the rows current and tells every open page what changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from beamlit_operator.console.rows import Json, row_of
from beamlit_operator.kube import (
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    Change,
    KubeClient,
    Reflector,
    Resource,
)

SHOWN = (ENVIRONMENTS, MODELS, MODEL_DEPLOYMENTS)

SETTLE = 0.1
"""Seconds in which changes are gathered before a page is told: at most ten updates a second."""


class Reader:
    """One open page: the keys it has not been told about yet.

    Keys, not changes: a slow page gets the latest state once, however often it changed.
    """

    def __init__(self) -> None:
        self.pending: set[str] = set()
        self.awake = asyncio.Event()

    def tell(self, key: str) -> None:
        """Remembers that the row changed."""
        self.pending.add(key)
        self.awake.set()


class Board:
    """The rows of a cluster, or of one workspace of it, by key."""

    def __init__(self, client: KubeClient, *, namespace: str | None = None) -> None:
        self._rows: dict[str, Json] = {}
        self._readers: set[Reader] = set()
        self._reflectors = [
            Reflector(client, resource, namespace=namespace, on_change=self._follow(resource))
            for resource in SHOWN
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Board]:
        """Follows the cluster inside the block."""
        tasks = [asyncio.create_task(reflector.run()) for reflector in self._reflectors]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def synced(self) -> bool:
        """Whether everything was read once."""
        return all(reflector.synced for reflector in self._reflectors)

    async def batches(self) -> AsyncGenerator[list[Json], None]:
        """For one page: everything there is, then what changed, as ``{key, row}``.

        ``row`` is None when the object is gone.
        """
        for reflector in self._reflectors:
            await reflector.wait_synced()
        reader = Reader()
        self._readers.add(reader)
        try:
            yield list(self._entries(sorted(self._rows)))
            while True:
                await reader.awake.wait()
                await asyncio.sleep(SETTLE)
                reader.awake.clear()
                keys, reader.pending = reader.pending, set()
                yield list(self._entries(sorted(keys)))
        finally:
            self._readers.discard(reader)

    def _entries(self, keys: list[str]) -> Iterator[Json]:
        for key in keys:
            yield {"key": key, "row": self._rows.get(key)}

    def _follow(self, resource: Resource) -> Callable[[Change], None]:
        def on_change(change: Change) -> None:
            key = f"{resource.kind}/{change.key.namespace}/{change.key.name}"
            row = row_of(change.new) if change.new is not None else None
            if self._rows.get(key) == row:
                return
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row
            for reader in self._readers:
                reader.tell(key)

        return on_change
