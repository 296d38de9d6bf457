"""ModelDeployment: what should be in the cluster for it, and what its status says.

``decide`` is a pure function of a snapshot and the time. In order:

1. it is being deleted: pods outside its policies go, the rest is for owner references to clean up;
2. an older deployment serves the endpoint: what it has is removed, Ready=False Duplicate;
3. pods outside the policies are deleted, whatever else is so;
4. it is not enabled: everything to zero, Ready=True Deactivated;
5. a check fails (`checks`): what runs is left alone, except that nothing starts under policies that
   cannot be resolved or do not allow the flavor, nor from a template that allows more than they do;
   Ready=False with the check's reason, or PlacementOutdated;
6. else its revision's objects are applied, traffic moves (`rollout`), and the state of the pods is
   told:

| what gets the requests  | a rollout                  | Ready | reason                          |
|-------------------------|----------------------------|-------|---------------------------------|
| has ready replicas      | none                       | True  | Serving                         |
| ready, or wants none    | under way                  | True  | RollingOut, Reconciling         |
| ready, or wants none    | waits for approval         | True  | RolloutPaused, Reconciling      |
| ready, or wants none    | cannot go on               | True  | RollingOut, Stalled             |
| ready, or wants none    | was given up               | True  | RolloutAborted, AnalysisFailed, |
|                         |                            |       | TrialStartFailed; Stalled       |
| cannot start again      | was given up               | False | PlacementOutdated               |
| no node fits            |                            | False | NoPlacement                     |
| wants none              | none                       | True  | Idle                            |
| wants some, cannot start|                            | False | StartFailed                     |
| wants some, starting    |                            | False | Starting                        |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from beamlit_operator.api import Reason, labels
from beamlit_operator.api.policy import Flavor
from beamlit_operator.controllers import bounds, checks, report, resourcescaling, rolling
from beamlit_operator.controllers.diagnosis import why_refused
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.originbook import Question
from beamlit_operator.controllers.originfiles import files_of
from beamlit_operator.controllers.plan import Deletion, Plan, Scale
from beamlit_operator.controllers.progress import Progress
from beamlit_operator.controllers.revisions import (
    VERSION,
    Revision,
    replicas_of,
    revisions_of,
)
from beamlit_operator.controllers.rolling import Telling, pods_of
from beamlit_operator.controllers.snapshot import Snapshot
from beamlit_operator.controllers.verdict import State, Verdict
from beamlit_operator.kube import Json, resource_of
from beamlit_operator.policy import EffectivePolicy, effective_policy
from beamlit_operator.policy.placement import why_no_node
from beamlit_operator.rollout import GIVEN_UP, RolloutPlan
from beamlit_operator.rollout import decide as decide_rollout
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.native import Refusal, Workload, endpoint_service, workload

__all__ = ["decide", "unreadable"]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The part of a plan that is about children, and what it means."""

    verdict: Verdict
    phase: str
    telling: Telling = field(default_factory=Telling)
    plan: Plan = field(default_factory=Plan)
    expected: Revision | None = None
    progress: Progress | None = None


