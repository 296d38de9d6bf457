"""Which revisions of a deployment get its requests, and what becomes of the others. Pure.

One decision, made anew at every reconcile from what is there. All that is remembered stands in
`status.rollout` and in the roles and weights of `status.revisions`. *Desired* is the revision the
spec asks for, *stable* the one that serves; *total* is what the load needs, 0 when it sleeps.

Who is stable:

| what is there                                                | stable                           |
|--------------------------------------------------------------|----------------------------------|
| a rollout to the desired revision, and its stable one exists | that one                         |
| a revision with the role and with weight                     | that one                         |
| revisions with weight                                        | the one with most                |
| no weight anywhere (it was deactivated), one has the role    | that one                         |
| neither (the status was lost), some are ready                | the one with most that are ready |
| none of these                                                | none                             |

What happens:

| stable      | desired           | sleeps     | then                                           |
|-------------|-------------------|------------|------------------------------------------------|
| none        |                   |            | desired serves from its first request on       |
| is desired  |                   |            | at rest; a rollout under way ends, and its new |
|             |                   |            | revision retires                               |
| can't serve | not given up      |            | desired serves, ready or not: there is nothing |
|             |                   |            | else                                           |
| other       | was given up      |            | stays so until the spec changes; Stalled       |
| other       | order to abort    |            | all to stable at once; Aborted                 |
| other       | order to pause    |            | stays as it is                                 |
| other       | not proven        | yes, trial | Proving: one replica; ready: goes on; not in   |
|             |                   |            | time: Failed, and stable is left alone         |
| other       |                   | yes        | the step's weight at once, for later callers   |
| other       | not at the weight | no         | Progressing: `capacity.move`; Stalled while it |
|             | of the step       |            | cannot start or is late                        |
| other       | at the weight     |            | `course.stand`: it waits, leaves the step or   |
|             |                   |            | goes back                                      |
| other       | behind the last   |            | desired is stable; the old one retires         |
|             | step, at 100      |            |                                                |
| other       | served before and |            | no steps: it takes over when enough are ready  |
|             | has pods still    |            |                                                |
| other       | another than      |            | restarts from stable: the former new one       |
|             | before            |            | retires                                        |

Blue-green is a rollout without steps. Weights are what the step says, but nobody is sent to a
revision without a ready pod while the other one has some; only if none has (it sleeps, or all is
lost) the weights stand as they are, and gateways hold callers while something starts.

A revision without a part retires: it keeps its pods for `retention`, as far as the limit of
replicas has room beside those that serve, and is deleted then. One that never was ready goes at
once. Weights always sum to 100, and whoever has weight is neither deleted nor retired.

Clocks: a time in the future (the clock was set back) counts as now, so nothing lasts longer than
twice its time; after a jump forward a wait ends early, but a revision that lost its traffic is only
deleted after it was *seen* without it for some seconds by a clock that does not jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from beamlit_operator.api.rollout import MAX_STEPS, Outcome, RolloutPhase, RolloutStatus
from beamlit_operator.rollout import orders as words
from beamlit_operator.rollout.capacity import (
    Move,
    changing_sides,
    limit_of,
    move,
    settled,
    share,
    surge_of,
)
from beamlit_operator.rollout.course import (
    Stand,
    Turn,
    deadline_of,
    next_of,
    stand,
    target_of,
)
from beamlit_operator.rollout.retiring import retiring
from beamlit_operator.rollout.revisions import (
    GIVEN_UP,
    Ending,
    RevisionState,
    RolloutPlan,
    Situation,
)

SOON = timedelta(seconds=1)
"""When to look again after a weight was written that lets capacity move."""

SETTLE_SECONDS = 3.0
"""Seconds after which all gateways have heard that a revision has no weight any more."""

REACHED: tuple[RolloutPhase, ...] = ("Waiting", "Analyzing", "Paused")


def decide(situation: Situation) -> RolloutPlan:
    """What to do about the revisions of one deployment."""
    known = {each.name: each for each in situation.revisions}
    known.setdefault(situation.desired, RevisionState(situation.desired))
    stable = _stable(situation, known)
    memory = situation.memory
    if stable is None or stable.name == situation.desired:
        return _at_rest(situation, known)
    run = memory if memory is not None and _continues(memory, stable.name, situation) else None
    endings: tuple[Ending, ...] = ()
    if run is None:
        endings = _superseded(memory, situation.desired)
        run = _begun(situation, stable, known[situation.desired])
    case = _Case(situation, known, stable, known[situation.desired], endings)
    if run.phase in GIVEN_UP:
        return _given_up(case, run)
    return _under_way(case, run)


@dataclass(frozen=True, slots=True)
class _Case:
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


def _stable(situation: Situation, known: Mapping[str, RevisionState]) -> RevisionState | None:
    memory = situation.memory
    if memory is not None and memory.stable in known and memory.canary == situation.desired:
        return known[memory.stable]
    serving = [each for each in known.values() if each.traffic > 0]
    if not serving:
        marked = next((each for each in known.values() if each.role == "stable"), None)
        if marked is not None:
            return marked
        ready = [each for each in known.values() if each.ready > 0]
        return max(
            ready, key=lambda each: (each.ready, each.name == situation.desired), default=None
        )
    if memory is not None and memory.stable in known and memory.phase not in GIVEN_UP:
        # An edit while a rollout is under way: its new revision may have most of the weight.
        return known[memory.stable]
    return max(serving, key=lambda e: (e.role == "stable", e.traffic, e.ready, e.name))


def _continues(memory: RolloutStatus, stable: str, situation: Situation) -> bool:
    return memory.canary == situation.desired and memory.stable == stable


def _superseded(memory: RolloutStatus | None, desired: str) -> tuple[Ending, ...]:
    """What becomes of a rollout when the spec asks for something else."""
    if memory is None or memory.phase in GIVEN_UP or memory.canary == desired:
        return ()
    reason = f"the spec asked for {desired} before it had taken over"
    return (Ending(memory.canary, "Aborted", reason, memory.started_at),)


def _begun(situation: Situation, stable: RevisionState, new: RevisionState) -> RolloutStatus:
    """A rollout from here. One that goes back to what served a moment ago has no steps."""
    now = situation.now.replace(microsecond=0)
    back = new.served and new.ready > 0
    steps = len(situation.rollout.steps) if not back else 0
    # What the rollout that it replaces left off with is what the load needs.
    memory = situation.memory
    before = memory.replicas if memory is not None and memory.phase not in GIVEN_UP else 0
    return RolloutStatus(
        phase="Progressing",
        stable=stable.name,
        canary=situation.desired,
        step=1 if steps else None,
        steps=steps or None,
        replicas=max(stable.replicas, before),
        started_at=now,
        since=now,
    )


def _total(case: _Case, run: RolloutStatus) -> int:
    """Replicas that the load needs, of both together; 0 when the deployment sleeps."""
    bounds, said = case.situation.scaling, case.situation.demand
    total = run.replicas if said is None else said
    if run.replicas == 0 and said in (None, 0):
        # Somebody woke one of them. That the new one has a replica for its trial is no load.
        total = max(case.stable.replicas, 0 if run.phase == "Proving" else case.canary.replicas)
    total = max(total, bounds.minimum)
    return min(total, bounds.maximum) if bounds.maximum else total


def _under_way(case: _Case, run: RolloutStatus) -> RolloutPlan:
    """A rollout that was not given up."""
    total = _total(case, run)
    run = run.model_copy(
        update={
            "replicas": total,
            "since": min(run.since, case.now),
            "started_at": min(run.started_at, case.now),
            "steps": run.steps and (len(case.situation.rollout.steps) or None),
        }
    )
    if case.orders(words.ABORT):
        return _back(case, run, phase="Aborted", outcome="Aborted", why="aborted by an order")
    if case.promoted or (run.step or 0) > len(case.situation.rollout.steps):
        run = run.model_copy(update={"step": None})
    for _ in range(MAX_STEPS + 2):
        if case.stable.lost and not case.canary.lost:
            return _taken_over(case, run)
        if not _is_reached(run, case):
            moved = _progress(case, run, total)
            if isinstance(moved, RolloutPlan):
                return moved
            run = moved
        if run.step is None:
            return _last(case, run, total)
        stands = stand(
            case.situation.rollout,
            run,
            evidence=case.situation.evidence,
            paused=bool(case.orders(words.PAUSE)),
            now=case.now,
        )
        ordered = any(order.step == run.step for order in case.orders(words.PROMOTE))
        if stands.turn is Turn.ROLL_BACK and not ordered:
            why = f"its analysis failed: {stands.message}"
            judged = run.model_copy(update={"analysis": stands.analysis})
            return _back(case, judged, phase="RolledBack", outcome="RolledBack", why=why)
        lost = total > 0 and case.canary.ready == 0
        if not ordered and (stands.turn is Turn.STAY or lost):
            return _standing(case, run, stands, total)
        run = run.model_copy(
            update={
                "step": next_of(case.situation.rollout, run.step),
                "phase": "Progressing",
                "since": case.now,
                "analysis": None,
            }
        )
    raise AssertionError("a rollout has no more steps than its list")  # pragma: no cover


def _is_reached(run: RolloutStatus, case: _Case) -> bool:
    target = target_of(case.situation.rollout, run.step)
    return run.step is not None and run.phase in REACHED and run.weight == target


def _progress(case: _Case, run: RolloutStatus, total: int) -> RolloutPlan | RolloutStatus:
    """On the way to the weight of the step: the plan while it is, else the run that is there."""
    situation = case.situation
    target = target_of(situation.rollout, run.step)
    there = run.model_copy(update={"weight": target, "phase": "Waiting", "since": case.now})
    if case.orders(words.PAUSE) and not case.promoted:
        return _held(case, run, total)
    if total == 0:
        # One that has come so far was ready once in this rollout.
        proven = case.canary.ready > 0 or run.weight > 0 or run.phase in REACHED
        if proven or not situation.rollout.trial_start or _later(run):
            return there
        return _proving(case, run)
    surge = surge_of(situation.rollout.surge, total)
    if run.weight == 100 and run.step is None and case.canary.ready == 0 < case.stable.replicas:
        if surge:
            # There is room for both by now: nobody has to wait.
            run = run.model_copy(update={"weight": 0})
        else:
            return _cold(case, run, changing_sides(case.stable.side, case.canary.side))
    moved = move(
        total,
        target=target,
        weight=run.weight,
        stable=case.stable.side,
        canary=case.canary.side,
        surge=surge,
        maximum=situation.scaling.maximum,
    )
    if moved.cold:
        return _cold(case, run, moved)
    if run.step is None and run.weight == 100 and case.canary.ready == 0:
        return _cold(case, run, changing_sides(case.stable.side, case.canary.side))
    if moved.reached:
        return there
    return _moving(case, run, moved, total)


def _later(run: RolloutStatus) -> bool:
    return run.step is not None and run.step > 1


def _proving(case: _Case, run: RolloutStatus) -> RolloutPlan:
    """The trial start of a new revision of a deployment that sleeps."""
    since = run.since if run.phase == "Proving" else case.now
    failing = case.canary.failure is not None
    rollout, patience = case.situation.rollout, case.situation.patience
    left = deadline_of(rollout, patience=patience, failing=failing) - (case.now - since)
    if left <= timedelta(0):
        why = case.canary.failure or "it was not ready in time (rollout.startDeadline)"
        message = f"its trial start failed: {why}"
        return _back(case, run, phase="Failed", outcome="Failed", why=message)
    if failing:
        message = (
            f"the trial start of revision {case.canary.name} fails: {case.canary.failure}; "
            f"{case.stable.name} stays current"
        )
    else:
        message = (
            f"revision {case.canary.name} is started once to prove it; {case.stable.name} stays "
            f"current until then"
        )
    run = run.model_copy(update={"phase": "Proving", "since": since, "message": message})
    scale = {case.stable.name: 0, case.canary.name: 1}
    return _plan(case, run, scale=scale, stalled=failing, again=left)


def _moving(case: _Case, run: RolloutStatus, moved: Move, total: int) -> RolloutPlan:
    """Capacity is on its way from one to the other."""
    since = case.now if run.phase == "Proving" else run.since
    canary, stable = case.canary, case.stable
    late, again = False, None
    if canary.ready < canary.replicas or not canary.replicas:
        left = deadline_of(
            case.situation.rollout, patience=case.situation.patience, failing=False
        ) - (case.now - since)
        late, again = left <= timedelta(0), left if left > timedelta(0) else None
    stalled = bool(canary.failure or moved.blocked) or late
    if moved.blocked:
        message = moved.blocked
    elif canary.failure is not None:
        message = (
            f"revision {canary.name} cannot start: {canary.failure}; {stable.name} goes on "
            f"serving. Correct the spec, or undo the change"
        )
    else:
        message = (
            f"revision {canary.name} has {canary.ready} of {max(moved.canary, 1)} replicas ready; "
            f"{stable.name} serves until then"
        )
        if late:
            message += ". That takes longer than expected: look at its pods, or undo the change"
    step = _step_words(run)
    run = run.model_copy(
        update={
            "phase": "Progressing",
            "since": since,
            "weight": moved.weight,
            "message": step + message,
        }
    )
    given = moved.stable
    if 100 - moved.weight < stable.traffic and moved.weight:
        # Its requests leave it first, then its replicas.
        given, again = max(moved.stable, stable.replicas), SOON
    return _plan(
        case,
        run,
        scale={stable.name: given, canary.name: moved.canary},
        stalled=stalled,
        again=again,
        total=total,
    )


def _step_words(run: RolloutStatus) -> str:
    if run.step is None:
        return ""
    return f"step {run.step} of {run.steps}: "


def _cold(case: _Case, run: RolloutStatus, moved: Move) -> RolloutPlan:
    """The only replica changes sides: first the requests, which gateways hold, then the place."""
    stable, canary = case.stable, case.canary
    since = run.since if run.weight == 100 else case.now
    left = deadline_of(case.situation.rollout, patience=case.situation.patience, failing=False) - (
        case.now - since
    )
    if canary.failure is not None or left <= timedelta(0):
        why = canary.failure or "it was not ready in time (rollout.startDeadline)"
        return _back(case, run, phase="Failed", outcome="Failed", why=f"it cannot start: {why}")
    message = (
        f"there is room for one replica only (rollout.surge): requests wait at the gateways while "
        f"{canary.name} starts in the place of {stable.name}"
    )
    run = run.model_copy(
        update={"phase": "Progressing", "weight": 100, "since": since, "message": message}
    )
    heard = stable.traffic == 0 and (stable.unused_seconds or 0.0) >= SETTLE_SECONDS
    scale = {stable.name: moved.stable, canary.name: moved.canary} if heard else {}
    again = left if heard else SOON
    return _plan(case, run, scale=scale, again=again, cold=True)


def _held(case: _Case, run: RolloutStatus, total: int) -> RolloutPlan:
    """Paused by an order before the weight of the step was reached: all stays as it is."""
    run = run.model_copy(
        update={
            "phase": "Progressing" if run.phase == "Proving" else run.phase,
            "message": f"{_step_words(run)}paused by an order: remove the annotation to go on",
        }
    )
    if run.phase in REACHED:
        run = run.model_copy(update={"phase": "Progressing", "since": case.now})
    canary = share(total, run.weight) if run.weight or total == 0 else case.canary.replicas
    surge = surge_of(case.situation.rollout.surge, total)
    limit = limit_of(
        total,
        surge=surge,
        target=target_of(case.situation.rollout, run.step),
        maximum=case.situation.scaling.maximum,
    )
    stable = min(share(total, 100 - run.weight), max(limit - canary, min(total, 1)))
    return _plan(case, run, scale={case.stable.name: stable, case.canary.name: canary})


def _standing(case: _Case, run: RolloutStatus, stands: Stand, total: int) -> RolloutPlan:
    """At the weight of a step."""
    phase = stands.phase
    since = run.since if run.phase in REACHED else case.now
    message = stands.message
    lost = total > 0 and case.canary.ready == 0 and case.canary.replicas > 0
    if lost:
        why = case.canary.failure or "none of its replicas is ready"
        message = f"{case.stable.name} serves everything: {case.canary.name} lost its pods: {why}"
        if stands.turn is not Turn.STAY:
            phase = "Waiting"
    elif total == 0 and phase != "Paused":
        message += "; the deployment sleeps, and the weight is for the requests to come"
    run = run.model_copy(
        update={
            "phase": phase,
            "since": since,
            "message": f"{_step_words(run)}{run.weight} % of the requests; {message}",
            "analysis": stands.analysis,
        }
    )
    target = target_of(case.situation.rollout, run.step)
    surge = surge_of(case.situation.rollout.surge, total)
    limit = limit_of(total, surge=surge, target=target, maximum=case.situation.scaling.maximum)
    stable, canary = settled(total, target=target, limit=limit)
    again = stands.again
    if 100 - run.weight < case.stable.traffic and stable < case.stable.replicas:
        # Its requests leave it first, then its replicas.
        stable, again = case.stable.replicas, SOON
    return _plan(
        case,
        run,
        scale={case.stable.name: stable, case.canary.name: canary},
        stalled=_is_bad(stands) or (lost and case.canary.failure is not None),
        again=again,
        total=total,
    )


def _is_bad(stands: Stand) -> bool:
    """Whether only a person can go on; one who approves a step is expected, and no trouble."""
    return stands.blocked or (stands.analysis is not None and stands.analysis.verdict == "Bad")


def _back(
    case: _Case, run: RolloutStatus, *, phase: RolloutPhase, outcome: Outcome, why: str
) -> RolloutPlan:
    """All traffic is the stable revision's again, and the new one is not tried any more."""
    ended = Ending(case.canary.name, outcome, why[:1024], run.started_at)
    case = replace(case, endings=(*case.endings, ended))
    run = run.model_copy(update={"phase": phase, "since": case.now, "weight": 0, "message": why})
    return _given_up(case, run)


