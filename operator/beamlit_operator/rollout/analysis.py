"""What the numbers of a step say about the new revision. Pure.

| what is known                                                  | verdict   |
|----------------------------------------------------------------|-----------|
| the new revision answered fewer than minimumRequests           | Undecided |
| its share of 5xx answers is above maxErrorPercent              | Bad       |
| its p95 is above maxLatencyPercent of the stable one's         | Bad       |
| maxLatencyPercent, and the stable one answered fewer than      | Undecided |
| minimumRequests in the same time (not where the weight is 100) |           |
| Prometheus' value is below minimum or above maximum            | Bad       |
| Prometheus has no value, or none yet                           | Undecided |
| none of these                                                  | Good      |

One bad criterion is enough; all must be good. The operator's restart begins the numbers anew, so a
verdict is never made of less than minimumRequests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from beamlit_operator.api.rollout import AnalysisStatus, Judged, PrometheusAnalysis, RolloutAnalysis

TELL_EVERY = timedelta(seconds=10)
"""How often the numbers of a step are written at most."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the gateways counted of one revision since a step began."""

    requests: int
    """Requests that were answered."""
    errors: int = 0
    """Those answered with a 5xx status."""
    p95_milliseconds: float | None = None
    """The 95th percentile of latency; None while too little is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said last to a step's query: a value, or why there is none."""

    value: float | None = None
    problem: str = ""
    """For people; empty when there is a value."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known about a step; None where nothing is."""

    canary: Measured | None = None
    stable: Measured | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its sentence. ``blocked`` says that no verdict can come without a person."""

    verdict: Judged
    message: str
    blocked: bool = False


def judge(criteria: RolloutAnalysis, evidence: Evidence, *, weight: int = 0) -> Judgement:
    """What a step's numbers come to. ``weight`` is what the new revision has."""
    found = list(_judgements(criteria, evidence, weight))
    for verdict in ("Bad", "Undecided"):
        some = [each for each in found if each.verdict == verdict]
        if some:
            message = "; ".join(each.message for each in some)
            return Judgement(some[0].verdict, message, any(each.blocked for each in some))
    return Judgement("Good", "; ".join(each.message for each in found))


def _judgements(criteria: RolloutAnalysis, evidence: Evidence, weight: int) -> Iterator[Judgement]:
    least = criteria.minimum_requests
    new = evidence.canary
    if new is None or new.requests < least:
        count = new.requests if new is not None else 0
        yield Judgement("Undecided", f"waits for {least} requests, of which {count} came")
        return
    if criteria.max_error_percent is not None:
        yield _errors(new, criteria.max_error_percent)
    if criteria.max_latency_percent is not None and weight < 100:
        yield _latency(new, evidence.stable, criteria.max_latency_percent, least)
    if criteria.prometheus is not None:
        yield _queried(criteria.prometheus, evidence.answer)


def _errors(new: Measured, most: int) -> Judgement:
    percent = 100 * new.errors / new.requests
    said = f"{percent:.1f} % of its requests failed, {most} % may"
    return Judgement("Bad" if percent > most else "Good", said)


def _latency(new: Measured, stable: Measured | None, most: int, least: int) -> Judgement:
    if stable is None or stable.requests < least:
        count = stable.requests if stable is not None else 0
        said = f"waits for {least} requests to the stable revision, of which {count} came"
        return Judgement("Undecided", said)
    if new.p95_milliseconds is None or not stable.p95_milliseconds:
        return Judgement("Undecided", "waits for the latencies of both revisions")
    percent = 100 * new.p95_milliseconds / stable.p95_milliseconds
    said = f"its p95 is {percent:.0f} % of the stable revision's, {most} % may be"
    return Judgement("Bad" if percent > most else "Good", said)


def _queried(query: PrometheusAnalysis, answer: Answer | None) -> Judgement:
    if answer is None:
        return Judgement("Undecided", "waits for Prometheus")
    if answer.value is None or math.isnan(answer.value):
        why = answer.problem or "the query has no number as its result"
        return Judgement("Undecided", f"Prometheus gives no value: {why}", blocked=True)
    value = answer.value
    if query.minimum is not None and value < float(query.minimum):
        return Judgement("Bad", f"the query gives {value:g}, at least {query.minimum} is good")
    if query.maximum is not None and value > float(query.maximum):
        return Judgement("Bad", f"the query gives {value:g}, at most {query.maximum} is good")
    return Judgement("Good", f"the query gives {value:g}")


def told(
    judgement: Judgement, evidence: Evidence, *, before: AnalysisStatus | None, now: datetime
) -> AnalysisStatus:
    """The numbers for the status: those of before until they are old or the verdict is another."""
    fresh_until = before.updated_at + TELL_EVERY if before and before.updated_at else None
    if (
        before is not None
        and before.verdict == judgement.verdict
        and fresh_until is not None
        and now < fresh_until <= now + TELL_EVERY
    ):
        return before
    new, stable = evidence.canary, evidence.stable
    counted = new is not None and new.requests > 0
    fresh = AnalysisStatus(
        verdict=judgement.verdict,
        requests=_rounded(new.requests) if new else 0,
        error_percent=round(100 * new.errors / new.requests, 1) if new and counted else None,
        p95_milliseconds=_milliseconds(new),
        stable_p95_milliseconds=_milliseconds(stable),
        message=judgement.message[:1024],
        updated_at=now.replace(microsecond=0),
    )
    same = before is not None and fresh == before.model_copy(
        update={"updated_at": fresh.updated_at, "message": fresh.message}
    )
    return before if same and before is not None else fresh


def _rounded(count: int) -> int:
    """Two digits are enough to see that something goes on."""
    if count < 100:
        return count
    unit = 10 ** (len(str(count)) - 2)
    return int(count // unit * unit)


def _milliseconds(measured: Measured | None) -> float | None:
    value = measured.p95_milliseconds if measured is not None else None
    if value is None or not math.isfinite(value):
        return None
    return float(round(value)) if value >= 10 else round(value, 1)
