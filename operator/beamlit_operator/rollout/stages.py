"""What is done in each stage of a rollout: proved, moved, changed over, held, at a step. Pure."""

from __future__ import annotations

from datetime import timedelta

from beamlit_operator.api.rollout import RolloutPhase, RolloutStatus
from beamlit_operator.rollout.capacity import Move, limit_of, settled, share, surge_of
from beamlit_operator.rollout.course import Stand, Turn, deadline_of, target_of
from beamlit_operator.rollout.plans import Case, back, plan_of
from beamlit_operator.rollout.revisions import RolloutPlan

SOON = timedelta(seconds=1)
"""When to look again after a weight was written that lets capacity move."""

SETTLE_SECONDS = 3.0
"""Seconds after which all gateways have heard that a revision has no weight any more."""

REACHED: tuple[RolloutPhase, ...] = ("Waiting", "Analyzing", "Paused")
"""Phases in which the new revision has the weight of its step."""


def proving(case: Case, run: RolloutStatus) -> RolloutPlan:
    """The trial start of a new revision of a deployment that sleeps."""
    since = run.since if run.phase == "Proving" else case.now
    failing = case.canary.failure is not None
    rollout, patience = case.situation.rollout, case.situation.patience
    left = deadline_of(rollout, patience=patience, failing=failing) - (case.now - since)
    if left <= timedelta(0):
        why = case.canary.failure or "it was not ready in time (rollout.startDeadline)"
        message = f"its trial start failed: {why}"
        return back(case, run, phase="Failed", outcome="Failed", why=message)
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
    return plan_of(case, run, scale=scale, stalled=failing, again=left)


def moving(case: Case, run: RolloutStatus, moved: Move, total: int) -> RolloutPlan:
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
    got = moved.canary
    if moved.weight < canary.traffic:
        got, again = max(got, canary.replicas), SOON
    return plan_of(
        case,
        run,
        scale={stable.name: given, canary.name: got},
        stalled=stalled,
        again=again,
        total=total,
    )


def _step_words(run: RolloutStatus) -> str:
    if run.step is None:
        return ""
    return f"step {run.step} of {run.steps}: "


def cold(case: Case, run: RolloutStatus, moved: Move) -> RolloutPlan:
    """The only replica changes sides: first the requests, which gateways hold, then the place."""
    stable, canary = case.stable, case.canary
    since = run.since if run.weight == 100 else case.now
    left = deadline_of(case.situation.rollout, patience=case.situation.patience, failing=False) - (
        case.now - since
    )
    if canary.failure is not None or left <= timedelta(0):
        why = canary.failure or "it was not ready in time (rollout.startDeadline)"
        return back(case, run, phase="Failed", outcome="Failed", why=f"it cannot start: {why}")
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
    return plan_of(case, run, scale=scale, again=again, cold=True)


def held(case: Case, run: RolloutStatus, total: int) -> RolloutPlan:
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
    return plan_of(case, run, scale={case.stable.name: stable, case.canary.name: canary})


def standing(case: Case, run: RolloutStatus, stands: Stand, total: int) -> RolloutPlan:
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
    return plan_of(
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
