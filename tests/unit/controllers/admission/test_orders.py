"""Orders about a rollout are refused where they make no sense, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.pictures import Workspace, body
from tests.support.situations import NOW

from beamlit_operator.controllers.admission.decision import Decision
from beamlit_operator.controllers.admission.review import review
from beamlit_operator.controllers.admission.wire import Request
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.kube import Json

PROMOTE, PAUSE, ABORT = (f"beamlit.com/rollout-{each}" for each in ("promote", "pause", "abort"))
SPEC = {"model": "iris"}
STAMP = NOW.isoformat()


def status(phase: str | None, step: int | None = 2) -> Json:
    rows = [{"name": name, "version": "1", "traffic": 50} for name in ("iris-1", "iris-2")]
    run = {
        "phase": phase,
        "stable": "iris-1",
        "canary": "iris-2",
        "steps": 3,
        "startedAt": STAMP,
        "since": STAMP,
        "message": "until later",
        **({"step": step} if step else {}),
    }
    return {"revisions": rows, **({"rollout": run} if phase else {})}


def deployment(annotations: dict[str, str], state: Json, **spec: Any) -> Json:
    item = body(Kind.MODEL_DEPLOYMENT, "iris", {**SPEC, **spec}, annotations=annotations)
    return {**item, "status": state}


def decision(old: Json | None, new: Json, workspace: Workspace | None = None) -> Decision:
    there = workspace or Workspace().environment().model()
    operation = "UPDATE" if old is not None else "CREATE"
    return review(
        Request("1", Kind.MODEL_DEPLOYMENT, operation, "team", "iris", new=new, old=old),
        there.picture,
    )


def given(order: dict[str, str], phase: str | None, step: int | None = 2) -> Decision:
    state = status(phase, step)
    return decision(deployment({}, state), deployment(order, state))


@pytest.mark.parametrize(
    ("order", "phase", "step"),
    [
        ({PROMOTE: "iris-2/2"}, "Paused", 2),
        ({PROMOTE: "iris-2"}, "Waiting", 2),
        ({PROMOTE: "iris-2"}, "Progressing", None),
        ({PAUSE: "iris-2"}, "Progressing", 1),
        ({ABORT: "iris-2"}, "Analyzing", 2),
    ],
)
def test_an_order_for_what_is_under_way_is_taken(order, phase, step):
    assert given(order, phase, step) == Decision()


@pytest.mark.parametrize(
    ("order", "phase", "words"),
    [
        ({PROMOTE: "iris-2/2"}, "Waiting", "step 2 does not wait for approval (Waiting: until"),
        ({PROMOTE: "iris-2/1"}, "Paused", "at step 2 of 3, not at step 1"),
        ({PROMOTE: "iris-2/3"}, "Paused", "at step 2 of 3, not at step 3"),
        ({PROMOTE: "iris-9"}, "Paused", "no revision iris-9; there are: iris-1, iris-2"),
        ({PROMOTE: "iris-1"}, "Paused", "no rollout of iris-1 is under way, that of iris-2 is"),
        ({PROMOTE: "iris-2/two"}, "Paused", "must be REVISION or REVISION/STEP"),
        ({PROMOTE: ""}, "Paused", "must be REVISION or REVISION/STEP"),
        ({PAUSE: "iris-2/2"}, "Paused", f"annotation {PAUSE} is 'iris-2/2': it must be REVISION"),
        ({ABORT: "iris-2"}, None, "no rollout of iris-2 is under way, none is"),
        ({ABORT: "iris-2"}, "Aborted", "no rollout of iris-2 is under way, none is"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_reason(order, phase, words):
    refused = given(order, phase)
    assert not refused.allowed
    assert words in refused.message


def test_an_order_that_is_left_over_hinders_no_other_write():
    state = status(None)
    old = deployment({ABORT: "iris-2"}, state)
    assert decision(old, deployment({ABORT: "iris-2", "note": "x"}, state)).allowed
    assert decision(old, deployment({}, state)).allowed


def test_a_write_that_changes_the_spec_too_may_order_what_it_begins():
    state = status(None)
    new = deployment({PROMOTE: "iris-2"}, state, version="2")
    assert decision(deployment({}, state), new).allowed
    malformed = deployment({PROMOTE: "iris 2"}, state, version="2")
    assert not decision(deployment({}, state), malformed).allowed


def test_a_restored_object_keeps_its_orders():
    assert decision(None, deployment({ABORT: "iris-2"}, {})).allowed


def test_an_analysis_by_prometheus_is_refused_where_the_operator_knows_none():
    query = {"prometheus": {"query": "up", "maximum": 1}}
    rollout = {"strategy": "Canary", "steps": [{"weight": 10, "analysis": query}]}
    there = Workspace().environment().model()
    there.picture = there.picture.__class__(
        indexes=there.indexes, settings=there.picture.settings, prometheus=False
    )
    refused = decision(None, deployment({}, {}, rollout=rollout), there)
    assert not refused.allowed
    assert "spec.rollout.steps[0].analysis.prometheus" in refused.message
    assert "--prometheus-url" in refused.message
    old = deployment({}, {}, rollout=rollout)
    edited = deployment({}, {}, rollout=rollout, version="2")
    assert decision(old, edited, there).allowed
