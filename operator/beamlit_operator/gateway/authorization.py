"""Answers Envoy's question about a held request: where may it go?

Envoy's external-authorization API, used as an asynchronous gate: the call stays open while the
deployment starts. A caller that hangs up ends the call, which cancels the wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.cold import ColdStarts, Released
from beamlit_operator.gateway.loads import LoadBook
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.protos import AuthorizationServicer, CheckResponse, Message
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.room import held_bytes

log = logging.getLogger(__name__)

_OK, _DENIED = 0, 7  # google.rpc.Code


class Authorization(AuthorizationServicer):  # type: ignore[misc]
    """The gRPC face of :class:`ColdStarts`."""

    def __init__(
        self,
        cold: ColdStarts,
        book: LoadBook,
        *,
        logged: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``logged``: the main listener takes what is said of a request into its access log."""
        self._cold = cold
        self._book = book
        self._logged = logged
        self._clock = clock

    async def Check(  # noqa: N802 (the name in the .proto)
        self, request: Message, _context: Any
    ) -> Message:
        """Holds the call until there is an answer."""
        headers = request.attributes.request.http.headers
        cluster = headers.get(names.CLUSTER_HEADER, "")
        revision = RevisionKey.of_cluster(cluster)
        if revision is None:
            log.error("a request reached the cold listener for the unknown cluster %r", cluster)
            return _denied(Reply(404, ErrorReason.NOT_FOUND, f"no deployment is named {cluster!r}"))
        if not self._cold.limited(revision):
            # Else it is counted when a pod takes it, by the cluster of the pods.
            self._book.cold_request(revision)
        began = self._clock()
        outcome = await self._cold.admit(
            revision,
            size=held_bytes(_length(headers)),
            # The route was chosen by it, or the request would not have come here.
            pinned=bool(headers.get(names.REVISION_HEADER)),
        )
        facts = {}
        if self._logged:
            facts[names.HELD_HEADER] = str(round((self._clock() - began) * 1000))
        if not isinstance(outcome, Released):
            return _denied(outcome, facts)
        if self._logged:
            facts[names.POD_HEADER] = str(outcome.pod)
        if outcome.revision not in (None, revision):
            # Its route says otherwise: traffic moved while it was on its way.
            facts[names.REVISION_HEADER] = outcome.revision.revision
        return _allowed(outcome, facts)


def _length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body that is announced; None when there is one of unknown length."""
    announced = headers.get("content-length", "")
    if announced.isdigit():
        return int(announced)
    is_bare = headers.get(":method") in ("GET", "HEAD") and "transfer-encoding" not in headers
    return 0 if is_bare else None


def _allowed(released: Released, facts: Mapping[str, str]) -> Message:
    return CheckResponse(
        status={"code": _OK},
        ok_response={
            "headers": [_header(names.WAY_HEADER, released.way)],
            "response_headers_to_add": [_header(key, value) for key, value in facts.items()],
        },
        dynamic_metadata={names.DESTINATION_KEY: str(released.pod)},
    )


def _denied(reply: Reply, facts: Mapping[str, str] = MappingProxyType({})) -> Message:
    return CheckResponse(
        status={"code": _DENIED, "message": reply.reason},
        denied_response={
            "status": {"code": reply.status},
            "headers": [_header(key, value) for key, value in {**reply.headers, **facts}.items()],
            "body": reply.body,
        },
    )


def _header(key: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": key, "value": value},
        # Replaces what the caller may have sent under this name.
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
