"""The course of a rollout: its steps, how long each lasts, and what a new revision may take. Pure.

A step that is reached (the new revision has its weight) is left:

| order   | analysis  | pause    | the step                                     |
|---------|-----------|----------|----------------------------------------------|
| `/STEP` |           |          | is left now                                  |
| pause   | Bad       |          | as below: a bad verdict is not held back     |
| pause   | else      |          | waits until the order is taken away (Paused) |
| none    | Bad       |          | onFailure: all back (RolledBack), or Paused  |
| none    | Undecided |          | waits (Analyzing)                            |
| none    | Good      | unset    | is left now                                  |
| none    | Good      | duration | is left when it has lasted so long (Waiting) |
| none    | none      | unset    | waits for approval (Paused)                  |
| none    | none      | duration | is left when it has lasted so long (Waiting) |

A step that paused because of a bad verdict waits for a person, whatever its numbers say later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from beamlit_operator.api.duration import seconds
from beamlit_operator.api.rollout import (
    AnalysisStatus,
    Rollout,
    RolloutAnalysis,
    RolloutPhase,
    RolloutStatus,
    RolloutStep,
)
from beamlit_operator.rollout.analysis import Evidence, judge, told

LOOK_EVERY = timedelta(seconds=2)
"""How often the numbers of a step are looked at: as often as gateways are asked for them."""

FAILING = timedelta(minutes=5)
"""How long a trial start that fails goes on: what fails may heal, but must not hold a GPU."""


class Turn(Enum):
    """What becomes of a step."""

    LEAVE = "leave"
    STAY = "stay"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Stand:
    """How a step that is reached stands."""

    turn: Turn
    phase: RolloutPhase = "Waiting"
    message: str = ""
    analysis: AnalysisStatus | None = None
    again: timedelta | None = None
    """When to look again."""
    blocked: bool = False
    """Whether only a person can go on."""


def step_of(rollout: Rollout, number: int | None) -> RolloutStep | None:
    """The step of that number, from 1; None behind the last one."""
    if number is None or number > len(rollout.steps):
        return None
    return rollout.steps[number - 1]


def target_of(rollout: Rollout, number: int | None) -> int:
    """The weight of a step; 100 behind the last one."""
    step = step_of(rollout, number)
    return step.weight if step is not None else 100


def next_of(rollout: Rollout, number: int) -> int | None:
    """The number of the following step; None behind the last one."""
    return number + 1 if number < len(rollout.steps) else None


def resumed_at(rollout: Rollout, weight: int) -> int | None:
    """The number of the step to go on with at a weight, once the steps are others than they were;
    None behind the last one."""
    numbered = enumerate(rollout.steps, start=1)
    return next((number for number, step in numbered if step.weight >= weight), None)


def criteria_of(rollout: Rollout, number: int | None) -> RolloutAnalysis | None:
    """The analysis of a step: its own, or that of the rollout."""
    step = step_of(rollout, number)
    return (step.analysis or rollout.analysis) if step is not None else None


def retention_of(rollout: Rollout) -> timedelta:
    """How long a revision keeps its pods after it lost its traffic."""
    return timedelta(seconds=seconds(rollout.retention))


def deadline_of(rollout: Rollout, *, patience: timedelta, failing: bool) -> timedelta:
    """How long a new revision may take until it is ready."""
    if rollout.start_deadline is not None:
        patience = timedelta(seconds=seconds(rollout.start_deadline))
    return min(patience, FAILING) if failing else patience


def stand(
    rollout: Rollout,
    run: RolloutStatus,
    *,
    evidence: Evidence,
    paused: bool,
    now: datetime,
) -> Stand:
    """How the step stands that ``run`` has reached; the table above. ``paused`` is the order."""
    step = step_of(rollout, run.step)
    if step is None:
        return Stand(Turn.LEAVE)
    criteria = criteria_of(rollout, run.step)
    analysis, blocked, verdict = None, False, "Good"
    if criteria is not None:
        before = run.analysis
        if before is not None and before.verdict == "Bad" and run.phase == "Paused":
            message = f"{before.message}; {_approve(run)}"
            return Stand(Turn.STAY, "Paused", message, analysis=before)
        judgement = judge(criteria, evidence, weight=step.weight)
        verdict, blocked = judgement.verdict, judgement.blocked
        analysis = told(judgement, evidence, before=before, now=now)
        if verdict == "Bad" and criteria.on_failure == "Rollback":
            return Stand(Turn.ROLL_BACK, message=judgement.message, analysis=analysis)
        if verdict == "Bad":
            message = f"{judgement.message}; {_approve(run)}"
            return Stand(Turn.STAY, "Paused", message, analysis=analysis)
    watch = LOOK_EVERY if criteria is not None else None
    if paused:
        message = "paused by an order: remove the annotation to go on"
        return Stand(Turn.STAY, "Paused", message, analysis=analysis, again=watch)
    if verdict == "Undecided" and analysis is not None:
        return Stand(
            Turn.STAY, "Analyzing", analysis.message, analysis, again=watch, blocked=blocked
        )
    if step.pause is None and criteria is None:
        return Stand(Turn.STAY, "Paused", f"waits for approval: {_approve(run)}")
    lasts = timedelta(seconds=seconds(step.pause)) if step.pause is not None else timedelta(0)
    ends = run.since + lasts
    if ends <= now:
        return Stand(Turn.LEAVE, analysis=analysis)
    message = f"until {ends:%H:%M:%S} UTC"
    again = min(ends - now, watch) if watch is not None else ends - now
    return Stand(Turn.STAY, "Waiting", message, analysis=analysis, again=again)


def _approve(run: RolloutStatus) -> str:
    return (
        f"annotate it with beamlit.com/rollout-promote={run.canary}/{run.step} to go on, or with "
        f"beamlit.com/rollout-abort={run.canary} to go back"
    )
