"""From a snapshot to the situation that `rollout` decides about, and back to what the status tells.

Pure. A deployment that scales by cpu or memory is scaled by HorizontalPodAutoscalers, one for each
revision that has requests: a rollout then only starts what the new revision needs for the weight of
its next step, in proportion to what runs, and takes nothing from the stable one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from beamlit_operator.api import labels
from beamlit_operator.api.modeldeployment import ModelDeployment, ServerlessConfig
from beamlit_operator.api.rollout import HistoryEntry, Role, Rollout, RolloutStatus
from beamlit_operator.controllers import bounds
from beamlit_operator.controllers.diagnosis import why_not_started, why_refused
from beamlit_operator.controllers.revisions import Revision
from beamlit_operator.controllers.snapshot import Snapshot
from beamlit_operator.kube import Json
from beamlit_operator.policy import EffectivePolicy
from beamlit_operator.rollout import (
    GIVEN_UP,
    Ending,
    RevisionState,
    RolloutPlan,
    Scaling,
    Situation,
    history,
    orders,
)
from beamlit_operator.rollout.course import criteria_of
from beamlit_operator.workloads.autoscaler import scales_by_resource
from beamlit_operator.workloads.native import Workload


@dataclass(frozen=True, slots=True)
class Telling:
    """What the status says of the revisions and of the rollout."""

    weights: Mapping[str, int] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    retired: Mapping[str, datetime] = field(default_factory=dict)
    rollout: RolloutStatus | None = None
    history: tuple[HistoryEntry, ...] = ()
    used: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Orders that were found not to count just now."""
    endings: tuple[Ending, ...] = ()

    @property
    def serving(self) -> str | None:
        """The revision with most of the requests."""
        return max(self.weights, key=lambda name: (self.weights[name], name), default=None)


def kept(deployment: ModelDeployment, *, sleeping: bool = False) -> Telling:
    """What is told while nothing is decided: what was told before. ``sleeping`` says that nothing
    answers any more: only who is who stays, so that it can go on from there."""
    status = deployment.status
    rollout = status.rollout
    if rollout is not None and sleeping:
        rollout = rollout.model_copy(update={"replicas": 0})
    weights = {each.name: each.traffic for each in status.revisions if each.traffic}
    return Telling(
        weights={} if sleeping else weights,
        roles={each.name: each.role for each in status.revisions if each.role},
        retired={each.name: each.retired_at for each in status.revisions if each.retired_at},
        rollout=rollout,
        history=status.history,
        used=status.used_orders,
    )


def under_way(deployment: ModelDeployment) -> RolloutStatus | None:
    """The rollout of a deployment whose two revisions share the load, if there is one."""
    rollout = deployment.status.rollout
    return rollout if rollout is not None and rollout.phase not in GIVEN_UP else None


def measured(deployment: ModelDeployment) -> RolloutStatus | None:
    """The rollout whose step's numbers are wanted, if there is one."""
    run = under_way(deployment)
    if run is None or run.phase in ("Proving", "Progressing"):
        return None
    rollout = deployment.spec.rollout or Rollout()
    return run if criteria_of(rollout, run.step) is not None else None


def step_id(run: RolloutStatus) -> str:
    """What tells one step of one rollout from all others."""
    return f"{run.canary}/{run.step}/{run.started_at.isoformat()}"