def _given_up(case: _Case, run: RolloutStatus) -> RolloutPlan:
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
    plan = _plan(case, run, scale=scale, stalled=True)
    return replace(plan, message=message)


def _plan(
    case: _Case,
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
        weights = _served(weights, case.known, without={canary.name} if given_up else set())
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
    used, ignored = _orders(case.situation, run)
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
        scale=_changed({**rest.scale, **scale}, case.known),
        retired=rest.since,
        delete=rest.delete,
        endings=case.endings,
        used=used,
        ignored=ignored,
        message=message,
        stalled=stalled,
        requeue_after=min((w for w in (again, rest.again) if w is not None), default=None),
    )


def _last(case: _Case, run: RolloutStatus, total: int) -> RolloutPlan:
    """Behind the last step, with all the weight."""
    if case.canary.ready == 0 and case.stable.ready > 0:
        # It sleeps as asked, but pods of the stable one are there still: they go first.
        run = run.model_copy(update={"phase": "Progressing"})
        return _plan(case, run, scale={case.stable.name: 0}, again=SOON)
    return _taken_over(case, run, sleeps=total == 0)


def _taken_over(case: _Case, run: RolloutStatus, *, sleeps: bool = False) -> RolloutPlan:
    """The new revision is the stable one from now on."""
    endings = (
        *case.endings,
        Ending(case.stable.name, "Superseded", f"{case.canary.name} took over", started_at=None),
        Ending(case.canary.name, "Serving", "", run.started_at),
    )
    plan = _at_rest(case.situation, case.known, least=run.replicas)
    if sleeps:
        # Its trial is over.
        scale = {**plan.scale, case.canary.name: case.situation.scaling.minimum}
        plan = replace(plan, scale=_changed(scale, case.known))
    return replace(
        plan,
        endings=endings,
        message=f"revision {case.canary.name} took over from {case.stable.name}",
    )