def decide(snapshot: Snapshot, now: datetime) -> Plan:
    """The plan for a ModelDeployment."""
    policy = effective_policy(
        snapshot.deployment,
        snapshot.environment,
        policies=snapshot.policies,
        catalogue=snapshot.settings.catalogue,
    )
    evictions = bounds.outside(
        snapshot.pods,
        policy,
        node_labels=snapshot.node_labels,
        catalogue=snapshot.settings.catalogue,
    )
    if snapshot.deployment.metadata.deletion_timestamp is not None:
        # A finalizer may keep it, and what runs for it, for as long as its author likes.
        return _within_bounds(snapshot, Plan(), evictions)
    outcome = _outcome(snapshot, policy, now)
    plan = resourcescaling.planned(
        snapshot,
        _within_bounds(snapshot, outcome.plan, evictions),
        serving=outcome.telling.weights,
        reason=outcome.verdict.reason,
    )
    if outcome.verdict.reason == Reason.RESOLVING and report.is_settled(snapshot):
        # A fresh operator has not looked at the origin yet. What is written holds until it has.
        return plan
    blocked = resourcescaling.blocked(snapshot, serving=outcome.telling.serving, now=now)
    status, events = report.status(
        snapshot,
        policy,
        verdict=outcome.verdict,
        phase=outcome.phase,
        telling=outcome.telling,
        now=now,
        expected=outcome.expected,
        progress=outcome.progress,
        scaling_blocked=blocked
        if isinstance(blocked, tuple)
        else _kept_from_more(snapshot, outcome.telling.serving),
    )
    look_again = blocked if isinstance(blocked, float) else None
    waits = [w for w in (plan.requeue_after, snapshot.tell_again, look_again) if w is not None]
    return replace(plan, status=status, events=events, requeue_after=min(waits, default=None))


def _within_bounds(snapshot: Snapshot, plan: Plan, evictions: list[Deletion]) -> Plan:
    """The plan with the evictions, and with what keeps evicted pods from coming back."""
    evicted = bounds.per_revision(snapshot.pods, evictions)
    live = {each["metadata"]["name"]: each for each in snapshot.workloads}
    applied = tuple(
        bounds.yielding(each, live.get(each["metadata"]["name"]), evicted[each["metadata"]["name"]])
        if each["kind"] == "Deployment"
        else each
        for each in plan.apply
    )
    decided = {each["metadata"]["name"] for each in plan.apply} | {s.name for s in plan.scale}
    shrunk = bounds.shrunk(snapshot.workloads, evicted, rebuilt=decided)
    return replace(
        plan,
        apply=applied,
        scale=(*plan.scale, *shrunk),
        delete=(*plan.delete, *evictions),
    )


def unreadable(deployment: Held, now: datetime) -> Plan:  # type: ignore[type-arg]
    """The plan for one whose spec cannot be read: nothing but to say so."""
    verdict = Verdict(State.STALLED, Reason.INVALID_SPEC, deployment.problem)
    return report.bare(deployment, verdict, now=now)


def _outcome(snapshot: Snapshot, policy: EffectivePolicy, now: datetime) -> _Outcome:
    duplicate = checks.duplicate(snapshot)
    if duplicate is not None:
        because = "another deployment serves the endpoint"
        gone = tuple(_deletion(child, because) for child in snapshot.children)
        return _Outcome(duplicate, "Failed", plan=Plan(delete=gone))
    if not snapshot.deployment.spec.enabled:
        verdict = Verdict(
            State.GOOD,
            Reason.DEACTIVATED,
            "spec.enabled is false: nothing runs and nothing answers",
        )
        # Who serves what is kept: once it is enabled again it goes on from here.
        telling = rolling.kept(snapshot.deployment, sleeping=True)
        return _Outcome(verdict, "Deactivated", telling, Plan(scale=_all_to_zero(snapshot)))
    problem = checks.first_problem(checks.Case(snapshot, policy))
    if problem is not None:
        return _held_back(snapshot, policy, problem)
    built = _build(snapshot, policy)
    if isinstance(built, Refusal):
        refusal = Verdict(State.STALLED, built.reason, built.message)
        return _held_back(snapshot, policy, refusal)
    return _placed(snapshot, policy, built, now=now)


