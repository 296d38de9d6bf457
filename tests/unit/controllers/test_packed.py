"""How objects are kept: whole, apart from what nobody reads, and comparable without opening them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fakekube import FakeKube

from beamlit_operator.controllers.children import Children
from beamlit_operator.controllers.packed import packed
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


def test_of_managed_fields_only_the_owners_of_the_replicas_are_kept():
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
        ],
    }
    children.wrote({"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2}})
    found = children.get(ObjectKey("team", "a"))
    assert found is not None
    assert found["spec"] == {"replicas": 2}
    assert found["metadata"]["managedFields"] == [entry("scaler", {"f:replicas": {}})]
    assert ObjectKey("team", "a") in children
