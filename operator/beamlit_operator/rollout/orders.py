"""Orders about a rollout: annotations, each naming the revision it is for. Pure.

| annotation `beamlit.com/...` | value         | while that revision is rolled out            |
|------------------------------|---------------|----------------------------------------------|
| `rollout-promote`            | REVISION      | all traffic to it, as soon as it is ready    |
| `rollout-promote`            | REVISION/STEP | that step is left; another step: nothing     |
| `rollout-pause`              | REVISION      | no further while it stands                   |
| `rollout-abort`              | REVISION      | all traffic back to the stable revision, now |
| any                          | anything else | nothing                                      |

An annotation stays when its order was carried out. So that it does nothing to a later rollout of
the same revision, orders that were there when a rollout ended are *used*, and so are those for a
step that has not come. One that is removed is forgotten, and counts when it is set again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from beamlit_operator.api import labels

PROMOTE, PAUSE, ABORT = "promote", "pause", "abort"
ANNOTATIONS: Mapping[str, str] = {
    PROMOTE: labels.ROLLOUT_PROMOTE,
    PAUSE: labels.ROLLOUT_PAUSE,
    ABORT: labels.ROLLOUT_ABORT,
}

_REVISION = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_STEP = re.compile(r"[1-9][0-9]?")


@dataclass(frozen=True, slots=True)
class Order:
    """One order: what to do, with which revision, and for `promote` perhaps which step to leave."""

    kind: str
    revision: str
    step: int | None = None

    def __str__(self) -> str:
        step = f"/{self.step}" if self.step is not None else ""
        return f"{ANNOTATIONS[self.kind]}={self.revision}{step}"


def parse(kind: str, value: str) -> Order | None:
    """The order of an annotation's value; None when it is malformed."""
    revision, slash, step = value.strip().partition("/")
    if not _REVISION.fullmatch(revision) or (slash and kind != PROMOTE):
        return None
    if slash and not _STEP.fullmatch(step):
        return None
    return Order(kind, revision, int(step) if slash else None)


def standing(annotations: Mapping[str, str]) -> tuple[Order, ...]:
    """The orders that an object's annotations give, as far as they can be read."""
    found = (parse(kind, annotations.get(name, "")) for kind, name in ANNOTATIONS.items())
    return tuple(order for order in found if order is not None)


def valid(orders: Iterable[Order], used: Iterable[str]) -> tuple[Order, ...]:
    """Those that were not used."""
    gone = set(used)
    return tuple(order for order in orders if str(order) not in gone)


def still_used(used: Iterable[str], orders: Iterable[Order]) -> tuple[str, ...]:
    """Of the used ones those that still stand: the others are forgotten."""
    there = {str(order) for order in orders}
    return tuple(sorted(set(used) & there))


def naming(revision: str, used: Iterable[str]) -> tuple[str, ...]:
    """Of orders in words those for a revision."""
    return tuple(each for each in used if each.partition("=")[2].partition("/")[0] == revision)
