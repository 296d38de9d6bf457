"""Environment: are its policies there, and how many deployments does it hold?"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime

from beamlit_operator.api import Environment, Reason
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.verdict import State, Verdict, changed, conditions_of


def decide(
    environment: Held[Environment],
    *,
    policies: Container[str],
    deployments: int,
    now: datetime,
) -> Plan:
    """The status of an Environment.

    Args:
        environment: the Environment.
        policies: the names of the Policies in its workspace.
        deployments: how many ModelDeployments are in it.
        now: the time of the decision.
    """
    if environment.deleting:
        return Plan()
    verdict = _verdict(environment, policies)
    old = environment.parsed.status.conditions if environment.parsed is not None else ()
    generation = environment.metadata.generation
    status = {
        "observedGeneration": generation,
        "conditions": conditions_of(verdict, old=old, generation=generation, now=now),
        "deployments": deployments,
    }
    events: tuple[Announcement, ...] = ()
    if changed(verdict, old) and not verdict.good:
        events = (Announcement("Warning", verdict.reason, verdict.message),)
    return Plan(status=status, events=events)


def _verdict(environment: Held[Environment], policies: Container[str]) -> Verdict:
    if environment.parsed is None:
        return Verdict(State.STALLED, Reason.INVALID_SPEC, environment.problem)
    missing = sorted(p.name for p in environment.parsed.spec.policies if p.name not in policies)
    if missing:
        named = ", ".join(missing)
        return Verdict(
            State.WAITING,
            Reason.POLICIES_UNRESOLVED,
            f"spec.policies names what does not exist in {environment.metadata.namespace}: "
            f"{named}. Nothing new is placed in this environment until it is created, or removed "
            f"from spec.policies",
        )
    return Verdict(State.GOOD, Reason.READY, "every policy of the environment exists")
