"""What the numbers of a step say about the new revision. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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
