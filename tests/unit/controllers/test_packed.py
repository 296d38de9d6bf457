"""How objects are kept: whole but for what nobody reads, and compared without being opened."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fakekube import FakeKube

from beamlit_operator.api import labels
from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.drift import only_ours
from beamlit_operator.controllers.packed import names_of, packed, packed_names
from beamlit_operator.kube import DEPLOYMENTS, ObjectKey

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_opened_is_what_was_packed_and_nobodys_but_the_callers(value):
    item = {"metadata": {"uid": "1", "resourceVersion": "7"}, "spec": value}
    kept = packed(item)
    opened = kept.open()
    assert opened == item
    opened["metadata"]["uid"] = "another"
    assert kept.open() == item
    assert json.dumps(kept.open()) == json.dumps(item)


@pytest.mark.parametrize(
    ("uid", "version", "older"),
    [
        ("1", "8", True),
        ("1", "10", True),
        ("1", "7", False),
        ("1", "6", False),
        ("2", "6", True),
        ("1", "abc", True),
    ],
)
def test_a_later_version_or_another_object_replaces_what_is_kept(uid, version, older):
    kept = packed({"metadata": {"uid": "1", "resourceVersion": "7"}})
    assert kept.older({"metadata": {"uid": uid, "resourceVersion": version}}) is older


def test_of_managed_fields_who_applied_it_and_who_owns_the_replicas_is_kept():
    def entry(manager: str, spec: dict) -> dict:
        return {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": spec}}

    children = Children(FakeKube(), DEPLOYMENTS, on_change=lambda _: None)
    metadata = {
        "name": "a",
        "namespace": "team",
        "uid": "1",
        "resourceVersion": "1",
        "managedFields": [
            entry("scaler", {"f:replicas": {}, "f:paused": {}}),
            entry("somebody", {"f:template": {"f:spec": {}}}),
            entry(labels.FIELD_MANAGER, {"f:template": {"f:spec": {}}}),
        ],
    }
    children.wrote({"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2}})
    found = children.get(ObjectKey("team", "a"))
    assert found is not None
    assert found["spec"] == {"replicas": 2}
    ours = {**entry(labels.FIELD_MANAGER, {}), "fieldsV1": {}}
    assert found["metadata"]["managedFields"] == [entry("scaler", {"f:replicas": {}}), ours]
    assert ObjectKey("team", "a") in children


def told(before: dict, *changes: dict) -> int:
    """How many of the changes of an object are told to whom it concerns."""
    seen: list[dict] = []
    children = Children(FakeKube(), DEPLOYMENTS, on_change=seen.append)
    (reflector,) = children.reflectors
    for number, item in enumerate((before, *changes), start=1):
        metadata = {"name": "a", "namespace": "team", "uid": "1", "resourceVersion": str(number)}
        whole = {**item, "metadata": {**metadata, **item.get("metadata", {})}}
        reflector._put(ObjectKey("team", "a"), whole)
    return len(seen) - 1


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "2"}}}, 0),
        ({"metadata": {"managedFields": [{"manager": "kube-controller-manager"}]}}, 0),
        ({"metadata": {"annotations": {"team": "b"}}}, 1),
        ({"metadata": {"labels": {"team": "b"}}}, 1),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, 1),
        ({"status": {"readyReplicas": 1}}, 1),
        ({"spec": {"replicas": 1}}, 1),
    ],
)
def test_what_the_deployment_controller_notes_for_itself_is_no_news(change, news):
    assert told({}, change) == news


@pytest.mark.parametrize(
    ("before", "answer", "quiet"),
    [
        (None, {}, True),
        ({}, {"spec": {"template": {}}}, True),
        ({}, {"metadata": {"annotations": {"a": "b"}}}, True),
        ({}, {"status": {"readyReplicas": 1}}, False),
        ({}, {"spec": {"replicas": 3}}, False),
        ({}, {"metadata": {"labels": {"team": "b"}}}, False),
        ({}, {"metadata": {"ownerReferences": []}}, False),
        ({}, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
        ({}, {"metadata": {"uid": "2"}}, False),
    ],
)
def test_an_answer_that_shows_only_our_own_change_is_no_news(before, answer, quiet):
    full = None if before is None else {"metadata": {}, **before}
    assert only_ours(full, {"metadata": {}, **answer}) is quiet


@given(st.lists(st.text(st.characters())).map(tuple))
def test_names_of_files_are_the_same_packed_if_and_only_if_they_are_the_same(names):
    kept = packed_names(names)
    assert names_of(kept) == names
    assert packed_names(tuple(str(json.loads(json.dumps(name))) for name in names)) == kept
    assert packed_names((*names, "another")) != kept


def test_a_hundred_thousand_names_are_kept_in_half_a_megabyte():
    names = tuple(f"data/part-{number:06d}/shard.parquet" for number in range(100_000))
    assert len(packed_names(names)) < 2**19
