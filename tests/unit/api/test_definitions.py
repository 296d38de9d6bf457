"""How a cluster's definition of a kind differs from this version's, in words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.api.definitions import NAMES, compare, fields, known, without

NAME = "modeldeployments.beamlit.com"


def definition() -> dict[str, Any]:
    return copy.deepcopy(crd(next(kind for kind in KINDS if kind.plural == "modeldeployments")))


def parts(of: dict[str, Any]) -> dict[str, Any]:
    return of["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def test_every_kind_equals_itself() -> None:
    for kind in KINDS:
        name = f"{kind.plural}.beamlit.com"
        assert compare(name, crd(kind), known()[name]).equal
    assert set(NAMES) == set(known())


def test_an_older_definition_names_the_outermost_fields_that_it_lacks() -> None:
    older = definition()
    del parts(older)["status"]["properties"]["effectivePolicy"]
    del parts(older)["spec"]["properties"]["podTemplate"]
    found = compare(NAME, older, known()[NAME])
    assert found.lacking == ("spec.podTemplate", "status.effectivePolicy")
    (sentence,) = found.sentences()
    assert "is older than the operator" in sentence
    assert "upgrade the definitions" in sentence


def test_a_newer_definition_names_what_is_not_acted_on() -> None:
    newer = definition()
    added = {"type": "object", "properties": {"cells": {"type": "integer"}}}
    parts(newer)["spec"]["properties"]["brain"] = added
    found = compare(NAME, newer, known()[NAME])
    assert (found.lacking, found.unknown) == ((), ("spec.brain",))
    assert "upgrade the operator" in next(found.sentences())


@pytest.mark.parametrize("how", ["gone", "not served", "another version"])
def test_a_definition_that_is_not_served_is_told(how: str) -> None:
    live: dict[str, Any] | None = definition()
    assert live is not None
    if how == "not served":
        live["spec"]["versions"][0]["served"] = False
    elif how == "another version":
        live["spec"]["versions"][0]["name"] = "v1"
    else:
        live = None
    found = compare(NAME, live, known()[NAME])
    assert not found.served
    assert "does not serve beamlit.com/v1alpha1" in next(found.sentences())


def test_fields_inside_lists_count() -> None:
    there = fields(definition())
    assert there is not None
    assert "spec.flavors[].name" in there


@pytest.mark.parametrize("broken", [{}, {"spec": None}, {"spec": {"versions": [{}]}}])
def test_a_definition_without_sense_is_not_served(broken: dict[str, Any]) -> None:
    assert not compare(NAME, broken, known()[NAME]).served


def test_a_status_is_written_without_what_the_definition_lacks() -> None:
    status = {
        "phase": "Idle",
        "rollout": {"phase": "Paused", "step": 1},
        "revisions": [{"name": "a", "role": "stable"}, {"name": "b"}],
    }
    lacking = ("spec.x", "status.rollout.step", "status.revisions[].role", "status.history")
    assert without(status, lacking) == {
        "phase": "Idle",
        "rollout": {"phase": "Paused"},
        "revisions": [{"name": "a"}, {"name": "b"}],
    }
    assert status["rollout"] == {"phase": "Paused", "step": 1}
    assert without(status, ("status.rollout",)).keys() == {"phase", "revisions"}
