"""What became of the requests of a rollout's revisions since its step began, at all gateways.

Gateways count since their Envoy started. Here only what was added between two reports of the same
gateway counts:

| a gateway's report                           | counts                                          |
|----------------------------------------------|-------------------------------------------------|
| first one from this address, or of this      | nothing: what it has may be from before         |
| revision after others were told              |                                                 |
| as much as before, or more                   | the difference                                  |
| less than before                             | all of it: its Envoy was started again          |
| none                                         | nothing; what it counted meanwhile comes later, |
|                                              | and what it never told is lost                  |

A window begins with the first question for a step, and anew after the operator was started again.
Kept are revisions that some gateway told of within :data:`KEEP_SECONDS`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from beamlit_operator.autoscaling import GatewayLoad, RevisionOutcome
from beamlit_operator.kube import ObjectKey
from beamlit_operator.rollout.analysis import Measured
from beamlit_operator.rollout.latency import (
    Histogram,
    added,
    from_cumulative,
    quantile,
    without,
)

KEEP_SECONDS = 300.0
"""For so long a gateway may be silent without what it counts meanwhile being lost."""

WATCHED_SECONDS = 30.0
"""After the last question for a revision, whether its numbers grow is no news to anybody."""

SHARE = 0.95


@dataclass(frozen=True, slots=True)
class _Counts:
    requests: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=dict)

    @classmethod
    def of(cls, row: RevisionOutcome) -> _Counts:
        return cls(row.requests, row.errors, from_cumulative(row.latency))

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            added(self.latency, other.latency),
        )

    def minus(self, other: _Counts) -> _Counts:
        return _Counts(
            self.requests - other.requests,
            self.errors - other.errors,
            without(self.latency, other.latency),
        )

    def fell(self, before: _Counts) -> bool:
        """Whether this cannot have grown from what was before."""
        return (
            self.requests < before.requests
            or self.errors < before.errors
            or sum(self.latency.values()) < sum(before.latency.values())
        )


@dataclass(slots=True)
class _Revision:
    """One revision at all gateways: what was added since it is known, and a window of it."""

    told: float
    asked: float = -math.inf
    total: _Counts = field(default_factory=_Counts)
    at: dict[str, tuple[float, _Counts]] = field(default_factory=dict)
    """By the gateway's address: when it told last, and what."""
    step: str = ""
    begin: _Counts = field(default_factory=_Counts)


class Outcomes:
    """Adds the gateways up, and keeps one window for each revision."""

    def __init__(
        self,
        *,
        on_news: Callable[[ObjectKey], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_news`` hears of each deployment whose numbers grew while somebody watches them."""
        self._on_news = on_news
        self._clock = clock
        self._revisions: dict[str, _Revision] = {}

    def record(self, reports: Mapping[str, GatewayLoad]) -> None:
        """Takes what the gateways said, by address."""
        now, news = self._clock(), set()
        for address, load in reports.items():
            for name, row in load.outcomes.items():
                known = self._revisions.setdefault(name, _Revision(now))
                known.told = now
                counts = _Counts.of(row)
                before = known.at.get(address)
                if before is not None:
                    began_anew = counts.fell(before[1])
                    known.total = known.total.plus(
                        counts if began_anew else counts.minus(before[1])
                    )
                known.at[address] = (now, counts)
                grew = before is None or counts != before[1]
                if grew and now - known.asked < WATCHED_SECONDS:
                    workspace, deployment, _ = name.split("/", 2)
                    news.add(ObjectKey(workspace, deployment))
        self._forget(now - KEEP_SECONDS)
        for place in news:
            self._on_news(place)

    def since_step(self, deployment: ObjectKey, revision: str, step_id: str) -> Measured | None:
        """What was counted since this was asked for the first time with this ``step_id``; None
        while no gateway told anything of the revision."""
        name = f"{deployment.namespace}/{deployment.name}/{revision}"
        now = self._clock()
        known = self._revisions.setdefault(name, _Revision(now))
        known.asked = now
        if known.step != step_id:
            known.step, known.begin = step_id, known.total
        if not known.at:
            return None
        counted = known.total.minus(known.begin)
        return Measured(counted.requests, counted.errors, quantile(counted.latency, SHARE))

    @property
    def known(self) -> int:
        """How many revisions are remembered."""
        return len(self._revisions)

    def _forget(self, before: float) -> None:
        for name, revision in list(self._revisions.items()):
            if revision.told < before:
                del self._revisions[name]
                continue
            for address, (told, _) in list(revision.at.items()):
                if told < before:
                    del revision.at[address]
