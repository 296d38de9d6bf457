"""Blue-green: which revision gets the requests, what has to run for that, and what may go.

| who serves so far      | the current revision | requests go to | besides                         |
|------------------------|----------------------|----------------|---------------------------------|
| nobody, or the current | in any state         | the current    | others go once drained          |
| another one            | is ready             | the current    | others go once drained          |
| another one            | is not ready         | the other one  | the current is started          |

"Drained" is :data:`DRAIN` seconds without new requests: open ones end within the pods' own grace
period, which begins only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DRAIN = 10.0
"""Seconds between the end of a revision's traffic and its removal: gateways have heard by then."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as it is in the cluster. ``traffic`` is what the status says, in percent."""

    name: str
    version: str
    replicas: int
    ready: int
    traffic: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows for the revisions."""

    serving: str
    """The revision that gets all requests."""
    start: int
    """Replicas the current revision needs at least."""
    remove: tuple[str, ...] = ()
    again_after: float | None = None
    """Seconds until a removal is due."""


def decide(
    current: str,
    revisions: Sequence[Revision],
    *,
    minimum: int,
    unused_for: Mapping[str, float],
) -> Decision:
    """The state of a blue-green rollout.

    Args:
        current: the revision that the spec asks for; it may not exist yet.
        revisions: those that exist.
        minimum: replicas that always run.
        unused_for: seconds since the traffic left a revision.
    """
    others = [r for r in revisions if r.name != current]
    serving_other = next((r for r in others if r.traffic > 0), None)
    ready = any(r.name == current and r.ready > 0 for r in revisions)
    if serving_other is not None and not ready:
        # Revisions that were asked for in between and never served.
        stale = tuple(r.name for r in others if r.name != serving_other.name)
        return Decision(serving_other.name, max(minimum, 1), stale)
    waits = {
        r.name: max(DRAIN - unused_for.get(r.name, 0.0), 0.0) if r.replicas else 0.0 for r in others
    }
    later = [wait for wait in waits.values() if wait > 0]
    return Decision(
        current,
        minimum,
        tuple(name for name, wait in waits.items() if wait <= 0),
        min(later) if later else None,
    )
