"""The operator's own listings of our kinds: the first, and the slow resync.

kopf watches, and misses some deletions: what is held is compared with the API server now and then.
Whatever happens to an object is heard of and makes it be looked at; looking at all of them now and
then only mends what should not happen, and all at once would cost more than all else that goes on
in a cluster at rest. So each turn looks at a part of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from zlib import crc32

from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind
from beamlit_operator.kube import ApiError, Json, KubeClient, ObjectKey

log = logging.getLogger(__name__)

LOOKS = 6
"""In how many resyncs every object is looked at once."""

FIRST_AUDIT = 20.0
"""Seconds after the start of the first audit: what was deleted while kopf began to watch."""

CLOCKS_AGREE = 30.0
"""Seconds by which clocks may differ before that is told."""


class Listings:
    """Reads our kinds, once before anything is decided and then in turns."""

    def __init__(
        self,
        client: KubeClient,
        *,
        indexes: Indexes,
        children: Iterable[Children],
        namespaces: Sequence[str | None],
        resync: float,
        look: Callable[[Key], None],
        clock_difference: Callable[[], float | None],
    ) -> None:
        """``resync`` is in seconds; ``look`` gets the keys of a turn; ``clock_difference`` says by
        how many seconds the clock here is ahead of the API server's."""
        self._client = client
        self._indexes = indexes
        self._children = tuple(children)
        self._namespaces = namespaces
        self._resync = resync
        self._look = look
        self._clock_difference = clock_difference
        self.done = False
        """Whether our kinds were read."""

    async def first(self) -> None:
        """Reads our kinds once before kopf does, so that the first plans know all there is."""
        while True:
            try:
                await self.audit()
            except ApiError as error:
                log.warning("the first listing failed: %s", error)
                await asyncio.sleep(error.retry_after or 2.0)
            else:
                self.done = True
                return

    async def run(self) -> None:
        """Audits, and looks at some of all objects again, until cancelled."""
        pause = min(FIRST_AUDIT, self._resync)
        for turn in itertools.count():
            await asyncio.sleep(pause)
            pause = self._resync
            try:
                await self.audit()
            except ApiError as error:
                log.warning("the audit failed and is left for the next time: %s", error)
                continue
            for children in self._children:
                children.audit()
            for key in self._indexes.all_keys():
                if crc32(key.name.encode()) % LOOKS == turn % LOOKS:
                    self._look(key)

    async def audit(self) -> None:
        """Compares what is held of our kinds with the API server.

        Raises:
            ApiError: it did not answer.
        """
        for kind in Kind:
            for namespace in self._namespaces:
                known = self._indexes.uids(kind)
                present: set[ObjectKey] = set()

                def take(item: Json, kind: Kind = kind, present: set[ObjectKey] = present) -> Json:
                    present.add(self._indexes.listed(kind, item))
                    return {}

                await self._client.list(kind.resource, namespace, each=take)
                self._indexes.retain(kind, present, namespace=namespace, known_before=known)
        self._mind_the_clock()

    def _mind_the_clock(self) -> None:
        """Tells when the clock here differs from the API server's."""
        ahead = self._clock_difference()
        if ahead is not None and abs(ahead) > CLOCKS_AGREE:
            how = "ahead of" if ahead > 0 else "behind"
            log.warning("the clock here is %.0f s %s the API server's", abs(ahead), how)
