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
| other       | step below 100,   |            | Stalled: there is no place for two             |
|             | surge 0, max. 1   |            |                                                |
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

A list of steps that became shorter than the step under way: it goes on at the first one with no
less than the weight that was reached; where there is none, it is behind the last.

Clocks: a time in the future (the clock was set back) counts as now, so nothing lasts longer than
twice its time; after a jump forward a wait ends early, but a revision that lost its traffic is only
deleted after it was *seen* without it for some seconds by a clock that does not jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from beamlit_operator.api.rollout import MAX_STEPS, RolloutStatus
from beamlit_operator.rollout import orders as words
from beamlit_operator.rollout.analysis import Evidence
from beamlit_operator.rollout.capacity import changing_sides, has_room, move, surge_of
from beamlit_operator.rollout.course import Turn, next_of, resumed_at, stand, target_of
from beamlit_operator.rollout.plans import Case, back, changed, given_up, plan_of, served, used_up
from beamlit_operator.rollout.retiring import retiring
from beamlit_operator.rollout.revisions import (
    GIVEN_UP,
    Ending,
    RevisionState,
    RolloutPlan,
    Situation,
)
from beamlit_operator.rollout.stages import REACHED, SOON, cold, held, moving, proving, standing


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
    case = Case(situation, known, stable, known[situation.desired], endings)
    if run.phase in GIVEN_UP:
        return given_up(case, run)
    return _under_way(case, run)


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


def _total(case: Case, run: RolloutStatus) -> int:
    """Replicas that the load needs, of both together; 0 when the deployment sleeps."""
    bounds, said = case.situation.scaling, case.situation.demand
    total = run.replicas if said is None else said
    if run.replicas == 0 and said in (None, 0):
        # Somebody woke one of them. That the new one has a replica for its trial is no load.
        total = max(case.stable.replicas, 0 if run.phase == "Proving" else case.canary.replicas)
    total = max(total, bounds.minimum)
    return min(total, bounds.maximum) if bounds.maximum else total


def _under_way(case: Case, run: RolloutStatus) -> RolloutPlan:
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
        return back(case, run, phase="Aborted", outcome="Aborted", why="aborted by an order")
    if case.promoted:
        run = run.model_copy(update={"step": None})
    elif (run.step or 0) > len(case.situation.rollout.steps):
        step = resumed_at(case.situation.rollout, run.weight)
        run = run.model_copy(update={"step": step})
    for _ in range(MAX_STEPS + 2):
        if case.stable.lost and not case.canary.lost:
            return _taken_over(case, run)
        # What was measured is of the step that was reached before, not of the ones after it.
        evidence = case.situation.evidence if _is_reached(run, case) else Evidence()
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
            evidence=evidence,
            paused=bool(case.orders(words.PAUSE)),
            now=case.now,
        )
        ordered = any(order.step == run.step for order in case.orders(words.PROMOTE))
        if stands.turn is Turn.ROLL_BACK and not ordered:
            why = f"its analysis failed: {stands.message}"
            judged = run.model_copy(update={"analysis": stands.analysis})
            return back(case, judged, phase="RolledBack", outcome="RolledBack", why=why)
        lost = total > 0 and case.canary.ready == 0
        if not ordered and (stands.turn is Turn.STAY or lost):
            return standing(case, run, stands, total)
        run = run.model_copy(
            update={
                "step": next_of(case.situation.rollout, run.step),
                "phase": "Progressing",
                "since": case.now,
                "analysis": None,
            }
        )
    raise AssertionError("a rollout has no more steps than its list")  # pragma: no cover


def _is_reached(run: RolloutStatus, case: Case) -> bool:
    target = target_of(case.situation.rollout, run.step)
    there = run.step is not None and run.phase in REACHED and run.weight == target
    return there and _has_room(case, run, target)


def _has_room(case: Case, run: RolloutStatus, target: int) -> bool:
    """Whether both can serve; whether they sleep makes no difference: they will not always."""
    surge = surge_of(case.situation.rollout.surge, max(run.replicas, 1))
    return has_room(target=target, surge=surge, maximum=case.situation.scaling.maximum)


def _progress(case: Case, run: RolloutStatus, total: int) -> RolloutPlan | RolloutStatus:
    """On the way to the weight of the step: the plan while it is, else the run that is there."""
    situation = case.situation
    target = target_of(situation.rollout, run.step)
    there = run.model_copy(update={"weight": target, "phase": "Waiting", "since": case.now})
    if case.orders(words.PAUSE) and not case.promoted:
        return held(case, run, total)
    if total == 0 and _has_room(case, run, target):
        # One that has come so far was ready once in this rollout, unless it got the only place.
        waited = run.weight > 0 and not _is_cold(situation.memory, run)
        proven = case.canary.ready > 0 or waited or run.phase in REACHED
        if proven or not situation.rollout.trial_start or _later(run):
            return there
        return proving(case, run.model_copy(update={"weight": 0}))
    surge = surge_of(situation.rollout.surge, total)
    if run.weight == 100 and run.step is None and case.canary.ready == 0 < case.stable.replicas:
        if surge:
            # There is room for both by now: nobody has to wait.
            run = run.model_copy(update={"weight": 0})
        else:
            return cold(case, run, changing_sides(case.stable.side, case.canary.side))
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
        return cold(case, run, moved)
    if run.step is None and run.weight == 100 and case.canary.ready == 0:
        return cold(case, run, changing_sides(case.stable.side, case.canary.side))
    if moved.reached:
        return there
    return moving(case, run, moved, total)


def _is_cold(memory: RolloutStatus | None, run: RolloutStatus) -> bool:
    """Whether the new revision has all the requests, and was never ready."""
    return (
        memory is not None
        and memory.canary == run.canary
        and (memory.step, memory.weight, memory.phase) == (None, 100, "Progressing")
    )


def _later(run: RolloutStatus) -> bool:
    return run.step is not None and run.step > 1


def _last(case: Case, run: RolloutStatus, total: int) -> RolloutPlan:
    """Behind the last step, with all the weight."""
    if case.canary.ready == 0 and case.stable.ready > 0:
        # It sleeps as asked, but pods of the stable one are there still: they go first.
        run = run.model_copy(update={"phase": "Waiting"})
        return plan_of(case, run, scale={case.stable.name: 0}, again=SOON)
    return _taken_over(case, run, sleeps=total == 0)


def _taken_over(case: Case, run: RolloutStatus, *, sleeps: bool = False) -> RolloutPlan:
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
        plan = replace(plan, scale=changed(scale, case.known))
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
    weights = served({desired.name: 100}, known)
    wanted = max(desired.replicas, situation.scaling.minimum, least)
    if situation.scaling.maximum:
        wanted = min(wanted, max(situation.scaling.maximum, desired.replicas))
    rest = retiring(
        situation,
        known,
        keep={desired.name} | set(weights),
        room=surge_of(situation.rollout.surge, wanted),
    )
    used, _ = used_up(situation, None)
    return RolloutPlan(
        traffic={n: weights.get(n, 0) for n in sorted(known) if n not in rest.delete},
        stable=desired.name,
        roles={**dict.fromkeys(rest.since, "retiring"), desired.name: "stable"},
        scale=changed({**rest.scale, desired.name: wanted}, known),
        retired=rest.since,
        delete=rest.delete,
        endings=endings,
        used=used,
        requeue_after=rest.again,
    )
