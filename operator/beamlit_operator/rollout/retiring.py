"""What becomes of revisions that have no part to play any more. Pure.

| had weight | ready | retired                   | what happens                                 |
|------------|-------|---------------------------|----------------------------------------------|
| just now   |       |                           | retired now                                  |
| never      | none  | no                        | deleted                                      |
| never      | some  | no                        | retired now                                  |
|            |       | not longer than retention | keeps its pods, as many as there is room for |
|            |       | longer                    | deleted                                      |

Nothing is deleted or loses pods before it was seen without traffic for :data:`DRAIN_SECONDS`:
gateways have heard of it then, and requests under way have the pods' own grace period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from beamlit_operator.rollout.course import retention_of
from beamlit_operator.rollout.revisions import RevisionState, Situation

DRAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rest:
    """The revisions without a part: since when, their replicas, and which of them go."""

    since: Mapping[str, datetime] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    delete: tuple[str, ...] = ()
    again: timedelta | None = None


def retiring(
    situation: Situation,
    known: Mapping[str, RevisionState],
    *,
    keep: set[str],
    room: int,
) -> Rest:
    """What to do with the revisions outside ``keep``; ``room`` is for how many pods of them."""
    now = situation.now.replace(microsecond=0)
    retention = retention_of(situation.rollout)
    since: dict[str, datetime] = {}
    scale: dict[str, int] = {}
    delete = []
    waits = []
    rest = [each for each in known.values() if each.name not in keep]
    # What left last is what one would go back to.
    rest.sort(key=lambda each: (each.retired_at or now, each.name), reverse=True)
    for each in rest:
        if each.traffic == 0 and each.retired_at is None and each.ready == 0:
            delete.append(each.name)
            continue
        # A clock that was set back must not keep it for longer than the retention.
        at = min(each.retired_at or now, now) if each.traffic == 0 else now
        since[each.name] = at
        drained = DRAIN_SECONDS - (each.unused_seconds or 0.0)
        left = max(at + retention - now, timedelta(seconds=drained))
        if each.traffic > 0:
            left = max(retention, timedelta(seconds=DRAIN_SECONDS))
        if left <= timedelta(0):
            delete.append(each.name)
            del since[each.name]
            continue
        waits.append(left)
        stays = max(min(each.replicas, room), 0)
        if each.traffic > 0 or drained > 0:
            if stays < each.replicas:
                waits.append(timedelta(seconds=max(drained, 1.0)))
            stays = each.replicas
        room -= stays
        scale[each.name] = stays
    return Rest(since, scale, tuple(sorted(delete)), min(waits, default=None))
