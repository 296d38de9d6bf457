"""Model: what does its origin hold, and which deployments does it have?

| origin                           | Ready                            | status.origin       |
|----------------------------------|----------------------------------|---------------------|
| none                             | True, NoOrigin                   | -                   |
| cannot be right                  | False, InvalidReference, stalled | -                   |
| not looked at yet                | False, Resolving, reconciling    | as before, same uri |
| the same, after a restart        | as before                        | as before           |
| found                            | True, OriginResolved             | what was found      |
| found, pickles are not allowed   | False, PickleNotAllowed, stalled | what was found      |
| failed, a person must act        | False, the origin's, stalled     | as before, same uri |
| failed, may pass by itself       | False, the origin's              | as before, same uri |
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from beamlit_operator.api import Model, ModelDeployment, Reason
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.model import ModelStatus
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.originbook import Entry, Failed, Found, Question
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.prefetching import NOTHING, Prefetching
from beamlit_operator.controllers.verdict import State, Verdict, changed, conditions_of
from beamlit_operator.kube import Json
from beamlit_operator.origins import OriginError, format_uri
from beamlit_operator.origins.pickles import needed_pickles, refusal
from beamlit_operator.workloads.gpumemory import gpu_memory_bytes

MAX_ROWS = 256
"""Rows the status may have."""


def decide(
    model: Held[Model],
    *,
    question: Question | OriginError | None,
    entry: Entry | None,
    deployments: Sequence[Held[ModelDeployment]],
    now: datetime,
    prefetching: Prefetching = NOTHING,
) -> Plan:
    """The status of a Model.

    Args:
        model: the Model.
        question: what its origin means; an error when it cannot be right; None without an origin.
        entry: what the book says to the question.
        deployments: its deployments, by name.
        now: the time of the decision.
        prefetching: what is to be done about its files in the cache.
    """
    if model.deleting:
        return Plan()
    old = model.parsed.status if model.parsed is not None else ModelStatus()
    settled = old.conditions and old.observed_generation == model.metadata.generation
    if settled and entry is not None and entry.answer is None:
        # A fresh operator looks at every origin; what it finds is most likely what is written.
        return Plan()
    verdict = _verdict(model, question, entry)
    generation = model.metadata.generation
    status: Json = {
        "observedGeneration": generation,
        "conditions": conditions_of(verdict, old=old.conditions, generation=generation, now=now),
        "phase": "Deployed" if any(_enabled(d) for d in deployments) else "Created",
        **_findings(old, question, entry),
    }
    if prefetching.status is not None:
        status["prefetch"] = prefetching.status
    rows = [_row(each) for each in deployments[:MAX_ROWS] if not each.deleting]
    if rows:
        status["deployments"] = rows
    events: tuple[Announcement, ...] = ()
    if changed(verdict, old.conditions) and verdict.reason != Reason.RESOLVING:
        type_: Literal["Normal", "Warning"] = "Normal" if verdict.good else "Warning"
        events = (Announcement(type_, verdict.reason, verdict.message),)
    return Plan(
        status=status,
        create=(prefetching.create,) if prefetching.create is not None else (),
        delete=prefetching.delete,
        events=(*events, *prefetching.events),
        requeue_after=prefetching.requeue_after,
    )


def _verdict(
    model: Held[Model], question: Question | OriginError | None, entry: Entry | None
) -> Verdict:
    if model.parsed is None:
        return Verdict(State.STALLED, Reason.INVALID_SPEC, model.problem)
    if isinstance(question, OriginError):
        return Verdict(State.STALLED, str(question.reason), f"spec.origin: {question.message}")
    if question is None:
        return Verdict(
            State.GOOD,
            Reason.NO_ORIGIN,
            "no origin, so its deployments have no files to serve: set spec.origin",
        )
    answer = entry.answer if entry is not None else None
    if answer is None:
        return Verdict(State.ON_THE_WAY, Reason.RESOLVING, f"looking at {question.ref.place}")
    if isinstance(answer, Failed):
        state = State.STALLED if answer.stalled else State.WAITING
        return Verdict(state, answer.reason, answer.message)
    spec = model.parsed.spec
    needed = [] if spec.allow_pickle else needed_pickles(answer.paths, unpack=spec.unpack)
    if needed:
        return Verdict(State.STALLED, Reason.PICKLE_NOT_ALLOWED, refusal(needed))
    unserved = (
        f"; {answer.unserved}; or set spec.runtime.image, or spec.runtime.type to what serves it"
        if answer.unserved and model.parsed.spec.runtime is None
        else ""
    )
    return Verdict(
        State.GOOD,
        Reason.ORIGIN_RESOLVED,
        f"{question.ref.place} is at revision {answer.revision[:19]}{unserved}",
    )


def _findings(
    old: ModelStatus, question: Question | OriginError | None, entry: Entry | None
) -> Json:
    """`origin`, `facts` and `suggestedRuntime`: what was found, now or before at the same place."""
    if not isinstance(question, Question):
        return {}
    answer = entry.answer if entry is not None else None
    if isinstance(answer, Found):
        found: Json = {
            "origin": {
                "uri": answer.uri,
                "revision": answer.revision,
                "files": len(answer.paths),
                "bytes": answer.bytes,
            }
        }
        if answer.suggestion is not None:
            type_, because = answer.suggestion
            found["suggestedRuntime"] = {"type": type_, "because": because[:512]}
        if answer.facts is not None and answer.facts != ModelFacts():
            found["facts"] = answer.facts.to_wire()
            if (size := gpu_memory_bytes(answer.facts)) is not None:
                found["gpuMemoryBytes"] = size
        return found
    if old.origin is None or old.origin.uri != format_uri(question.ref):
        return {}
    kept: Json = {"origin": old.origin.to_wire()}
    if old.suggested_runtime is not None:
        kept["suggestedRuntime"] = old.suggested_runtime.to_wire()
    if old.facts is not None:
        kept["facts"] = old.facts.to_wire()
    if old.gpu_memory_bytes is not None:
        kept["gpuMemoryBytes"] = old.gpu_memory_bytes
    return kept


def _enabled(deployment: Held[ModelDeployment]) -> bool:
    parsed = deployment.parsed
    return parsed is not None and parsed.spec.enabled and not deployment.deleting


def _row(deployment: Held[ModelDeployment]) -> Json:
    parsed = deployment.parsed
    if parsed is None:
        return {"name": deployment.metadata.name, "environment": ""}
    status = parsed.status
    row: Json = {"name": deployment.metadata.name, "environment": parsed.spec.environment}
    if status.serving is not None:
        row["version"] = status.serving.version
    if status.phase is not None:
        row["phase"] = status.phase
    if status.url is not None:
        row["url"] = status.url
    return row
