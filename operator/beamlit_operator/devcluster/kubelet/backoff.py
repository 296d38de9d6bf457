"""How long a container that ended waits before it is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Kubelet's restart back-off: at once, then 10 s, 20 s, ... up to 5 minutes."""

    first: float = 10.0
    longest: float = 300.0
    calm: float = 600.0
    """A container that ran this long starts afresh."""

    def next_delay(self, last: float | None, *, ran_for: float) -> float:
        """Seconds to wait after an end; ``last`` is the delay before, None for the first end."""
        if last is None or ran_for >= self.calm:
            return 0.0
        return self.first if last == 0.0 else min(last * 2, self.longest)
