"""What a rollout decides about, and what it comes to: plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from beamlit_operator.api.rollout import Outcome, Role, Rollout, RolloutStatus
from beamlit_operator.rollout.analysis import Evidence
from beamlit_operator.rollout.capacity import Side
from beamlit_operator.rollout.orders import Order


@dataclass(frozen=True, slots=True)
class RevisionState:
    """One revision as it is in the cluster."""

    name: str
    replicas: int = 0
    """Replicas wanted (`spec.replicas` of its Deployment)."""
    ready: int = 0
    pods: int = 0
    """Pods that exist, also those that are ending."""
    traffic: int = 0
    """Percent of the requests it gets now (`status.revisions[].traffic`)."""
    role: Role | None = None
    """What the status says it is."""
    retired_at: datetime | None = None
    """When it lost its traffic (`status.revisions[].retiredAt`)."""
    unused_seconds: float | None = None
    """For how long it was seen without traffic, by a clock that is never set; None if it has
    traffic."""
    failure: str | None = None
    """Why its pods cannot start, if they cannot."""
    startable: bool = True
    """Whether pods of it may start: its template is not for more than policies allow now."""
    served: bool = False
    """Whether it once had all the traffic, and lost it to another by no fault of its own."""

    @property
    def side(self) -> Side:
        """It as the capacity sees it."""
        return Side(self.replicas, self.ready, self.pods)

    @property
    def lost(self) -> bool:
        """Whether it can never serve again."""
        return not self.startable and self.ready == 0


@dataclass(frozen=True, slots=True)
class Scaling:
    """What of the deployment's scaling a rollout respects. `maximum` 0 means no limit."""

    minimum: int = 0
    maximum: int = 10


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a decision looks at."""

    revisions: tuple[RevisionState, ...]
    """Those that exist; the desired one need not be among them yet."""
    desired: str
    """The revision that the spec asks for."""
    now: datetime
    """The time, aware."""
    rollout: Rollout = field(default_factory=Rollout)
    scaling: Scaling = field(default_factory=Scaling)
    patience: timedelta = timedelta(hours=1)
    """How long a start may take where `rollout.startDeadline` is unset."""
    memory: RolloutStatus | None = None
    """`status.rollout` as it was left."""
    orders: tuple[Order, ...] = ()
    """Those that stand on the object."""
    used: tuple[str, ...] = ()
    """`status.usedOrders`."""
    demand: int | None = None
    """Replicas that the autoscaler asks for, for all revisions; None if it has not spoken."""
    evidence: Evidence = field(default_factory=Evidence)
    """What is known of the step that is under way."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One revision's time is over, or its time as the serving one begins."""

    revision: str
    outcome: Outcome
    reason: str
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What to do now."""

    traffic: Mapping[str, int]
    """Percent of the requests for each revision that is kept; sums to 100."""
    stable: str
    """The revision that serves, or will once it can."""
    rollout: RolloutStatus | None = None
    """`status.rollout` from now on."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    """Replicas to set, for those that have other numbers; what gives comes before what gets."""
    retired: Mapping[str, datetime] = field(default_factory=dict)
    """Since when those without a part to play have none."""
    delete: tuple[str, ...] = ()
    endings: tuple[Ending, ...] = ()
    used: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Orders that came too early, since the last decision."""
    message: str = ""
    """What goes on, for people; empty when nothing does."""
    stalled: bool = False
    """Whether the new revision cannot go on without a person; the old one serves."""
    requeue_after: timedelta | None = None
    """When to decide again, if nothing else happens."""

    @property
    def under_way(self) -> bool:
        """Whether the new revision is on its way."""
        return self.rollout is not None and self.rollout.phase not in GIVEN_UP


GIVEN_UP = ("Aborted", "RolledBack", "Failed")
"""Phases in which the new revision is not tried again until the spec changes."""
