"""Server-side apply as a function: properties that hold for any sequence of appliers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.devcluster.apiserver import managers
from beamlit_operator.devcluster.apiserver.fieldsets import (
    difference,
    intersection,
    owned,
    paths,
    union,
)
from beamlit_operator.devcluster.apiserver.schemas import custom_root
from beamlit_operator.kube import ApiError

ROOT = custom_root(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "args": {"type": "array", "items": {"type": "string"}},
                    "tags": {
                        "type": "array",
                        "x-kubernetes-list-type": "set",
                        "items": {"type": "string"},
                    },
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {"type": "string"},
                                "count": {"type": "integer"},
                                "note": {"type": "string"},
                            },
                        },
                    },
                },
            }
        },
    }
)

_letters = st.sampled_from("abc")
_part = st.fixed_dictionaries(
    {"name": _letters},
    optional={"count": st.integers(0, 2), "note": _letters},
)
_spec = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(0, 2),
        "labels": st.dictionaries(_letters, _letters, max_size=3),
        "args": st.lists(_letters, max_size=2),
        "tags": st.lists(_letters, max_size=3, unique=True),
        "parts": st.lists(_part, max_size=3, unique_by=lambda part: part["name"]),
    },
)
_configs = _spec.map(lambda spec: {"metadata": {"name": "x"}, "spec": spec})
_steps = st.lists(st.tuples(st.sampled_from(["alice", "bob"]), _configs), min_size=1, max_size=5)


def _apply(live: dict[str, Any], who: str, config: dict[str, Any], time: str = "t") -> Any:
    before = copy.deepcopy(live)
    merged, found = managers.applied(
        live,
        config,
        ROOT,
        writer=managers.Writer(who, "", "example.com/v1", time),
        force=True,
        has_status=True,
    )
    assert live == before, "apply must not modify what is stored"
    metadata = {**merged["metadata"], "managedFields": managers.written(found)}
    return {**merged, "metadata": metadata}


def _run(steps: list[tuple[str, Any]]) -> Any:
    live: dict[str, Any] = {"metadata": {}}
    for who, config in steps:
        live = _apply(live, who, config)
    return live


@given(_steps)
def test_applying_the_same_twice_changes_nothing(steps: list[tuple[str, Any]]) -> None:
    once = _run(steps)
    assert _apply(once, *steps[-1], time="later") == once


@given(_steps)
def test_what_is_applied_is_there(steps: list[tuple[str, Any]]) -> None:
    live = _run(steps)
    spec = steps[-1][1]["spec"]
    assert live.get("spec", {}).get("size") == spec.get("size", live.get("spec", {}).get("size"))
    assert set(spec.get("tags", ())) <= set(live.get("spec", {}).get("tags", ()))
    parts = {part["name"]: part for part in live.get("spec", {}).get("parts", ())}
    for part in spec.get("parts", ()):
        assert part.items() <= parts[part["name"]].items()


@given(_steps)
def test_only_what_somebody_owns_remains(steps: list[tuple[str, Any]]) -> None:
    live = _run(steps)
    everybody: dict[str, Any] = {}
    for own in managers.read(live).values():
        everybody = union(everybody, own.fields)
    content = owned({"spec": live["spec"]} if "spec" in live else {}, ROOT)
    leaves = set(paths(content)) - set(paths(everybody))
    # An emptied container may stay behind; a value may not.
    assert not {path for path in leaves if path not in (".spec", ".spec.labels")}


@given(_configs, _configs)
def test_a_second_applier_never_removes_what_the_first_set(first: Any, second: Any) -> None:
    live = _run([("alice", first), ("bob", second)])
    for key in first["spec"]:
        if first["spec"][key] not in ([], {}):
            assert key in live["spec"]


@settings(max_examples=200)
@given(_configs, _configs)
def test_sets_of_fields_behave_like_sets(first: Any, second: Any) -> None:
    a, b = owned(first, ROOT), owned(second, ROOT)
    as_sets = set(paths(a)), set(paths(b))
    assert set(paths(union(a, b))) == as_sets[0] | as_sets[1]
    assert set(paths(intersection(a, b))) == as_sets[0] & as_sets[1]
    assert set(paths(difference(a, b))) == as_sets[0] - as_sets[1]


def test_a_conflict_names_every_field_and_its_owner() -> None:
    live = _run([("alice", {"spec": {"size": 1, "parts": [{"name": "a", "count": 1}]}})])
    with pytest.raises(ApiError) as caught:
        managers.applied(
            live,
            {"spec": {"size": 2, "parts": [{"name": "a", "count": 2}]}},
            ROOT,
            writer=managers.Writer("bob", "", "example.com/v1", "t"),
            force=False,
            has_status=True,
        )
    fields = {cause["field"] for cause in caught.value.details["causes"]}
    assert fields == {".spec.size", '.spec.parts[name="a"].count'}
    assert caught.value.message.startswith("Apply failed with 2 conflicts: ")


def test_the_oldest_updaters_are_merged_when_there_are_too_many() -> None:
    live: dict[str, Any] = {"metadata": {}, "spec": {"labels": {}}}
    for number in range(15):
        new = copy.deepcopy(live)
        new["spec"]["labels"][f"k{number}"] = "v"
        writer = managers.Writer(f"m{number:02}", "", "v1", f"2026-01-01T00:00:{number:02}Z")
        found = managers.updated(live, new, ROOT, writer=writer)
        new["metadata"]["managedFields"] = managers.written(found)
        live = new
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == managers.MOST_UPDATERS
    assert "ancient-changes" in names
