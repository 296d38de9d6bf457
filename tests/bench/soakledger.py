"""The soak's book: what became of each request, and whether that is our doing.

| the answer                                                      | counts as                      |
|-----------------------------------------------------------------|--------------------------------|
| 200, of the right deployment, complete                          | good                           |
| 200, of another one, or not what was to be sent                 | wrong                          |
| 502 ``UpstreamReset`` to a POST whose pod was killed meanwhile  | told: it may not be repeated   |
| 503 ``Unavailable`` to a POST of that kind, with a large body   | told: it cannot be repeated    |
| a body that breaks off with an error, pod killed meanwhile      | told: the caller knows         |
| a connection that broke or was refused while Envoy was away     | sent again by the caller       |
| anything else                                                   | lost                           |
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

TOLD = ("UpstreamReset", "Unavailable")

BEFORE = 1.0
"""Seconds around a kill that belong to it: who kills and who calls do not share a clock's tick."""


@dataclass(frozen=True, slots=True)
class Result:
    """One request. Times: monotonic seconds."""

    model: str
    kind: str
    began: float
    ended: float
    status: int = 0
    reason: str = ""
    """Of the error document, or the exception's name."""
    broke_off: bool = False
    """The answer had begun."""
    fault: str = ""
    """What is not as it should be; empty if all is."""


@dataclass
class Ledger:
    """All results, counted."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _killed: dict[str, list[float]] = field(default_factory=dict)
    _envoy_away: list[tuple[float, float]] = field(default_factory=list)

    def pod_killed(self, model: str) -> None:
        self.counts["pods killed"] += 1
        self._killed.setdefault(model, []).append(time.monotonic())

    def envoy_away(self, since: float) -> None:
        """Envoy is away from ``since`` until :meth:`envoy_back`."""
        self._envoy_away.append((since, float("inf")))

    def envoy_back(self) -> None:
        since, _ = self._envoy_away.pop()
        self._envoy_away.append((since, time.monotonic()))

    def sends_again(self, result: Result) -> bool:
        """Whether a caller has to, for Envoy was away; counts it."""
        if (result.status and not result.broke_off) or not any(
            result.began <= until + BEFORE and result.ended >= since - BEFORE
            for since, until in self._envoy_away
        ):
            return False
        self.counts["sent again: Envoy was away"] += 1
        return True

    def note(self, result: Result) -> None:
        self.kinds[result.kind] += 1
        self.counts["requests"] += 1
        self.slowest = max(self.slowest, result.ended - result.began)
        if not result.fault:
            self.counts["good"] += 1
        elif result.status == 200 and not result.broke_off:
            self._bad("wrong", result)
        elif self._pod_was_killed(result) and (
            result.broke_off or (result.kind.startswith("POST") and result.reason in TOLD)
        ):
            self.counts["told: the pod was killed"] += 1
        else:
            self._bad("lost", result)

    def _pod_was_killed(self, result: Result) -> bool:
        return any(
            result.began - BEFORE <= at <= result.ended + BEFORE
            for at in self._killed.get(result.model, ())
        )

    def _bad(self, how: str, result: Result) -> None:
        self.counts[how] += 1
        if len(self.bad) < 200:
            took = result.ended - result.began
            self.bad.append(
                f"{time.strftime('%H:%M:%S')} {how}: {result.kind} of {result.model}: "
                f"{result.status} {result.reason} after {took:.2f} s: {result.fault[:300]}"
            )