def _at_rest(
    situation: Situation, known: Mapping[str, RevisionState], *, least: int = 0
) -> RolloutPlan:
    """The desired revision is the stable one."""
    desired, memory = known[situation.desired], situation.memory
    endings: tuple[Ending, ...] = ()
    if memory is not None and memory.canary != desired.name and memory.phase not in GIVEN_UP:
        endings = _superseded(memory, desired.name)
        least = max(least, memory.replicas)
    weights = _served({desired.name: 100}, known)
    wanted = max(desired.replicas, situation.scaling.minimum, least)
    if situation.scaling.maximum:
        wanted = min(wanted, max(situation.scaling.maximum, desired.replicas))
    rest = retiring(
        situation,
        known,
        keep={desired.name} | set(weights),
        room=surge_of(situation.rollout.surge, wanted),
    )
    used, _ = _orders(situation, None)
    return RolloutPlan(
        traffic={n: weights.get(n, 0) for n in sorted(known) if n not in rest.delete},
        stable=desired.name,
        roles={**dict.fromkeys(rest.since, "retiring"), desired.name: "stable"},
        scale=_changed({**rest.scale, desired.name: wanted}, known),
        retired=rest.since,
        delete=rest.delete,
        endings=endings,
        used=used,
        requeue_after=rest.again,
    )


def _served(
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


def _orders(
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


def _changed(wanted: Mapping[str, int], known: Mapping[str, RevisionState]) -> dict[str, int]:
    """Of the replicas wanted those that are others than they are, the fewer ones first."""
    moved = {name: count for name, count in wanted.items() if known[name].replicas != count}
    return dict(sorted(moved.items(), key=lambda it: (it[1] > known[it[0]].replicas, it[0])))
