"""How many requests may wait for starts at this gateway, and what each of them costs. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from beamlit_operator.gateway.names import DeploymentKey
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.settings import GatewaySettings

HELD_BASE, HELD_BODY = 110 * 1024, 520 * 1024
"""Bytes of Envoy's memory for a held request, and for its body at most: the rest of a body stays
with its caller. As measured with uploads of 1 MB: 310 KiB over HTTP/1.1, 520 KiB over HTTP/2."""

TOO_MANY_RETRY = 1.0
"""Seconds after which a caller refused for the queue's length may come again."""


def held_bytes(content_length: int | None) -> int:
    """What holding a request costs in memory; None is a body of unknown length."""
    return HELD_BASE + (HELD_BODY if content_length is None else min(content_length, HELD_BODY))


class Room:
    """What is held now, against the limits of the settings."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._requests = 0
        self._bytes = 0

    def refusal(self, deployment: DeploymentKey, *, in_line: int, size: int) -> Reply | None:
        """The refusal of a request for which there is no place to wait, if there is none.

        ``in_line`` requests wait for the same start; ``size`` is what holding this one costs.
        """
        limits = self._settings
        if in_line >= limits.max_held_per_deployment:
            what = f"{in_line} requests wait already for {str(deployment)!r} to start"
        elif self._requests >= limits.max_held or self._bytes + size > limits.max_held_bytes:
            what = f"this gateway holds {self._requests} requests for models that start: it is full"
        else:
            return None
        return Reply(429, ErrorReason.TOO_MANY_HELD, what, TOO_MANY_RETRY)

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """One request is held until the end of the block."""
        self._requests += 1
        self._bytes += size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
