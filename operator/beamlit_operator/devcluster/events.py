"""Events about objects, counted when they repeat, as client-go's recorder does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Literal

from beamlit_operator.devcluster.timestamps import now_utc, written
from beamlit_operator.kube import EVENTS, ApiError, Json, KubeClient

log = logging.getLogger(__name__)

REMEMBERED = 4096
"""Distinct events whose count is continued; client-go's LRU has the same size."""


class EventRecorder:
    """Writes events in the background; a failed write loses the event, never the work."""

    def __init__(self, client: KubeClient, component: str) -> None:
        self._client = client
        self._component = component
        self._known: OrderedDict[tuple[str, ...], Json] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Json, str, str, str, str | None, str]] = asyncio.Queue()

    def record(
        self,
        regarding: Json,
        reason: str,
        message: str,
        *,
        type: Literal["Normal", "Warning"] = "Normal",
        field_path: str | None = None,
        host: str = "",
    ) -> None:
        """Queues one event about ``regarding``; ``host`` is the node it happened on."""
        self._queue.put_nowait((regarding, reason, message, type, field_path, host))

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            regarding, reason, message, kind, field_path, host = await self._queue.get()
            try:
                await self._write(regarding, reason, message, kind, field_path, host)
            except ApiError as error:
                # A namespace that is being deleted takes no new events.
                log.debug("event %s not written: %s", reason, error)

    async def _write(
        self,
        regarding: Json,
        reason: str,
        message: str,
        kind: str,
        field_path: str | None,
        host: str,
    ) -> None:
        metadata = regarding["metadata"]
        now = written(now_utc())
        identity = (metadata.get("uid", ""), reason, message, kind, field_path or "")
        known = self._known.get(identity)
        if known is not None:
            self._known.move_to_end(identity)
            try:
                self._known[identity] = await self._client.merge_patch(
                    EVENTS,
                    known["metadata"]["name"],
                    {"count": known.get("count", 1) + 1, "lastTimestamp": now},
                    known["metadata"]["namespace"],
                )
                return
            except ApiError as error:
                if not error.not_found:
                    raise
        namespace = metadata.get("namespace") or "default"
        involved = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
            "fieldPath": field_path,
        }
        source = {"component": self._component, "host": host}
        self._known[identity] = await self._client.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    # As client-go names them: a list in name order is in order of time.
                    "name": f"{metadata['name'][:230]}.{time.time_ns():x}",
                    "namespace": namespace,
                },
                "involvedObject": {k: v for k, v in involved.items() if v},
                "reason": reason,
                "message": message[:1024],
                "type": kind,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {k: v for k, v in source.items() if v},
                "reportingComponent": self._component,
                "reportingInstance": host,
            },
            namespace,
        )
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