def _held_back(snapshot: Snapshot, policy: EffectivePolicy, verdict: Verdict) -> _Outcome:
    """A check failed: what runs goes on; nothing starts unless policies clearly allow it."""
    revisions = revisions_of(snapshot)
    telling = rolling.kept(snapshot.deployment)
    serving = telling.serving
    outdated = _outdated(snapshot, policy, serving, verdict)
    if outdated is not None:
        plan = Plan(scale=_nothing_new(snapshot, policy))
        if verdict.reason == Reason.RESOLVING:
            # A fresh operator looks at the origin: callers are held for that moment, not refused.
            return _Outcome(verdict, "Pending", telling, plan)
        return _Outcome(outdated, "Failed", telling, plan)
    passing = verdict.reason == Reason.ORIGIN_NOT_READY and verdict.state is State.WAITING
    if passing and serving is not None:
        # Only new replicas need the origin, and it may be back before one starts.
        told = _told(snapshot, policy, telling)
        return replace(told, plan=Plan())
    allowed = policy.resolved and verdict.reason != Reason.FLAVOR_NOT_ALLOWED
    scale = () if allowed else _nothing_new(snapshot, policy)
    ready = any(r.ready for r in revisions)
    phase = (
        "Active"
        if ready
        else "Pending"
        if verdict.state in (State.WAITING, State.ON_THE_WAY)
        else "Failed"
    )
    return _Outcome(verdict, phase, telling, Plan(scale=scale))


def _outdated(
    snapshot: Snapshot, policy: EffectivePolicy, serving: str | None, verdict: Verdict
) -> Verdict | None:
    """What to say when a start would use a template from before policies were tightened, and what
    failed (``verdict``) keeps it from being made anew. What is ready stays: its pods are inside."""
    live = next((w for w in snapshot.workloads if w["metadata"]["name"] == serving), None)
    if (
        live is None
        or not policy.resolved
        or verdict.reason == Reason.FLAVOR_NOT_ALLOWED
        or (live.get("status") or {}).get("readyReplicas")
        or not bounds.outdated(live, policy, catalogue=snapshot.settings.catalogue)
    ):
        return None
    message = f"policies were tightened, and nothing starts until this is mended: {verdict.message}"
    return Verdict(verdict.state, Reason.PLACEMENT_OUTDATED, message)


def _placed(
    snapshot: Snapshot, policy: EffectivePolicy, built: Workload, *, now: datetime
) -> _Outcome:
    snapshot = replace(snapshot, pods=tuple(_up_to_date(snapshot.pods, built)))
    deployment, there = snapshot.deployment, revisions_of(snapshot)
    rollout = decide_rollout(rolling.situation(snapshot, policy, built, revisions=there, now=now))
    replicas = {each.name: each.replicas for each in there}
    wanted = rolling.scales(rollout, deployment, replicas)
    scale = [
        Scale(name, count, "a rollout, or minNumReplicas")
        for name, count in wanted.items()
        if name in replicas
    ]
    gone = [
        _deletion(child, "another revision serves")
        for child in snapshot.children
        if (child["metadata"].get("labels") or {}).get(labels.REVISION) in rollout.delete
    ]
    after = rollout.requeue_after
    # One that was given up is not made again.
    made = rollout.rollout is None or rollout.rollout.phase not in GIVEN_UP
    revision = (built.service, with_version(built.deployment, built.version)) if made else ()
    first = wanted.get(built.revision, 0)
    plan = Plan(
        apply=(endpoint_service(deployment, snapshot.settings), *revision),
        first_replicas={built.revision: first},
        scale=tuple(scale),
        delete=tuple(gone),
        requeue_after=after.total_seconds() if after is not None else None,
    )
    versions = {each.name: each.version for each in there} | {built.revision: built.version}
    telling = rolling.telling(
        rollout, deployment, desired=built.revision, versions=versions, now=now
    )
    told = _told(snapshot, policy, telling, built=built, rollout=rollout)
    expected = Revision(built.revision, built.version, first, 0, app_protocol=built.app_protocol)
    return replace(told, plan=plan, expected=expected if made else None)


def _live(snapshot: Snapshot, revision: str) -> Json | None:
    return next((w for w in snapshot.workloads if w["metadata"]["name"] == revision), None)


def _kept_from_more(snapshot: Snapshot, serving: str | None) -> tuple[Reason, str] | None:
    """Why a revision that serves has fewer replicas than it should."""
    live = _live(snapshot, serving) if serving is not None else None
    refused = why_refused(live)
    if live is None or refused is None or not (live.get("status") or {}).get("readyReplicas"):
        return None
    return Reason.REPLICAS_REFUSED, refused


