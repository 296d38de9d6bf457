"""Who has written what, and when: every request that could change something, as a line of JSON.

The fields are those of a Kubernetes audit event of the level Metadata, at the stage
ResponseComplete (`audit.k8s.io/v1`; docs: "Auditing"), so that what reads one reads the other. The
pod that sent a request is in ``user.extra``, by the token it used.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from beamlit_operator.devcluster.apiserver.access import USER, is_resource
from beamlit_operator.devcluster.apiserver.authorization import on_resource
from beamlit_operator.devcluster.apiserver.paths import segments_of, target_of
from beamlit_operator.devcluster.apiserver.users import ANONYMOUS

WRITES: Final = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_MICRO_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class AuditLog:
    """Appends to one file, in the order in which requests end."""

    def __init__(self, path: Path) -> None:
        """``path`` is made anew."""
        self._path = path
        path.write_text("")

    def note(self, request: web.Request, received: datetime, *, code: int) -> None:
        """A request was answered. Those on paths that are no resource do not count."""
        segments = segments_of(request.rel_url.raw_path)
        if not is_resource(segments) or not segments[3:]:
            return
        target = target_of(segments)
        reference = {
            "apiGroup": target.group,
            "apiVersion": target.version,
            "resource": target.plural,
            "namespace": target.namespace,
            "name": target.name,
            "subresource": target.subresource,
        }
        event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "stage": "ResponseComplete",
            "requestURI": str(request.rel_url),
            "verb": on_resource(request.method, target, request.query).verb,
            "user": request.get(USER, ANONYMOUS).info(),
            "userAgent": request.headers.get("User-Agent", ""),
            "objectRef": {name: value for name, value in reference.items() if value},
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": received.strftime(_MICRO_TIME),
            "stageTimestamp": datetime.now(UTC).strftime(_MICRO_TIME),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(event) + "\n")
