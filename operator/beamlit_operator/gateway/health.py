"""Can this gateway serve? docs/operations.md has the same table.

Alive: as long as the agent's event loop turns, which an answer shows. Nothing else that can be
wrong is mended by starting the agent anew: Envoy is started again by whoever runs it, and an API
server that is away is away for the next agent too.

Ready, the first that applies:

| what is so                                                              | ready |
|-------------------------------------------------------------------------|-------|
| the gateway drains before it ends                                       | no    |
| the API server was not read yet                                         | no    |
| Envoy has not taken its first full configuration, or is gone            | no    |
| Envoy's main thread has not answered for :data:`ENVOY_SILENT`           | no    |
| the API server is away, or watches are silent                           | yes   |
| Envoy refuses a part of later configuration, or is slow to take it      | yes   |

The last two are told by metrics: what is served goes on being served, and a gateway that is taken
away from callers would end that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

ENVOY_SILENT = 10.0
"""Seconds without an answer after which Envoy counts as hung. It answers nothing while it reads a
large route table, which takes half a second."""

PATIENCE = 2.0
"""Seconds for one question."""


class EnvoyPulse:
    """Whether Envoy answers, asked when somebody wants to know."""

    def __init__(
        self, answers: Callable[[float], Awaitable[bool]], *, clock: Callable[[], float]
    ) -> None:
        """``answers`` asks Envoy and waits at most so many seconds."""
        self._answers = answers
        self._clock = clock
        self._silent_since: float | None = None

    async def hung(self) -> str:
        """Why Envoy counts as hung; empty when it does not."""
        asked = self._clock()
        if await self._answers(PATIENCE):
            self._silent_since = None
            return ""
        if self._silent_since is None:
            self._silent_since = asked
        silent = self._clock() - self._silent_since
        if silent < ENVOY_SILENT:
            return ""
        return f"Envoy has not answered for {silent:.0f} s"
