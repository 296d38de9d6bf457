"""The errors a caller may get from the gateway, all of one shape.

``{"error": {"code": 404, "reason": "UnknownModel", "message": "..."}}``
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum


class ErrorReason(StrEnum):
    """Why a request was not served."""

    NOT_FOUND = "NotFound"
    UNKNOWN_WORKSPACE = "UnknownWorkspace"
    UNKNOWN_MODEL = "UnknownModel"
    UNKNOWN_ENVIRONMENT = "UnknownEnvironment"
    DEACTIVATED = "Deactivated"
    DUPLICATE = "Duplicate"
    NOT_READY = "NotReady"
    START_FAILED = "StartFailed"
    WAKE_REFUSED = "WakeRefused"
    START_TIMEOUT = "StartTimeout"
    TOO_MANY_HELD = "TooManyHeld"
    UNAVAILABLE = "Unavailable"
    UPSTREAM_RESET = "UpstreamReset"
    BAD_REQUEST = "BadRequest"
    GATEWAY_ERROR = "GatewayError"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the gateway itself. ``retry_after`` is in seconds."""

    status: int
    reason: str
    message: str
    retry_after: float | None = None

    @property
    def body(self) -> str:
        """The JSON document, one line."""
        error = {"code": self.status, "reason": self.reason, "message": self.message}
        return json.dumps({"error": error}) + "\n"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it. ``Retry-After`` is whole seconds (RFC 9110, 10.2.3)."""
        found = {"content-type": "application/json"}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        return found
