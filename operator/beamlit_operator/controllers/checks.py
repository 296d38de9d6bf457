"""The questions that stand between a ModelDeployment and its pods, asked in this order.

Each looks at one thing and gives the verdict if the answer is bad; the first bad one counts. None
of them touches what runs: it keeps serving while its policies let it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from beamlit_operator.api import Reason
from beamlit_operator.controllers.originbook import Question
from beamlit_operator.controllers.snapshot import Rival, Snapshot
from beamlit_operator.controllers.verdict import State, Verdict
from beamlit_operator.origins import OriginError, S3Ref
from beamlit_operator.origins.pickles import needed_pickles, refusal
from beamlit_operator.policy import EffectivePolicy
from beamlit_operator.workloads.native import refused as workload_refused


@dataclass(frozen=True, slots=True)
class Case:
    """What the checks look at."""

    snapshot: Snapshot
    policy: EffectivePolicy


Check = Callable[[Case], Verdict | None]


def duplicate(snapshot: Snapshot) -> Verdict | None:
    """Is there an older deployment for the same endpoint? One being deleted does not count."""
    mine = snapshot.deployment.metadata
    serves = bool(snapshot.deployment.status.revisions)
    me = Rival(mine.name, mine.uid, mine.creation_timestamp, False, serves)
    older = sorted((r for r in snapshot.rivals if not r.deleting and _age(r) < _age(me)), key=_age)
    if not older:
        return None
    spec = snapshot.deployment.spec
    return Verdict(
        State.STALLED,
        Reason.DUPLICATE,
        f"ModelDeployment {older[0].name} already serves model {spec.model} in environment "
        f"{spec.environment}: delete one of the two",
    )


def _age(rival: Rival) -> tuple[float, bool, str]:
    """Creation times have whole seconds; of two of one second, the one that serves is the older."""
    created = rival.created.timestamp() if rival.created else float("inf")
    return (created, not rival.serves, rival.uid)


def model_missing(case: Case) -> Verdict | None:
    """Does the Model exist?"""
    if case.snapshot.model is not None:
        return None
    name = case.snapshot.deployment.spec.model
    return Verdict(
        State.WAITING,
        Reason.MODEL_NOT_FOUND,
        f"Model {name} does not exist in {case.snapshot.workspace}: create it, or correct "
        f"spec.model",
    )


def unresolved(case: Case) -> Verdict | None:
    """Do the Environment and all policies that hold exist? If not: fail closed."""
    problems = case.policy.unresolved
    if not problems:
        return None
    environment = any(problem.kind == "Environment" for problem in problems)
    reason = Reason.ENVIRONMENT_NOT_FOUND if environment else Reason.POLICY_NOT_FOUND
    return Verdict(State.WAITING, reason, "; ".join(problem.message for problem in problems))


def refused(case: Case) -> Verdict | None:
    """Does the spec ask for something that cannot or must not be made?"""
    refusal = workload_refused(
        case.snapshot.deployment, policy=case.policy, settings=case.snapshot.settings
    )
    return Verdict(State.STALLED, refusal.reason, refusal.message) if refusal else None


def no_origin(case: Case) -> Verdict | None:
    """Does the Model say where its files are?"""
    if case.snapshot.question is not None or case.snapshot.model is None:
        return None
    name = case.snapshot.model.metadata.name
    return Verdict(
        State.STALLED,
        Reason.ORIGIN_NOT_READY,
        f"Model {name} names no origin, so there are no files to serve: set its spec.origin",
    )


_OF_THE_WORKSPACE = (
    Reason.SECRET_NOT_FOUND,
    Reason.CONFIG_MAP_NOT_FOUND,
    Reason.SERVICE_ACCOUNT_NOT_USABLE,
    Reason.CLAIM_NOT_FOUND,
    Reason.CLAIM_NOT_USABLE,
)
"""What is missing beside the Model, and not at the store."""


def origin(case: Case) -> Verdict | None:
    """Could the origin be looked at?"""
    snapshot = case.snapshot
    name = snapshot.deployment.spec.model
    if isinstance(snapshot.question, OriginError):
        return Verdict(
            State.STALLED,
            Reason.ORIGIN_NOT_READY,
            f"the origin of Model {name} cannot be used: {snapshot.question.message}",
        )
    if snapshot.failed is not None:
        failed = snapshot.failed
        state = State.STALLED if failed.stalled else State.WAITING
        if failed.reason in _OF_THE_WORKSPACE:
            message = f"the origin of Model {name} cannot be used: {failed.message}"
            return Verdict(state, failed.reason, message)
        message = f"the origin of Model {name} cannot be used ({failed.reason}): {failed.message}"
        return Verdict(state, Reason.ORIGIN_NOT_READY, message)
    if snapshot.found is None:
        return Verdict(
            State.ON_THE_WAY, Reason.RESOLVING, f"the origin of Model {name} is being looked at"
        )
    return None


def pickles(case: Case) -> Verdict | None:
    """Does the Model need files that it does not allow, since they can run code?"""
    found, model = case.snapshot.found, case.snapshot.model
    if found is None or model is None or model.spec.allow_pickle:
        return None
    needed = needed_pickles(found.paths, unpack=model.spec.unpack)
    if not needed:
        return None
    name = model.metadata.name
    return Verdict(
        State.STALLED, Reason.PICKLE_NOT_ALLOWED, f"the origin of Model {name}: {refusal(needed)}"
    )


def pinned_version(case: Case) -> Verdict | None:
    """A store that keeps one revision at a time: is it the one that is asked for?"""
    snapshot = case.snapshot
    version, found = snapshot.deployment.spec.version, snapshot.found
    ref = snapshot.question.ref if isinstance(snapshot.question, Question) else None
    kept = ref is not None and ref.keeps_revisions
    # A time was asked for, and the bucket had something then.
    kept = kept or (isinstance(ref, S3Ref) and ref.as_of is not None)
    if version is None or found is None or kept or version == found.revision:
        return None
    mend = "put the files of that version at an origin of their own, or remove spec.version"
    if found.as_of is not None:
        mend = "name the time at which it held that version, such as 2026-01-31T12:00:00Z"
    return Verdict(
        State.STALLED,
        Reason.INVALID_SPEC,
        f"spec.version is {version}, but {found.uri} holds {found.revision}: {mend}",
    )


BEFORE_PLACING: tuple[Check, ...] = (
    model_missing,
    unresolved,
    refused,
    no_origin,
    origin,
    pickles,
    pinned_version,
)


def first_problem(case: Case) -> Verdict | None:
    """The first bad answer, if any."""
    return next((v for check in BEFORE_PLACING if (v := check(case)) is not None), None)