def _told(
    snapshot: Snapshot,
    policy: EffectivePolicy,
    telling: Telling,
    *,
    built: Workload | None = None,
    rollout: RolloutPlan | None = None,
) -> _Outcome:
    """What the pods of the revisions that get the requests, and of the current one, say."""
    by_name = {r.name: r for r in revisions_of(snapshot)}
    servers = [by_name[name] for name in telling.weights if name in by_name]
    serving = telling.serving or (built.revision if built is not None else "")
    active = any(each.ready > 0 for each in servers)
    wanted = sum(each.replicas for each in servers)
    if not servers and rollout is not None:
        wanted = rollout.scale.get(serving, 0)
    if rollout is not None and rollout.rollout is not None and (active or not wanted):
        if not active and (outdated := _cannot_start(snapshot, policy, telling)) is not None:
            return _Outcome(outdated, "Failed", telling)
        verdict, progress = _rolling_out(rollout, snapshot)
        return _Outcome(verdict, "Active" if active else "Idle", telling, progress=progress)
    if active:
        verdict = Verdict(State.GOOD, Reason.SERVING, "the endpoint answers")
        return _Outcome(verdict, "Active", telling)
    flavors = built.flavors if built is not None else snapshot.deployment.spec.flavors
    unplaced = _no_placement(snapshot, policy, flavors)
    if unplaced is not None:
        return _Outcome(Verdict(State.WAITING, Reason.NO_PLACEMENT, unplaced), "Failed", telling)
    if wanted == 0:
        message = "no replica runs; the first request starts one"
        return _Outcome(Verdict(State.GOOD, Reason.IDLE, message), "Idle", telling)
    failure = rolling.failure_of(snapshot, serving)
    if failure is not None:
        return _Outcome(Verdict(State.STALLED, Reason.START_FAILED, failure), "Failed", telling)
    progress = report.progress(snapshot, serving)
    verdict = Verdict(State.ON_THE_WAY, Reason.STARTING, progress.message)
    return _Outcome(verdict, "Pending", telling, progress=progress)


_ENDED: Mapping[str, Reason] = {
    "Aborted": Reason.ROLLOUT_ABORTED,
    "RolledBack": Reason.ANALYSIS_FAILED,
    "Failed": Reason.TRIAL_START_FAILED,
}


def _rolling_out(plan: RolloutPlan, snapshot: Snapshot) -> tuple[Verdict, Progress | None]:
    """The verdict while a rollout is under way, or was given up; and how far its start is."""
    run = plan.rollout
    assert run is not None
    if run.phase in _ENDED:
        return Verdict(State.HELD_UP, _ENDED[run.phase], plan.message), None
    bad = run.analysis is not None and run.analysis.verdict == "Bad"
    if plan.stalled:
        reason = Reason.ANALYSIS_FAILED if bad else Reason.ROLLING_OUT
        return Verdict(State.HELD_UP, reason, plan.message), None
    if run.phase == "Paused":
        return Verdict(State.CHANGING, Reason.ROLLOUT_PAUSED, plan.message), None
    progress = snapshot.progress.get(run.canary)
    starting = run.phase in ("Proving", "Progressing")
    so_far = f": {progress.message}" if progress is not None and starting else ""
    verdict = Verdict(State.CHANGING, Reason.ROLLING_OUT, plan.message + so_far)
    return verdict, progress if starting else None


