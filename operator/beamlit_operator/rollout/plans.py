"""The plan that a rollout comes to: who gets what, who retires, which orders are used. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from beamlit_operator.api.rollout import Outcome, RolloutPhase, RolloutStatus
from beamlit_operator.rollout import orders as words
from beamlit_operator.rollout.capacity import limit_of, surge_of
from beamlit_operator.rollout.retiring import retiring
from beamlit_operator.rollout.revisions import (
    GIVEN_UP,
    Ending,
    RevisionState,
    RolloutPlan,
    Situation,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A rollout: the situation, and the two revisions that it is about."""

    situation: Situation
    known: Mapping[str, RevisionState]
    stable: RevisionState
    canary: RevisionState
    endings: tuple[Ending, ...] = ()

    @property
    def now(self) -> datetime:
        return self.situation.now.replace(microsecond=0)

    def orders(self, kind: str) -> list[words.Order]:
        """The orders of that kind that count for the new revision."""
        given = words.valid(self.situation.orders, self.situation.used)
        return [o for o in given if o.kind == kind and o.revision == self.canary.name]

    @property
    def promoted(self) -> bool:
        """Whether it is to have everything now."""
        return any(order.step is None for order in self.orders(words.PROMOTE))


def plan_of(
    case: Case,
    run: RolloutStatus,
    *,
    scale: Mapping[str, int],
    stalled: bool = False,
    again: timedelta | None = None,
    cold: bool = False,
    total: int | None = None,
) -> RolloutPlan:
    """The plan of a rollout that has come to ``run``."""
    stable, canary = case.stable, case.canary
    given_up = run.phase in GIVEN_UP
    weights = {stable.name: 100 - run.weight, canary.name: run.weight}
    weights = {name: weight for name, weight in weights.items() if weight}
    if not cold:
        weights = served(weights, case.known, without={canary.name} if given_up else set())
    keep = {stable.name} if given_up else {stable.name, canary.name}
    needed = run.replicas if total is None else total
    surge = surge_of(case.situation.rollout.surge, needed)
    planned = sum(scale.get(name, case.known[name].replicas) for name in keep)
    rest = retiring(
        case.situation,
        case.known,
        keep=keep | set(weights),
        room=limit_of(needed, surge=surge) - planned,
    )
    used, ignored = used_up(case.situation, run)
    message = run.message[:1024]
    return RolloutPlan(
        traffic={n: weights.get(n, 0) for n in sorted(case.known) if n not in rest.delete},
        stable=stable.name,
        rollout=run.model_copy(
            update={"message": message, "ignored_orders": words.naming(canary.name, used)}
        ),
        roles={
            **dict.fromkeys(rest.since, "retiring"),
            **({} if given_up else {canary.name: "canary"}),
            stable.name: "stable",
        },
        scale=changed({**rest.scale, **scale}, case.known),
        retired=rest.since,
        delete=rest.delete,
        endings=case.endings,
        used=used,
        ignored=ignored,
        message=message,
        stalled=stalled,
        requeue_after=min((w for w in (again, rest.again) if w is not None), default=None),
    )


def served(
    weights: Mapping[str, int],
    known: Mapping[str, RevisionState],
    *,
    without: AbstractSet[str] = frozenset(),
) -> dict[str, int]:
    """The weights without those of revisions that nobody would answer for. ``without`` are not to
    be used in any case.

    | of those with weight, ready are | then                                     |
    |---------------------------------|------------------------------------------|
    | all                             | as they are                              |
    | some                            | these have it all                        |
    | none, but another one that had  | that one keeps it, until it is different |
    | traffic until now               |                                          |
    | none                            | as they are: gateways hold the callers   |
    """
    ready = {name: weight for name, weight in weights.items() if known[name].ready > 0}
    if len(ready) == len(weights):
        return dict(weights)
    if ready:
        # There are at most two.
        return {max(ready, key=lambda name: ready[name]): 100}
    others = [e for e in known.values() if e.ready > 0 and e.traffic > 0 and e.name not in without]
    if others:
        return {max(others, key=lambda each: (each.traffic, each.ready, each.name)).name: 100}
    return dict(weights)


def used_up(
    situation: Situation, run: RolloutStatus | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The orders that are used up, and of them those that came before their step."""
    kept = words.still_used(situation.used, situation.orders)
    fresh = words.valid(situation.orders, kept)
    memory = situation.memory
    over = memory.canary if memory is not None else None
    if run is not None and over == run.canary:
        over = None
    ended = [str(order) for order in fresh if order.revision == over]
    if run is None:
        # A rollout may begin and end in one decision.
        ended += [str(o) for o in fresh if o.revision == situation.desired and str(o) not in ended]
    early = [
        str(order)
        for order in fresh
        if run is not None
        and order.revision == run.canary
        and order.step is not None
        and run.step is not None
        and order.step > run.step
    ]
    return tuple(sorted({*kept, *ended, *early})[:16]), tuple(early)


def changed(wanted: Mapping[str, int], known: Mapping[str, RevisionState]) -> dict[str, int]:
    """Of the replicas wanted those that are others than they are, the fewer ones first."""
    moved = {name: count for name, count in wanted.items() if known[name].replicas != count}
    return dict(sorted(moved.items(), key=lambda it: (it[1] > known[it[0]].replicas, it[0])))


def back(
    case: Case, run: RolloutStatus, *, phase: RolloutPhase, outcome: Outcome, why: str
) -> RolloutPlan:
    """All traffic is the stable revision's again, and the new one is not tried any more."""
    ended = Ending(case.canary.name, outcome, why[:1024], run.started_at)
    case = replace(case, endings=(*case.endings, ended))
    run = run.model_copy(update={"phase": phase, "since": case.now, "weight": 0, "message": why})
    return given_up(case, run)


def given_up(case: Case, run: RolloutStatus) -> RolloutPlan:
    run = run.model_copy(update={"weight": 0})
    ended = case.endings and case.endings[-1].revision == case.canary.name
    least = case.situation.scaling.minimum
    # It gave replicas to the one that failed, and gets all the requests now.
    wanted = max(case.stable.replicas, least, run.replicas if ended else 0)
    scale = {case.stable.name: wanted}
    if run.phase == "Failed":
        scale[case.canary.name] = 0
    message = (
        f"revision {case.canary.name} was given up, {case.stable.name} serves: {run.message}. "
        f"It is tried again when the spec changes"
    )
    plan = plan_of(case, run, scale=scale, stalled=True)
    return replace(plan, message=message)
