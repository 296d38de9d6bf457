"""The diff that commands show, and the patch that makes one object of another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.cli.differences import ABSENT, differences, merge_patch, shown

SCALARS = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b", ""]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@given(OBJECTS, OBJECTS)
def test_the_patch_makes_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    kept = copy.deepcopy(before)
    assert merged(before, merge_patch(before, after)) == after
    assert before == kept


@given(OBJECTS, OBJECTS)
def test_there_is_a_difference_unless_only_emptiness_differs(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert not list(differences(before, before))
    if not merge_patch(before, after):
        assert not list(differences(before, after))
    assert len(list(differences(before, after))) == len(list(differences(after, before)))


def envs(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": 1}, {"a": 2}, [("a", 1, 2)]),
        ({}, {"a": {"b": 1, "c": 2}}, [("a.b", ABSENT, 1), ("a.c", ABSENT, 2)]),
        ({"a": {"b": 1}}, {}, [("a.b", 1, ABSENT)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
        ({"a": {}}, {}, []),
        ({"a": []}, {"a": None}, []),
        (
            {"envs": envs(A="1", B="2")},
            {"envs": envs(B="3", C="4")},
            [
                ("envs[A].name", "A", ABSENT),
                ("envs[A].value", "1", ABSENT),
                ("envs[B].value", "2", "3"),
                ("envs[C].name", ABSENT, "C"),
                ("envs[C].value", ABSENT, "4"),
            ],
        ),
        ({"a": [{"name": "x"}, {"name": "x"}]}, {"a": []}, [("a", [{"name": "x"}] * 2, [])]),
    ],
)
def test_differences_are_told_by_field(before: Any, after: Any, told: list[Any]) -> None:
    found = [(each.field, each.before, each.after) for each in differences(before, after)]
    assert found == told


@pytest.mark.parametrize(
    ("value", "text"), [(ABSENT, "-"), ("x", "x"), (3, "3"), (None, "null"), (["ä"], '["ä"]')]
)
def test_values_are_shown_in_one_line(value: Any, text: str) -> None:
    assert shown(value) == text
