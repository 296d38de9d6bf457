"""What an undo goes back to: the table in `cli/undoing`."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from beamlit_operator.api import Model
from beamlit_operator.cli.undoing import UndoRefusedError, undo
from beamlit_operator.kube import Json

T = "2026-05-04T12:00:00Z"
OLD = {"runtime": {"image": "server:1"}, "flavors": [{"type": "cpu", "name": "x86"}]}
NEW = {"runtime": {"image": "server:2", "args": ["-v"]}}


def entry(name: str, outcome: str, spec: Json | None, **more: Any) -> Json:
    told = {"revision": f"iris-{name}", "version": "v1", "startedAt": T, "outcome": outcome, **more}
    return told if spec is None else {**told, "spec": spec}


def live(*history: Json, spec: Json = NEW, serving: str = "b", **status: Any) -> Json:
    return {
        "metadata": {"name": "iris", "namespace": "team"},
        "spec": {"model": "iris", "serverlessConfig": {"maxNumReplicas": 3}, **spec},
        "status": {
            "revisions": [
                {"name": f"iris-{name}", "version": "v1", "traffic": 100 if name == serving else 0}
                for name in "abc"
            ],
            "history": list(history),
            **status,
        },
    }


def rollout(phase: str, *, stable: str, canary: str) -> Json:
    names = {"stable": f"iris-{stable}", "canary": f"iris-{canary}"}
    return {"rollout": {"phase": phase, **names, "startedAt": T, "since": T}}


THIRD = {"runtime": {"image": "server:3"}}
SERVED = (
    entry("b", "Serving", NEW),
    entry("c", "RolledBack", THIRD),
    entry("a", "Superseded", OLD),
    entry("z", "Superseded", {}),
)


@pytest.mark.parametrize(
    ("item", "to", "found"),
    [
        (live(*SERVED), None, "iris-a"),
        (live(*SERVED), "iris-z", "iris-z"),
        (live(*SERVED), "z", "iris-z"),
        (live(*SERVED), "c", "iris-c"),
        *(
            (live(*SERVED, spec=THIRD, **rollout(phase, stable="b", canary="c")), None, "iris-b")
            for phase in ("Progressing", "Paused", "Aborted", "RolledBack", "Failed")
        ),
    ],
)
def test_it_goes_back_to_the_last_good_one_or_the_one_that_is_named(
    item: Json, to: str | None, found: str
) -> None:
    assert undo(item, None, to=to).to.revision == found


def test_what_defined_the_revision_is_put_back_and_nothing_else() -> None:
    item = live(*SERVED, spec={**NEW, "policies": [{"name": "eu"}]})
    before = copy.deepcopy(item)
    result = undo(item, None, to=None)
    assert item == before
    assert result.after["spec"] == {
        "model": "iris",
        "serverlessConfig": {"maxNumReplicas": 3},
        **OLD,
    }
    assert [each.field for each in result.changes] == [
        "spec.flavors",
        "spec.policies",
        "spec.runtime.args",
        "spec.runtime.image",
    ]


@pytest.mark.parametrize(
    ("item", "to", "says"),
    [
        (live(), None, "has served no other revision before"),
        (live(entry("b", "Serving", NEW)), None, "has served no other revision before"),
        (live(entry("b", "Serving", NEW), entry("c", "Aborted", OLD)), None, "no other revision"),
        (live(*SERVED), "x", "has no revision x; there: iris-b, iris-c, iris-a, iris-z"),
        (live(entry("a", "Superseded", None)), None, "too large for the history"),
        (live(entry("a", "Superseded", NEW)), None, "nothing to undo in it.*Model iris"),
        (live(**rollout("Paused", stable="b", canary="c")), None, "has no entry for iris-b"),
    ],
)
def test_where_nothing_can_be_undone_the_reason_is_said(
    item: Json, to: str | None, says: str
) -> None:
    with pytest.raises(UndoRefusedError, match=says):
        undo(item, None, to=to)


def model(revision: str, *, s3: bool = True, claim: bool = False) -> Model:
    origin: Json = (
        {"s3": {"uri": "s3://models/iris"}} if s3 else {"huggingFace": {"repo": "org/iris"}}
    )
    if claim:
        origin = {"pvc": {"claimName": "weights"}}
    found = {"uri": "s3://models/iris", "revision": revision, "files": 1, "bytes": 1}
    return Model.model_validate(
        {"metadata": {"name": "iris"}, "spec": {"origin": origin}, "status": {"origin": found}}
    )


def test_a_version_that_only_followed_the_origin_is_pinned_when_that_has_moved() -> None:
    moved = live(entry("a", "Superseded", NEW, version="v0"))
    assert undo(moved, model("v1", s3=False), to=None).after["spec"]["version"] == "v0"
    same = live(entry("a", "Superseded", OLD, version="v1"))
    assert "version" not in undo(same, model("v1", s3=False), to=None).after["spec"]


def test_files_that_are_gone_from_an_s3_prefix_or_a_claim_cannot_come_back() -> None:
    moved = live(entry("a", "Superseded", NEW, version="v0"))
    for claim in (False, True):
        with pytest.raises(UndoRefusedError, match="does not hold version v0 any more, but v1"):
            undo(moved, model("v1", claim=claim), to=None)
    assert undo(moved, model("v0"), to=None).after["spec"]["version"] == "v0"


def test_the_release_that_a_revision_came_with_is_told_again() -> None:
    item = live(
        entry("a", "Superseded", OLD, releasedFrom={"environment": "staging", "by": "ada"}),
        entry("c", "Superseded", OLD),
    )
    item["metadata"]["annotations"] = {
        "beamlit.com/released-from": "development",
        "beamlit.com/released-at": T,
        "team.example/owner": "ml",
    }
    kept = {"team.example/owner": "ml"}
    assert undo(item, None, to="a").after["metadata"]["annotations"] == {
        **kept,
        "beamlit.com/released-from": "staging",
        "beamlit.com/released-by": "ada",
    }
    assert undo(item, None, to="c").after["metadata"]["annotations"] == kept
