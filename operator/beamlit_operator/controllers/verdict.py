"""A verdict: the state of an object in one word and one sentence, and the conditions it makes.

| verdict         | Ready   | Reconciling | Stalled |
|-----------------|---------|-------------|---------|
| good            | True    | -           | -       |
| changing        | True    | True        | -       |
| held up         | True    | -           | True    |
| on the way      | False   | True        | -       |
| waiting         | False   | -           | -       |
| stalled         | False   | -           | True    |

kstatus then reads, in this order: Current, InProgress, Failed, InProgress, InProgress, Failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from beamlit_operator.api import Condition, conditions
from beamlit_operator.kube import Json


class State(Enum):
    """How an object is."""

    GOOD = "good"
    CHANGING = "changing"
    """All is well, and a change is under way."""
    HELD_UP = "held up"
    """What was asked for before works, but the change since then cannot be completed."""
    ON_THE_WAY = "on the way"
    """The operator or the cluster is at work; nobody needs to do anything."""
    WAITING = "waiting"
    """Something is missing that may appear by itself."""
    STALLED = "stalled"
    """Only a person can fix it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of an object, why, and the sentence for people."""

    state: State
    reason: str
    message: str

    @property
    def good(self) -> bool:
        """Whether all is well."""
        return self.state in (State.GOOD, State.CHANGING, State.HELD_UP)


def conditions_of(
    verdict: Verdict,
    *,
    old: Iterable[Condition],
    generation: int,
    now: datetime,
    more: Iterable[tuple[str, str, str]] = (),
    lacking: Iterable[tuple[str, str, str]] = (),
) -> list[Json]:
    """The conditions on the wire: those of the verdict, and as (type, reason, message) ``more``
    that are True and ``lacking`` that are False. Transition times are kept where the status is as
    in ``old``.
    """

    def make(type_: str, status: bool, reason: str, message: str) -> Condition:
        return conditions.condition(
            type_, status, reason=reason, message=message, generation=generation, now=now
        )

    fresh = [make(conditions.READY, verdict.good, verdict.reason, verdict.message)]
    if verdict.state in (State.ON_THE_WAY, State.CHANGING):
        fresh.append(make(conditions.RECONCILING, True, verdict.reason, verdict.message))
    if verdict.state in (State.STALLED, State.HELD_UP):
        fresh.append(make(conditions.STALLED, True, verdict.reason, verdict.message))
    fresh.extend(make(type_, True, reason, message) for type_, reason, message in more)
    fresh.extend(make(type_, False, reason, message) for type_, reason, message in lacking)
    return [condition.to_wire() for condition in conditions.merge(old, fresh)]


def changed(verdict: Verdict, old: Iterable[Condition]) -> bool:
    """Whether the verdict differs from the old `Ready` in status or reason: worth an Event."""
    ready = conditions.find(old, conditions.READY)
    return ready is None or (ready.status == "True", ready.reason) != (
        verdict.good,
        verdict.reason,
    )
