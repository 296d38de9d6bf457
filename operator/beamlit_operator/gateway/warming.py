"""How long routes wait for clusters that Envoy has not warmed. No clock, no I/O.

====================================  ==========================================================
since the last look                   routes wait
====================================  ==========================================================
no cluster is warming                 for nothing
some that were waited for are warm    :data:`WARMING_LIMIT` from now on, for the rest of them
none of them is, others may be new    as long as it was: what comes later, and whatever else
                                      changes, must not keep everybody's routes back
====================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Set

WARMING_LIMIT = 30.0
"""Seconds in which none of the clusters that routes wait for became warm. What Envoy refuses it
says, so this is for what nobody knows of: long enough that a machine under load, whose callers
would get a 503 for a cluster on its way, never meets it."""


class WarmingPatience:
    """Which clusters are waited for, and for how much longer."""

    def __init__(self) -> None:
        self.waited_for: frozenset[str] = frozenset()
        self._since = 0.0

    def left(self, warming: Set[str], now: float) -> float | None:
        """Seconds for which routes wait for :attr:`waited_for`; None when they need not wait.

        ``warming`` are the clusters without which routes do not go; ``now`` is monotonic seconds.
        """
        still = self.waited_for & warming
        if not still or still != self.waited_for:
            self.waited_for, self._since = still or frozenset(warming), now
        return self._since + WARMING_LIMIT - now if warming else None
