"""Pruning, defaulting and the messages of schema errors and rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.apiserver.bodies import decoded
from beamlit_operator.devcluster.apiserver.cel import RuleError, compiled, rule_causes
from beamlit_operator.devcluster.apiserver.schemas import builtin, custom_root
from beamlit_operator.devcluster.apiserver.structural import prune, set_defaults
from beamlit_operator.devcluster.apiserver.validating import (
    QUANTITY,
    builtin_checker,
    causes_of,
    custom_checker,
)
from beamlit_operator.kube import ApiError

SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "default": {},
            "properties": {
                "mode": {"type": "string", "default": "on"},
                "limits": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "properties": {"max": {"type": "integer", "default": 3}},
                    },
                },
                "items": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"n": {"type": "integer", "default": 1}},
                    },
                },
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "maybe": {"type": "string", "nullable": True, "default": "x"},
            },
        }
    },
}
ROOT = custom_root(SCHEMA)

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "mode", "limits", "items", "any", "n"]), inner)
    ),
    max_leaves=12,
)
_objects = st.dictionaries(st.sampled_from(["spec", "other"]), _json)


@given(_objects)
def test_pruning_and_defaulting_twice_is_the_same_as_once(item: dict[str, Any]) -> None:
    item["metadata"] = {}
    prune(item, ROOT, nulls=False)
    set_defaults(item, ROOT)
    once = copy.deepcopy(item)
    assert prune(item, ROOT, nulls=False) == []
    set_defaults(item, ROOT)
    assert item == once


def test_defaults_reach_into_defaults_maps_and_lists() -> None:
    item: dict[str, Any] = {"spec": {"limits": {"a": {}}, "items": [{}, {"n": 2}]}}
    set_defaults(item, ROOT)
    assert item["spec"] == {
        "mode": "on",
        "maybe": "x",
        "limits": {"a": {"max": 3}},
        "items": [{"n": 1}, {"n": 2}],
    }
    empty: dict[str, Any] = {}
    set_defaults(empty, ROOT)
    assert empty == {"spec": {"mode": "on", "maybe": "x"}}


def test_null_takes_the_default_unless_it_is_allowed() -> None:
    item: dict[str, Any] = {"spec": {"mode": None, "maybe": None}}
    set_defaults(item, ROOT)
    assert item["spec"] == {"mode": "on", "maybe": None}


def test_pruned_fields_are_reported_with_their_paths() -> None:
    item: dict[str, Any] = {"metadata": {}, "spec": {"x": 1, "items": [{"y": 1}], "any": {"z": 1}}}
    assert prune(item, ROOT, nulls=False) == ["spec.x", "spec.items[0].y"]
    assert item["spec"] == {"items": [{}], "any": {"z": 1}}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, 1, 'x in body must be of type string: "integer"'),
        ({"type": "integer", "minimum": 2}, 1, "x in body should be greater than or equal to 2"),
        ({"type": "integer", "maximum": 2, "exclusiveMaximum": True}, 2, "should be less than 2"),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'supported values: "a", "b"'),
        ({"type": "string", "pattern": "^a+$"}, "b", "x in body should match '^a+$'"),
        ({"type": "string", "minLength": 2}, "a", "should be at least 2 chars long"),
        ({"type": "string", "maxLength": 1}, "ab", "Too long: may not be more than 1 bytes"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"], "Too many: 2"),
        ({"type": "string", "format": "date-time"}, "x", "must be of type date-time"),
        ({"type": "string", "format": "duration"}, "5", "must be of type duration"),
        ({"x-kubernetes-int-or-string": True}, [], "integer,string"),
        ({"type": "object", "required": ["y"]}, {}, "Required value"),
        (
            {"type": "integer", "format": "int32"},
            2**40,
            "should be less than or equal to 2147483647",
        ),
    ],
)
def test_errors_speak_like_kubernetes(schema: Any, value: Any, expected: str) -> None:
    checker = custom_checker({"type": "object", "properties": {"x": schema}})
    assert checker is not None
    (cause,) = causes_of(checker, {"x": value})
    assert expected in cause.message
    assert cause.field.startswith("x")


@pytest.mark.parametrize("text", ["1", "0.5", "1.", ".5", "100m", "2Gi", "1e3", "12E", "-1k"])
def test_quantities_are_recognised(text: str) -> None:
    assert QUANTITY.match(text)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1GiB", "0x10", "1,5"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    assert not QUANTITY.match(text)


def test_every_served_built_in_type_compiles_and_accepts_nothing_but_itself() -> None:
    from beamlit_operator.devcluster.apiserver.builtin_types import builtin_types

    for served in builtin_types():
        root = builtin(served.definition)
        assert "metadata" in root.properties, served.plural
        checker = builtin_checker(served.definition)
        assert not checker.is_valid({"metadata": 3}), served.plural


@pytest.mark.parametrize(
    ("rule", "value", "good"),
    [
        ("self.a.lowerAscii() == 'x'", {"a": "X"}, True),
        ("self.a.split(',').size() == 2", {"a": "1,2"}, True),
        ("self.a.matches('^[0-9]+$')", {"a": "12"}, True),
        ("self.a.startsWith('s3://')", {"a": "s3://b"}, True),
        ("has(self.b) || size(self.a) > 3", {"a": "ab"}, False),
        ("self.l.all(x, x in ['a'])", {"l": ["a", "b"]}, False),
        ("self.l.exists_one(x, x == 'a')", {"l": ["a", "b"]}, True),
        ("self.l.filter(x, x != 'a').size() == 1", {"l": ["a", "b"]}, True),
        ("self.l.map(x, x + 'z').join('-') == 'az-bz'", {"l": ["a", "b"]}, True),
        ("self.l.isSorted()", {"l": ["b", "a"]}, False),
        ("quantity(self.a).isGreaterThan(quantity('1Gi'))", {"a": "2Gi"}, True),
        ("isURL(self.a) && url(self.a).getScheme() == 'https'", {"a": "https://x/y"}, True),
        ("duration(self.a) > duration('1m')", {"a": "2m"}, True),
        ("self.a.find('[0-9]+') == '42'", {"a": "x42y"}, True),
        ("'%s-%d'.format([self.a, 3]) == 'x-3'", {"a": "x"}, True),
        ("self.a.substring(0, 1) == 'a'", {"a": "abc"}, True),
        ("self.missing == 1", {"a": "x"}, False),
    ],
)
def test_rules_have_kubernetes_functions(rule: str, value: Any, good: bool) -> None:
    root = custom_root(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
                }
            },
        }
    )
    assert (not rule_causes({"spec": value}, None, root)) is good


@pytest.mark.parametrize("rule", ["self.a ==", "self.frobnicate()", "nobody(self)"])
def test_a_rule_with_unknown_names_does_not_compile(rule: str) -> None:
    with pytest.raises(RuleError, match="compilation failed"):
        compiled(rule)


def test_rules_about_unchanged_values_do_not_block_an_update() -> None:
    rule = {"rule": "self.a > 5", "message": "too small"}
    spec = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "x-kubernetes-validations": [rule],
    }
    root = custom_root({"type": "object", "properties": {"spec": spec}})
    old = {"spec": {"a": 1}}
    assert rule_causes({"spec": {"a": 1}, "status": {}}, old, root) == []
    assert len(rule_causes({"spec": {"a": 2}}, old, root)) == 1


def test_items_of_a_list_map_are_compared_with_their_namesakes() -> None:
    parts = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "shrinks"}],
        },
    }
    root = custom_root({"type": "object", "properties": {"parts": parts}})
    old = {"parts": [{"name": "a", "n": 1}, {"name": "b", "n": 5}]}
    swapped = {"parts": [{"name": "b", "n": 5}, {"name": "a", "n": 0}]}
    (cause,) = rule_causes(swapped, old, root)
    assert cause.field == "parts[1]"


def test_names_that_cel_reserves_are_escaped() -> None:
    spec = {
        "type": "object",
        "properties": {"namespace": {"type": "string"}, "a-b": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.__namespace__ == 'x' && self.a__dash__b == 1"}],
    }
    root = custom_root({"type": "object", "properties": {"spec": spec}})
    assert rule_causes({"spec": {"namespace": "x", "a-b": 1}}, None, root) == []


def test_a_yaml_bomb_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]" for n in range(8)
    ]
    with pytest.raises(ApiError) as caught:
        decoded("\n".join(lines).encode(), "application/yaml")
    assert caught.value.status == 400
