"""Who answered what while traffic moved: every request, every weight, and what does not fit.

A request may be served by a revision that has a share of the traffic at some moment between
`PROPAGATION` before it was sent and its end; by the one that its header names, if it names one; and
all requests of a session that says so by one revision, until they move to the next, once.
"""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PROPAGATION = 1.0
"""Seconds that gateways may take to follow a weight that is written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request."""

    began: float
    ended: float
    status: int
    revision: str = ""
    """The revision that served it, by its own word."""
    asked: str = ""
    """The revision that the request's header named."""
    session: str = ""
    fault: str = ""
    """What was answered instead of a success."""


@dataclass(slots=True)
class Weights:
    """The shares of the revisions over time, as the API server told them."""

    _times: list[float] = field(default_factory=list)
    _shares: list[Mapping[str, int]] = field(default_factory=list)

    def note(self, shares: Mapping[str, int], at: float | None = None) -> None:
        """Shares that hold from now on."""
        if not self._shares or dict(self._shares[-1]) != dict(shares):
            self._times.append(time.monotonic() if at is None else at)
            self._shares.append(dict(shares))

    def had_share(self, revision: str, since: float, until: float) -> bool:
        """Whether the revision had traffic at some moment of this time."""
        first = max(bisect.bisect_right(self._times, since) - 1, 0)
        last = bisect.bisect_right(self._times, until)
        return any(each.get(revision) for each in self._shares[first:last])

    def listed(self, revision: str, since: float, until: float) -> bool:
        """Whether the revision was there all this time."""
        first = max(bisect.bisect_right(self._times, since) - 1, 0)
        last = bisect.bisect_right(self._times, until)
        return all(revision in each for each in self._shares[first:last])

    def lost_at(self, revision: str, before: float) -> float | None:
        """When the revision last lost its traffic, as of a moment; None while it has some."""
        lost = None
        for at, shares in zip(self._times, self._shares, strict=True):
            if at > before:
                break
            if shares.get(revision):
                lost = None
            elif lost is None:
                lost = at
        return lost


@dataclass(slots=True)
class Findings:
    """What was wrong, as sentences, and how late the last follower was."""

    failed: list[str] = field(default_factory=list)
    misrouted: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)
    latest: float = 0.0
    """Seconds after a revision had lost its traffic that a request was still sent to it."""


def judged(answers: Iterable[Answer], weights: Weights, *, sticky: bool) -> Findings:
    """What does not fit among the answers; with ``sticky`` sessions must stay together."""
    found = Findings()
    sessions: dict[str, list[str]] = defaultdict(list)
    for each in sorted(answers, key=lambda answer: answer.began):
        if each.status != 200:
            gone = each.asked and not weights.listed(each.asked, each.began, each.ended)
            if not (gone and each.status == 404):
                found.failed.append(f"{each.status} {each.fault}")
        elif each.asked:
            if each.revision != each.asked:
                found.misrouted.append(f"asked for {each.asked}, served by {each.revision}")
        else:
            if not weights.had_share(each.revision, each.began - PROPAGATION, each.ended):
                found.misrouted.append(f"served by {each.revision}, which has no traffic")
            lost = weights.lost_at(each.revision, each.began)
            if lost is not None:
                found.latest = max(found.latest, each.began - lost)
            if each.session and sessions[each.session][-1:] != [each.revision]:
                sessions[each.session].append(each.revision)
    if sticky:
        found.unsteady = [f"{s}: {' '.join(seen)}" for s, seen in sessions.items() if len(seen) > 2]
    return found