def situation(
    snapshot: Snapshot,
    policy: EffectivePolicy,
    built: Workload,
    *,
    revisions: list[Revision],
    now: datetime,
) -> Situation:
    """What the rollout decides about.

    Args:
        snapshot: what the reconcile looks at.
        policy: what the deployment is held to.
        built: the revision that the spec asks for.
        revisions: those that exist.
        now: the time.
    """
    deployment = snapshot.deployment
    config = deployment.spec.serverless_config or ServerlessConfig()
    rollout = deployment.spec.rollout or Rollout()
    by_resource = scales_by_resource(deployment)
    states = tuple(_state(snapshot, policy, each, desired=built.revision) for each in revisions)
    patience = float(built.deployment["spec"].get("progressDeadlineSeconds") or 3600)
    return Situation(
        revisions=states,
        desired=built.revision,
        now=now,
        # Its HorizontalPodAutoscaler decides what the stable revision has.
        rollout=rollout.model_copy(update={"surge": "100%"}) if by_resource else rollout,
        scaling=Scaling(config.min_num_replicas, config.max_num_replicas),
        patience=timedelta(seconds=patience),
        memory=deployment.status.rollout,
        orders=orders.standing(deployment.metadata.annotations),
        used=deployment.status.used_orders,
        demand=_by_resource(deployment, states) if by_resource else snapshot.demand,
        evidence=snapshot.evidence,
    )


def _state(
    snapshot: Snapshot, policy: EffectivePolicy, revision: Revision, *, desired: str
) -> RevisionState:
    deployment = snapshot.deployment
    row = next((r for r in deployment.status.revisions if r.name == revision.name), None)
    live = next((w for w in snapshot.workloads if w["metadata"]["name"] == revision.name), None)
    mine = pods_of(snapshot, revision.name)
    startable = (
        revision.name == desired
        or live is None
        or not bounds.outdated(live, policy, catalogue=snapshot.settings.catalogue)
    )
    return RevisionState(
        name=revision.name,
        replicas=revision.replicas,
        ready=revision.ready,
        pods=len([pod for pod in mine if not _ended(pod)]),
        traffic=revision.traffic,
        role=row.role if row is not None else None,
        retired_at=row.retired_at if row is not None else None,
        unused_seconds=snapshot.unused_for.get(revision.name),
        failure=None if revision.ready else failure_of(snapshot, revision.name),
        startable=startable,
        served=history.served(deployment.status.history, revision.name),
    )


def _by_resource(deployment: ModelDeployment, states: tuple[RevisionState, ...]) -> int | None:
    """What HorizontalPodAutoscalers have made of both revisions together, once a step is reached;
    before, what they had made of it."""
    run = deployment.status.rollout
    if run is None or run.phase in ("Proving", "Progressing"):
        return None
    return sum(each.replicas for each in states if each.name in (run.stable, run.canary))


def scales(
    plan: RolloutPlan, deployment: ModelDeployment, replicas: Mapping[str, int]
) -> dict[str, int]:
    """The replicas to set. Those of revisions that HorizontalPodAutoscalers scale are not taken."""
    if not scales_by_resource(deployment):
        return dict(plan.scale)
    ours = {plan.stable} | ({plan.rollout.canary} if plan.rollout is not None else set())
    return {
        name: count
        for name, count in plan.scale.items()
        if name not in ours or count == 0 or count > replicas.get(name, 0)
    }


def telling(
    plan: RolloutPlan,
    deployment: ModelDeployment,
    *,
    desired: str,
    versions: Mapping[str, str],
    now: datetime,
) -> Telling:
    """What the status says of a plan."""
    return Telling(
        weights={name: weight for name, weight in plan.traffic.items() if weight},
        roles=plan.roles,
        retired=plan.retired,
        rollout=plan.rollout,
        history=history.written(
            deployment.status.history,
            endings=plan.endings,
            serving=plan.stable,
            desired=desired,
            versions=versions,
            spec=history.defining(deployment.spec),
            released=history.released_from(deployment.metadata.annotations),
            now=now,
        ),
        used=plan.used,
        ignored=plan.ignored,
        endings=plan.endings,
    )


def failure_of(snapshot: Snapshot, revision: str) -> str | None:
    """Why no pod of a revision starts."""
    live = next((w for w in snapshot.workloads if w["metadata"]["name"] == revision), None)
    return why_not_started(pods_of(snapshot, revision)) or why_refused(live)


def pods_of(snapshot: Snapshot, revision: str) -> list[Json]:
    """The pods of a revision."""
    return [
        pod
        for pod in snapshot.pods
        if (pod["metadata"].get("labels") or {}).get(labels.REVISION) == revision
    ]


def _ended(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