def _cannot_start(snapshot: Snapshot, policy: EffectivePolicy, telling: Telling) -> Verdict | None:
    """What to say when policies were tightened and what serves was made before, and the new
    revision, which would be made for them, was given up."""
    live = next((w for w in snapshot.workloads if w["metadata"]["name"] == telling.serving), None)
    run = telling.rollout
    if (
        live is None
        or run is None
        or run.phase not in GIVEN_UP
        or not bounds.outdated(live, policy, catalogue=snapshot.settings.catalogue)
    ):
        return None
    message = (
        f"policies were tightened, revision {run.stable} is not for them, and {run.canary} was "
        f"given up: change the spec"
    )
    return Verdict(State.STALLED, Reason.PLACEMENT_OUTDATED, message)


def _build(snapshot: Snapshot, policy: EffectivePolicy) -> Workload | Refusal:
    """The objects of the revision that the spec asks for. All checks have passed."""
    assert snapshot.model is not None
    return workload(
        snapshot.deployment,
        snapshot.model,
        policy=policy,
        files=model_files(snapshot),
        settings=snapshot.settings,
        live={each["metadata"]["name"]: each for each in snapshot.workloads},
        cache=snapshot.cache,
    )


def model_files(snapshot: Snapshot) -> ModelFiles:
    """The origin as workloads want it: what was found, and how a pod gets at it."""
    assert snapshot.found is not None
    assert snapshot.model is not None
    assert isinstance(snapshot.question, Question)
    return files_of(snapshot.question, snapshot.found, model=snapshot.model.spec)


def with_version(deployment: Json, version: str) -> Json:
    """The Deployment with the origin's whole revision as an annotation, for the status."""
    metadata = deployment["metadata"]
    annotations = {**(metadata.get("annotations") or {}), VERSION: version}
    return {**deployment, "metadata": {**metadata, "annotations": annotations}}


def _no_placement(
    snapshot: Snapshot, policy: EffectivePolicy, flavors: Sequence[Flavor]
) -> str | None:
    """Why no known node fits, if so."""
    catalogue = snapshot.settings.catalogue
    return why_no_node(policy, snapshot.node_kinds, requested=flavors, catalogue=catalogue)


def _up_to_date(pods: Iterable[Json], built: Workload) -> Iterator[Json]:
    """The pods without those that wait for a node by an affinity which is wanted no more: that no
    node takes them says nothing about the ones that follow."""
    affinity = built.deployment["spec"]["template"]["spec"].get("affinity") or None
    for pod in pods:
        spec = pod.get("spec") or {}
        mine = (pod["metadata"].get("labels") or {}).get(labels.REVISION) == built.revision
        if not (mine and _unplaced(pod)) or (spec.get("affinity") or None) == affinity:
            yield pod


def _unplaced(pod: Json) -> bool:
    """Whether the scheduler has said that no node takes it."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "PodScheduled" and c.get("status") == "False" for c in conditions)


def _all_to_zero(snapshot: Snapshot) -> tuple[Scale, ...]:
    return tuple(
        Scale(each["metadata"]["name"], 0, "spec.enabled is false")
        for each in snapshot.workloads
        if replicas_of(each) > 0
    )


def _nothing_new(snapshot: Snapshot, policy: EffectivePolicy) -> tuple[Scale, ...]:
    """While policies do not clearly allow it, no Deployment gets replicas that do not run yet."""
    gone = {
        each.uid
        for each in bounds.outside(
            snapshot.pods,
            policy,
            node_labels=snapshot.node_labels,
            catalogue=snapshot.settings.catalogue,
        )
    }
    scales = []
    for each in snapshot.workloads:
        name = each["metadata"]["name"]
        stay = [p for p in pods_of(snapshot, name) if _runs(p) and p["metadata"]["uid"] not in gone]
        if replicas_of(each) > len(stay):
            because = "policies do not clearly allow it, so nothing new starts"
            scales.append(Scale(name, len(stay), because))
    return tuple(scales)


def _runs(pod: Json) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Running" and not pod["metadata"].get("deletionTimestamp")


def _deletion(child: Json, because: str) -> Deletion:
    metadata = child["metadata"]
    resource = resource_of(child["apiVersion"], child["kind"])
    return Deletion(resource, metadata["name"], metadata.get("uid", ""), because)
