"""Events: the story that `kubectl describe` tells. Written on transitions only."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime

from beamlit_operator.api import labels
from beamlit_operator.controllers.ending import is_ending
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.plan import Announcement
from beamlit_operator.kube import EVENTS, ApiError, Json, KubeClient, ObjectKey

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024
"""Characters an Event's message may have (Kubernetes' limit)."""


class Announcer:
    """Writes Events. One that cannot be written is logged and dropped: it is only a story."""

    def __init__(self, client: KubeClient, *, identity: str, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._identity = identity
        self._clock = clock

    async def announce(self, key: Key | ObjectKey, about: Json, event: Announcement) -> None:
        """Writes one Event about an object, in a namespace that is its own or named by the key."""
        workspace = key.namespace if isinstance(key, ObjectKey) else key.workspace
        now = self._clock()
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = about["metadata"]
        unique = hashlib.sha256(
            f"{metadata.get('uid')}/{event.reason}/{event.message}/{now.isoformat()}".encode()
        ).hexdigest()[:16]
        body: Json = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{key.name[:200]}.{unique}", "namespace": workspace},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": key.name,
                "namespace": workspace,
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MAX_MESSAGE],
            "source": {"component": labels.OPERATOR_NAME},
            "reportingComponent": labels.OPERATOR_NAME,
            "reportingInstance": self._identity,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            await self._client.create(EVENTS, body, workspace)
        except ApiError as error:
            if is_ending(error):
                # Nobody reads it there any more.
                return
            log.warning("%s: the Event %s could not be written: %s", key, event.reason, error)
