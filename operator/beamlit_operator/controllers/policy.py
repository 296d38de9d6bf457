"""Policy: are the names in it known? A name in no catalogue would silently allow nothing."""

from __future__ import annotations

from datetime import datetime

from beamlit_operator.api import Policy, Reason
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.verdict import State, Verdict, changed, conditions_of
from beamlit_operator.policy import Catalogue, unknown, values_of


def decide(policy: Held[Policy], *, catalogue: Catalogue, now: datetime) -> Plan:
    """The status of a Policy."""
    if policy.deleting:
        return Plan()
    verdict = _verdict(policy, catalogue)
    old = policy.parsed.status.conditions if policy.parsed is not None else ()
    generation = policy.metadata.generation
    status = {
        "observedGeneration": generation,
        "conditions": conditions_of(verdict, old=old, generation=generation, now=now),
    }
    events: tuple[Announcement, ...] = ()
    if changed(verdict, old) and not verdict.good:
        events = (Announcement("Warning", verdict.reason, verdict.message),)
    return Plan(status=status, events=events)


def _verdict(policy: Held[Policy], catalogue: Catalogue) -> Verdict:
    if policy.parsed is None:
        return Verdict(State.STALLED, Reason.INVALID_SPEC, policy.problem)
    problems = unknown(values_of(policy.parsed, catalogue=catalogue), catalogue=catalogue)
    if problems:
        return Verdict(State.STALLED, Reason.UNKNOWN_NAME, "; ".join(problems))
    return Verdict(State.GOOD, Reason.READY, "every name in the policy is known")
