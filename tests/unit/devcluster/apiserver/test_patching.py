"""Strategic merge against built-in schemas."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from beamlit_operator.devcluster.apiserver.patches import merge_patch
from beamlit_operator.devcluster.apiserver.schemas import builtin
from beamlit_operator.devcluster.apiserver.strategic import strategic_merge
from beamlit_operator.kube import ApiError

POD = builtin("io.k8s.api.core.v1.Pod")


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        (
            {"containers": [{"name": "a", "image": "1"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "b", "image": "3"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "b", "image": "3"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [{"name": "b"}, {"name": "a"}]},
        ),
        (
            {"tolerations": [{"key": "a"}]},
            {"tolerations": [{"key": "b"}]},
            {"tolerations": [{"key": "b"}]},
        ),
        ({"nodeName": "x", "hostname": "h"}, {"nodeName": None}, {"hostname": "h"}),
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {}}]},
            {"volumes": [{"name": "v", "hostPath": {}}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"$patch": "replace"}, {"name": "c"}]},
            {"containers": [{"name": "c"}]},
        ),
        ({"nodeSelector": {"a": "b"}}, {"nodeSelector": {"$patch": "replace", "c": "d"}}, None),
        # As a real API server has it: nothing is taken of a directive for what is not there.
        ({"hostname": "h"}, {"nodeSelector": {"$patch": "replace", "c": "d"}}, {"hostname": "h"}),
        # What is deleted goes first, wherever it stands.
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "configMap": {}}, {"name": "v", "$patch": "delete"}]},
            {"volumes": [{"name": "v", "configMap": {}}]},
        ),
    ],
)
def test_strategic_merge_follows_the_schema(before: Any, patch: Any, after: Any) -> None:
    if after is None:
        after = {"nodeSelector": {"c": "d"}}
    original = _pod(**before)
    known = copy.deepcopy(original)
    assert strategic_merge(original, {"spec": patch}, POD) == _pod(**after)
    assert original == known, "the original must not be modified"


def test_finalizers_are_deleted_from_their_primitive_list() -> None:
    original = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}
    assert strategic_merge(original, patch, POD)["metadata"]["finalizers"] == ["c", "b"]


def test_a_directive_to_merge_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge(_pod(), {"spec": {"$patch": "merge", "hostname": "x"}}, POD)
    assert "unknown patch type: merge in map" in caught.value.message


def test_an_item_without_its_key_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge(_pod(), {"spec": {"containers": [{"image": "x"}]}}, POD)
    assert "merge key: name" in caught.value.message


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": ["b"]}, {"a": {"c": 1}}, {"a": {"c": 1}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_examples_of_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result
