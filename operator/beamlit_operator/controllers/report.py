"""The status of a ModelDeployment, made from a verdict and from what its workloads say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from beamlit_operator.api import Reason, conditions, labels
from beamlit_operator.api.modeldeployment import ModelDeploymentStatus, StartProgress
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.progress import GENERIC, ORDER, Fetched, Progress
from beamlit_operator.controllers.revisions import Revision, revisions_of
from beamlit_operator.controllers.rolling import Telling
from beamlit_operator.controllers.snapshot import Snapshot
from beamlit_operator.controllers.verdict import State, Verdict, changed, conditions_of
from beamlit_operator.kube import Json
from beamlit_operator.policy import EffectivePolicy, policy_status

MAX_ROWS = 32
"""Rows of ``status.revisions`` at most, as the schema has it."""

QUIET = frozenset({Reason.RESOLVING, Reason.STARTING})
"""Reasons that are passed through on the way; an Event for each would only be noise."""


def is_settled(snapshot: Snapshot) -> bool:
    """Whether the status was written for this generation of the spec."""
    metadata, status = snapshot.deployment.metadata, snapshot.deployment.status
    return bool(status.conditions) and status.observed_generation == metadata.generation


def url(snapshot: Snapshot) -> str:
    """The endpoint as consumers call it."""
    spec = snapshot.deployment.spec
    base = snapshot.gateway_url.rstrip("/")
    return f"{base}/{snapshot.workspace}/models/{spec.model}?environment={spec.environment}"


def status(
    snapshot: Snapshot,
    policy: EffectivePolicy,
    *,
    verdict: Verdict,
    phase: str,
    telling: Telling,
    now: datetime,
    expected: Revision | None = None,
    progress: Progress | None = None,
    scaling_blocked: tuple[Reason, str] | None = None,
) -> tuple[Json, tuple[Announcement, ...]]:
    """The status, and the Events about what it changes.

    Args:
        snapshot: what the decision looked at.
        policy: what the deployment is held to.
        verdict: the state and its reason.
        phase: the phase in one word.
        telling: what there is to say of the revisions, of a rollout and of those before.
        now: the time of the decision.
        expected: the revision that the plan makes, in case it does not exist yet.
        progress: how far the start that is under way is; None if none is.
        scaling_blocked: why a HorizontalPodAutoscaler cannot scale it, if so.
    """
    deployment = snapshot.deployment
    old = deployment.status
    generation = deployment.metadata.generation
    overridden = _overridden(policy)
    more = [(conditions.POLICY_OVERRIDDEN, *overridden)] if overridden is not None else []
    if scaling_blocked is not None:
        more.append((conditions.SCALING_BLOCKED, *scaling_blocked))
    refused = _refused(snapshot)
    there = revisions_of(snapshot)
    if expected is not None and all(each.name != expected.name for each in there):
        # Told in the same write instead of in another one right after.
        there.insert(0, expected)
    rows = [_row(each, telling) for each in there]
    body: Json = {
        "observedGeneration": generation,
        "conditions": conditions_of(
            verdict, old=old.conditions, generation=generation, now=now, more=more, lacking=refused
        ),
        "phase": phase,
        "url": url(snapshot),
        "replicas": sum(row["replicas"] for row in rows),
        "readyReplicas": sum(row["readyReplicas"] for row in rows),
        "selector": f"{labels.MODEL_DEPLOYMENT}={deployment.metadata.name}",
        "effectivePolicy": policy_status(policy).to_wire(),
    }
    if rows:
        body["revisions"] = _listed(rows)
    if telling.rollout is not None:
        body["rollout"] = telling.rollout.to_wire()
    if telling.history:
        body["history"] = [each.to_wire() for each in telling.history]
    if telling.used:
        body["usedOrders"] = list(telling.used)
    if progress is not None:
        body["progress"] = _progress(progress, old.progress, now)
    return body, (
        *_events(old, verdict, overridden),
        *_refused_now(old, refused),
        *_blocked_now(old, scaling_blocked),
        *_next_phase(progress, old.progress),
        *_rollout_events(telling, old),
    )


def progress(snapshot: Snapshot, revision: str) -> Progress:
    """How far the start of a revision is. Until there is something to tell: what was told, so that
    a fresh operator takes nothing back, or else that it began."""
    told = snapshot.progress.get(revision)
    old = snapshot.deployment.status.progress
    if told is not None or old is None:
        return told or Progress(ORDER[0], GENERIC)
    fetched = None
    if old.fetched_bytes is not None and old.total_bytes is not None:
        fetched = Fetched(old.fetched_bytes, old.total_bytes)
    return Progress(old.phase, old.message, fetched)


def _progress(progress: Progress, old: StartProgress | None, now: datetime) -> Json:
    fetched = progress.fetched
    return StartProgress(
        phase=progress.phase,
        message=progress.message[:1024],
        fetched_bytes=fetched.bytes if fetched is not None else None,
        total_bytes=fetched.total if fetched is not None else None,
        since=old.since
        if old is not None and old.phase == progress.phase
        else now.replace(microsecond=0),
    ).to_wire()


def _next_phase(progress: Progress | None, old: StartProgress | None) -> Iterable[Announcement]:
    """An Event for each phase of a start but the first, which every start begins with."""
    before = old.phase if old is not None else ORDER[0]
    if progress is not None and progress.phase != before:
        yield Announcement("Normal", Reason.STARTING, f"{progress.phase}: {progress.message}")


def bare(deployment: Held[Any], verdict: Verdict, *, now: datetime) -> Plan:
    """The plan for an object of which nothing but the metadata can be read."""
    generation = deployment.metadata.generation
    old = _old_conditions(deployment.raw)
    body: Json = {
        # Who serves what, and what was: nothing of it changed.
        **(deployment.raw.get("status") or {}),
        "observedGeneration": generation,
        "conditions": conditions_of(verdict, old=old, generation=generation, now=now),
        "phase": "Failed",
    }
    events: tuple[Announcement, ...] = ()
    if changed(verdict, old):
        events = (Announcement("Warning", verdict.reason, verdict.message),)
    return Plan(status=body, events=events)


def _old_conditions(raw: Json) -> tuple[conditions.Condition, ...]:
    try:
        return ModelDeploymentStatus.model_validate(raw.get("status") or {}).conditions
    except ValueError:
        return ()


def _listed(rows: list[Json]) -> list[Json]:
    """As many rows as there may be, in their order. The ones left out are of old revisions, never
    of one that gets requests: gateways know of those by these rows."""
    if len(rows) <= MAX_ROWS:
        return rows
    needed = [each for each in rows if each["traffic"] or each.get("role") in ("stable", "canary")]
    others = [each for each in rows if each not in needed]
    kept = [*needed, *others][:MAX_ROWS]
    return [each for each in rows if each in kept]


def _row(revision: Revision, telling: Telling) -> Json:
    role, retired = telling.roles.get(revision.name), telling.retired.get(revision.name)
    return {
        "name": revision.name,
        "version": revision.version,
        "replicas": revision.replicas,
        "readyReplicas": revision.ready,
        "traffic": telling.weights.get(revision.name, 0),
        **({"role": role} if role else {}),
        **({"retiredAt": _stamp(retired)} if retired else {}),
        # Gateways read it here: the Service is watched by nobody, and there may be no pod yet.
        **({"appProtocol": revision.app_protocol} if revision.app_protocol else {}),
    }


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _rollout_events(telling: Telling, old: ModelDeploymentStatus) -> Iterable[Announcement]:
    """An Event for each step of a rollout, for its end, and for orders that do not count."""
    run, before = telling.rollout, old.rollout
    here = (run.canary, run.step, run.phase) if run is not None else None
    there = (before.canary, before.step, before.phase) if before is not None else None
    if run is not None and here != there and run.phase in ("Waiting", "Analyzing", "Paused"):
        yield Announcement("Normal", Reason.ROLLOUT_STEP, f"{run.canary}: {run.message}")
    for ending in telling.endings:
        if ending.outcome == "Serving":
            message = f"revision {ending.revision} gets all requests"
            yield Announcement("Normal", Reason.ROLLOUT_COMPLETED, message)
    for order in telling.ignored:
        message = (
            f"the order {order} came before its step: it does not count; remove the annotation, "
            f"and set it again then"
        )
        yield Announcement("Warning", Reason.ORDER_IGNORED, message)


def _overridden(policy: EffectivePolicy) -> tuple[str, str] | None:
    """Reason and message of `PolicyOverridden`: a policy without effect, or an attempt ignored."""
    rows = [*policy.location.overridden(), *policy.flavor.overridden()]
    sentences = [f"{row.name}: {row.because}" for row in rows]
    sentences += [attempt.message for attempt in policy.ignored]
    if not sentences:
        return None
    reason = Reason.POLICY_COLLISION if rows else Reason.MANDATORY_POLICY_KEPT
    return str(reason), "; ".join(sentences)


def _blocked_now(
    old: ModelDeploymentStatus, blocked: tuple[Reason, str] | None
) -> Iterable[Announcement]:
    if blocked is not None:
        before = conditions.find(old.conditions, conditions.SCALING_BLOCKED)
        if before is None or before.reason != blocked[0]:
            yield Announcement("Warning", *blocked)


def _refused(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """`Programmed`, as it is while False: what a gateway does not take."""
    if snapshot.refused is None:
        # No gateway was heard yet: what is written holds until one is.
        before = conditions.find(snapshot.deployment.status.conditions, conditions.PROGRAMMED)
        return [(before.type, before.reason, before.message)] if before is not None else []
    if not snapshot.refused:
        return []
    return [(conditions.PROGRAMMED, str(Reason.GATEWAY_REFUSED), snapshot.refused)]


def _refused_now(
    old: ModelDeploymentStatus, refused: list[tuple[str, str, str]]
) -> Iterable[Announcement]:
    before = conditions.find(old.conditions, conditions.PROGRAMMED)
    for _, reason, message in refused:
        if before is None or before.message != message:
            yield Announcement("Warning", reason, message)


def _events(
    old: ModelDeploymentStatus, verdict: Verdict, overridden: tuple[str, str] | None
) -> Iterable[Announcement]:
    if overridden is not None:
        before = conditions.find(old.conditions, conditions.POLICY_OVERRIDDEN)
        if before is None or before.reason != overridden[0]:
            yield Announcement("Warning", overridden[0], overridden[1])
    bad = verdict.state in (State.WAITING, State.STALLED, State.HELD_UP)
    stalled_now = verdict.state is State.HELD_UP and (
        conditions.find(old.conditions, conditions.STALLED) is None
    )
    if (changed(verdict, old.conditions) or stalled_now) and verdict.reason not in QUIET:
        yield Announcement("Warning" if bad else "Normal", verdict.reason, verdict.message)
