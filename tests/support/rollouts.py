"""Builders of what a rollout decides on, and a small cluster that does what its plans say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from beamlit_operator.api.rollout import HistoryEntry, Rollout, RolloutStatus
from beamlit_operator.rollout import (
    Evidence,
    Measured,
    RevisionState,
    RolloutPlan,
    Scaling,
    Situation,
    decide,
    history,
    orders,
)
from beamlit_operator.rollout.orders import ANNOTATIONS

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PATIENCE = timedelta(hours=1)


def canary(*steps: dict[str, Any], **more: Any) -> Rollout:
    return Rollout.model_validate({"strategy": "Canary", "steps": list(steps), **more})


def blue_green(**more: Any) -> Rollout:
    return Rollout.model_validate(more)


@dataclass
class Workload:
    """One revision's Deployment: pods become ready when the test says so, unless they fail."""

    replicas: int = 0
    ready: int = 0
    failure: str | None = None
    startable: bool = True
    unused: float | None = None


@dataclass
class Cluster:
    """A deployment and its revisions. What the operator keeps is in the status only."""

    rollout: Rollout = field(default_factory=Rollout)
    scaling: Scaling = field(default_factory=Scaling)
    desired: str = "a"
    now: datetime = START
    workloads: dict[str, Workload] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: RolloutStatus | None = None
    used: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    demand: int | None = None
    evidence: Evidence = field(default_factory=Evidence)
    plan: RolloutPlan | None = None

    def situation(self) -> Situation:
        return Situation(
            revisions=tuple(self._state(name) for name in sorted(self.workloads)),
            desired=self.desired,
            now=self.now,
            rollout=self.rollout,
            scaling=self.scaling,
            patience=PATIENCE,
            memory=self.memory,
            orders=orders.standing(self.annotations),
            used=self.used,
            demand=self.demand,
            evidence=self.evidence,
        )

    def _state(self, name: str) -> RevisionState:
        each, row = self.workloads[name], self.rows.get(name, {})
        return RevisionState(
            name=name,
            replicas=each.replicas,
            ready=each.ready,
            pods=max(each.replicas, each.ready),
            traffic=row.get("traffic", 0),
            role=row.get("role"),
            retired_at=row.get("retired_at"),
            unused_seconds=None if row.get("traffic") else each.unused or 0.0,
            failure=each.failure if each.replicas > each.ready else None,
            startable=each.startable or name == self.desired,
            served=history.served(self.history, name),
        )

    def step(self) -> RolloutPlan:
        """Decides once and does what the plan says."""
        plan = decide(self.situation())
        given_up = plan.rollout is not None and not plan.under_way
        if self.desired not in self.workloads and not given_up:
            self.workloads[self.desired] = Workload()
        for name, count in plan.scale.items():
            if name in self.workloads:
                self.workloads[name].replicas = count
                self.workloads[name].ready = min(self.workloads[name].ready, count)
        for name in plan.delete:
            self.workloads.pop(name, None)
        self.history = history.written(
            self.history,
            endings=plan.endings,
            serving=plan.stable,
            desired=self.desired,
            versions={},
            spec={"version": self.desired},
            released=None,
            now=self.now,
        )
        self.rows = {
            name: {
                "traffic": plan.traffic.get(name, 0),
                "role": plan.roles.get(name),
                "retired_at": plan.retired.get(name),
            }
            for name in self.workloads
        }
        self.memory, self.used = plan.rollout, plan.used
        self.demand = None
        self.plan = plan
        return plan

    def start_pods(self, *, but: frozenset[str] = frozenset()) -> None:
        """Pods that are wanted become ready, except of those that fail."""
        for name, each in self.workloads.items():
            if each.failure is None and name not in but:
                each.ready = each.replicas

    def later(self, seconds: float) -> Cluster:
        self.now += timedelta(seconds=seconds)
        for name, each in self.workloads.items():
            traffic = self.rows.get(name, {}).get("traffic", 0)
            each.unused = None if traffic else (each.unused or 0.0) + seconds
        return self

    def settle(self, *, seconds: float = 0.0, times: int = 60) -> RolloutPlan:
        """Decides, lets pods start and time pass, until nothing changes any more."""
        before = None
        for _ in range(times):
            plan = self.step()
            self.start_pods()
            self.later(max(seconds, 1.0))
            seen = (self.weights, self.replicas, self.memory, self.ready)
            if seen == before:
                return plan
            before = seen
        raise AssertionError(f"it does not settle: {before}")

    def order(self, kind: str, value: str) -> Cluster:
        self.annotations[ANNOTATIONS[kind]] = value
        return self

    def edit(self, revision: str) -> Cluster:
        self.desired = revision
        return self

    @property
    def weights(self) -> dict[str, int]:
        return {name: row["traffic"] for name, row in self.rows.items() if row["traffic"]}

    @property
    def replicas(self) -> dict[str, int]:
        return {name: each.replicas for name, each in self.workloads.items()}

    @property
    def ready(self) -> dict[str, int]:
        return {name: each.ready for name, each in self.workloads.items()}

    @property
    def phase(self) -> str | None:
        return self.memory.phase if self.memory is not None else None

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(each.revision, each.outcome) for each in self.history]


def serving(replicas: int = 4, **more: Any) -> Cluster:
    """Revision `a` serves with so many replicas."""
    cluster = Cluster(**more)
    cluster.workloads["a"] = Workload(replicas, replicas)
    cluster.settle()
    return cluster


def good(requests: int = 100, **more: Any) -> Evidence:
    return Evidence(
        canary=Measured(requests, **more), stable=Measured(requests, p95_milliseconds=100.0)
    )


def without_status(cluster: Cluster) -> Cluster:
    """A restored backup: the objects are there, and no status."""
    return replace(cluster, rows={}, memory=None, used=(), history=())


STEPS = canary({"weight": 25}, {"weight": 50, "pause": "60s"})
ERRORS = {"maxErrorPercent": 5}


def at_step_one(replicas=4, rollout=STEPS) -> Cluster:
    """A canary `b` beside `a` at its first step."""
    cluster = serving(replicas, rollout=rollout).edit("b")
    cluster.settle()
    assert cluster.memory.step == 1
    return cluster
