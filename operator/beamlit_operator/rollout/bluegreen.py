"""Which revision of a deployment gets its requests, and what becomes of the others: blue-green.

One pure decision, made anew at every reconcile from what is there; nothing is remembered but the
time at which a revision lost its traffic (`retired_at`). *Desired* is the revision the spec asks
for, *stable* the one that has the traffic, *needed* how many replicas the desired one must have
ready before it takes over: as many as stable has ready now, at least one and the minimum, at most
the maximum.

| stable  | stable is desired | stable     | desired has needed ready | traffic | desired         |
|---------|-------------------|------------|--------------------------|---------|-----------------|
| none    |                   |            |                          | desired | starts if asked |
| present | yes               |            |                          | desired |                 |
| present | no                | idle       |                          | desired | starts if asked |
| present | no                | has pods   | yes                      | desired |                 |
| present | no                | has pods   | no                       | stable  | scaled to needed |

*Idle* wants no replica and has none ready: nobody is served by it, so nobody has to wait.
Every other revision:

| had traffic | ready | retired        | what happens                                     |
|-------------|-------|----------------|--------------------------------------------------|
| just now    |       |                | retired now: it drains                           |
| never       | none  | no             | deleted                                          |
| never       | some  | no             | retired now: it drains                           |
|             |       | not long ago   | left alone, so that requests under way can end   |
|             |       | longer than the drain time | deleted                              |

So weights always sum to 100, the revision that serves is never scaled or deleted here, and of two
edits in quick succession the last one wins: the first one's revision never got traffic and goes.
A disabled deployment has all its replicas taken away; everything else is the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

DRAIN = timedelta(seconds=30)
"""How long a revision without traffic is kept: gateways have heard of it long before, and most
requests under way have ended; the rest has the pods' own grace period."""


@dataclass(frozen=True)
class RevisionState:
    """One revision as it is in the cluster."""

    name: str
    replicas: int = 0
    """Replicas wanted (`spec.replicas` of its Deployment)."""
    ready: int = 0
    traffic: int = 0
    """Percent of the requests it gets now (`status.revisions[].traffic`)."""
    retired_at: datetime | None = None
    """When it lost its traffic; kept on its Deployment."""
    failure: str | None = None
    """Why its pods cannot start, if they cannot."""

    @property
    def idle(self) -> bool:
        """Whether it wants no replica and has none ready."""
        return self.replicas == 0 and self.ready == 0


@dataclass(frozen=True)
class Scaling:
    """What of the deployment's scaling a rollout respects. `maximum` 0 means no limit."""

    minimum: int = 0
    maximum: int = 10
    enabled: bool = True


@dataclass(frozen=True)
class RolloutPlan:
    """What to do now."""

    traffic: Mapping[str, int]
    """Percent of the requests for each revision that is kept; sums to 100."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Replicas to set, for those that have other numbers."""
    retired: Mapping[str, datetime | None] = field(default_factory=dict)
    """The `retired_at` to remember of each revision that is kept. To be written before traffic."""
    delete: tuple[str, ...] = ()
    message: str = ""
    """What goes on, for people; empty when nothing does."""
    progressing: bool = False
    """Whether a new revision is on its way."""
    stalled: bool = False
    """Whether the new revision cannot start; the old one goes on serving."""
    requeue_after: timedelta | None = None
    """When to decide again, if nothing else happens."""

    @property
    def serving(self) -> str:
        """The revision that gets the requests."""
        return next(name for name, weight in self.traffic.items() if weight)


def decide(
    revisions: Iterable[RevisionState],
    desired: str,
    *,
    now: datetime,
    scaling: Scaling | None = None,
    drain: timedelta = DRAIN,
) -> RolloutPlan:
    """What to do about the revisions of one deployment.

    Args:
        revisions: those that exist; `desired` need not be among them yet.
        desired: the revision that the spec asks for.
        now: the time, aware.
        scaling: the deployment's bounds of scale, and whether it is enabled.
        drain: how long a revision that lost its traffic is kept.
    """
    bounds = scaling or Scaling()
    known = {each.name: each for each in revisions}
    new = known.setdefault(desired, RevisionState(desired))
    stable = _stable(known.values())
    needed = _needed(stable, bounds)
    # The table above: only pods that serve, while the new ones are too few, hold the traffic back.
    waits = (
        bounds.enabled
        and stable is not None
        and stable.name != desired
        and not stable.idle
        and new.ready < needed
    )
    serving = stable.name if stable is not None and waits else desired
    retired, delete = _others(known.values(), keep={serving, desired}, now=now, drain=drain)
    kept = [name for name in sorted(known) if name not in delete]
    pending = [at + drain - now for at in retired.values() if at is not None]
    message = ""
    if waits and stable is not None:
        message = _waiting(new, stable, needed)
    elif stable is not None and stable.name != desired:
        message = f"revision {desired} takes over from {stable.name}"
    return RolloutPlan(
        traffic={name: 100 if name == serving else 0 for name in kept},
        scale=_scale(known, kept, desired=desired, needed=needed if waits else None, bounds=bounds),
        retired={name: retired.get(name) for name in kept},
        delete=tuple(delete),
        message=message,
        progressing=waits,
        stalled=waits and new.failure is not None,
        requeue_after=max(min(pending), timedelta(0)) if pending else None,
    )


def _stable(revisions: Iterable[RevisionState]) -> RevisionState | None:
    """The revision with the most traffic; of equals, the one with more ready pods, then by name."""
    serving = [each for each in revisions if each.traffic > 0]
    return max(serving, key=lambda each: (each.traffic, each.ready, each.name), default=None)


def _needed(stable: RevisionState | None, bounds: Scaling) -> int:
    wanted = max(1, bounds.minimum, stable.ready if stable is not None else 0)
    # More than the maximum may be ready when the maximum was just lowered.
    return min(wanted, bounds.maximum) if bounds.maximum else wanted


def _others(
    revisions: Iterable[RevisionState], *, keep: set[str], now: datetime, drain: timedelta
) -> tuple[dict[str, datetime], list[str]]:
    """When each revision without a part to play lost its traffic, and which of them go now."""
    retired: dict[str, datetime] = {}
    delete = []
    for each in sorted(revisions, key=lambda each: each.name):
        if each.name in keep:
            continue
        if each.retired_at is None and each.traffic == 0 and each.ready == 0:
            delete.append(each.name)
        elif each.traffic > 0 or each.retired_at is None:
            retired[each.name] = now
        elif each.retired_at + drain <= now:
            delete.append(each.name)
        else:
            # A clock that was set back must not keep it for longer than the drain time.
            retired[each.name] = min(each.retired_at, now)
    return retired, delete


def _scale(
    known: Mapping[str, RevisionState],
    kept: Iterable[str],
    *,
    desired: str,
    needed: int | None,
    bounds: Scaling,
) -> dict[str, int]:
    """Replicas to set. While enabled only the desired revision's, and only upwards: the rest is the
    autoscaler's."""
    if not bounds.enabled:
        return {name: 0 for name in kept if known[name].replicas > 0}
    least = bounds.minimum if needed is None else needed
    return {desired: least} if known[desired].replicas < least else {}


def _waiting(new: RevisionState, stable: RevisionState, needed: int) -> str:
    if new.failure is not None:
        return (
            f"revision {new.name} cannot start: {new.failure}; {stable.name} goes on serving. "
            f"Correct the spec, or undo the change"
        )
    return (
        f"revision {new.name} has {new.ready} of {needed} replicas ready; "
        f"{stable.name} serves until then"
    )
