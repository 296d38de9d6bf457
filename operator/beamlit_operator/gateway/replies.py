"""The errors a caller may get from the gateway, all of one shape.

``{"error": {"code": 404, "reason": "UnknownModel", "message": "..."}}``
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class ErrorReason(StrEnum):
    """Why a request was not served."""

    UNAUTHENTICATED = "Unauthenticated"
    FORBIDDEN = "Forbidden"
    UNDECIDED = "Undecided"
    NOT_FOUND = "NotFound"
    UNKNOWN_WORKSPACE = "UnknownWorkspace"
    UNKNOWN_MODEL = "UnknownModel"
    UNKNOWN_ENVIRONMENT = "UnknownEnvironment"
    UNKNOWN_REVISION = "UnknownRevision"
    DEACTIVATED = "Deactivated"
    DUPLICATE = "Duplicate"
    NOT_READY = "NotReady"
    START_FAILED = "StartFailed"
    WAKE_REFUSED = "WakeRefused"
    START_TIMEOUT = "StartTimeout"
    TOO_MANY_HELD = "TooManyHeld"
    OVERLOADED = "Overloaded"
    UNAVAILABLE = "Unavailable"
    UPSTREAM_RESET = "UpstreamReset"
    BAD_REQUEST = "BadRequest"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    HEADERS_TOO_LARGE = "HeadersTooLarge"
    REQUEST_TIMEOUT = "RequestTimeout"
    DRAINING = "Draining"
    GATEWAY_ERROR = "GatewayError"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the gateway itself. ``retry_after`` is in seconds, ``allow`` the methods that a
    405 has to name (RFC 9110, 15.5.6)."""

    status: int
    reason: str
    message: str
    retry_after: float | None = None
    allow: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def body(self) -> str:
        """The JSON document, one line."""
        error = {"code": self.status, "reason": self.reason, "message": self.message}
        return json.dumps({"error": {**error, **self.details}}) + "\n"

    def for_openai(self) -> Reply:
        """The same with the fields that OpenAI's clients read beside ours."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return replace(self, details={"type": kind, "param": None})

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it. ``Retry-After`` is whole seconds (RFC 9110, 10.2.3)."""
        found = {"content-type": "application/json"}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.allow is not None:
            found["allow"] = self.allow
        return found
