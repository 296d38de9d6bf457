"""The table of runtimes that a cluster adds to."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api.runtime import Runtime
from beamlit_operator.workloads.presets import (
    BUILT_IN,
    BadRowError,
    Row,
    built_in,
    extended,
    parsed,
    presets,
)
from beamlit_operator.workloads.runtimes import RuntimeProblem, server

MINE = """
image: registry.example/mine:1
args: [--port, "{port}"]
ready: /ok
"""


def maps(**data: str) -> dict[str, dict[str, str]]:
    return {"mine": {name.replace("_", "-"): text for name, text in data.items()}}


def test_without_config_maps_it_is_the_built_in_table() -> None:
    table = extended({})
    assert table.presets == presets() == built_in().presets
    assert set(table.sources.values()) == {(BUILT_IN,)}


def test_a_new_type_has_what_its_row_says_and_defaults_for_the_rest() -> None:
    table = extended(maps(my_server=MINE))
    assert not table.problems
    assert table.sources["my-server"] == ("mine",)
    found = server(
        Runtime(type="my-server"),
        model="m",
        environment="production",
        paths=(),
        gpus=0,
        known=table.presets,
    )
    assert (found.image, found.args, found.command) == (
        "registry.example/mine:1",
        ("--port", "8080"),
        (),
    )
    assert found.readiness == {"httpGet": {"path": "/ok", "port": 8080}}
    assert (found.start_seconds, found.grace_seconds, found.metric_port) == (600, 60, None)


def test_a_server_that_says_nothing_of_readiness_is_ready_when_it_takes_connections() -> None:
    table = extended(maps(mine="image: a:1"))
    known = table.presets
    found = server(Runtime(type="mine"), model="m", environment="e", paths=(), gpus=0, known=known)
    assert found.readiness == {"tcpSocket": {"port": 8080}}


def test_a_row_of_a_known_type_changes_the_fields_it_has() -> None:
    table = extended(maps(vllm="image: registry.example/vllm:2\nenv: {MORE: '1'}\n"))
    before, after = presets()["vllm"], table.presets["vllm"]
    assert after.image == "registry.example/vllm:2"
    assert after.env == {**before.env, "MORE": "1"}
    assert (after.args, after.args_from_model, after.ready) == (
        before.args,
        before.args_from_model,
        before.ready,
    )
    assert table.sources["vllm"] == (BUILT_IN, "mine")
    assert {name: row for name, row in table.presets.items() if name != "vllm"} == {
        name: row for name, row in presets().items() if name != "vllm"
    }


def test_every_built_in_row_can_be_written_as_a_config_map_has_it() -> None:
    for name, preset in presets().items():
        fields = {
            (Row.model_fields[at].alias or at): getattr(preset, at) for at in Row.model_fields
        }
        row = Row.model_validate(fields).model_dump(mode="json", by_alias=True, exclude_none=True)
        table = extended(maps(other=yaml.safe_dump(row)))
        assert not table.problems, (name, table.problems)
        fields_of = {at: getattr(table.presets["other"], at) for at in Row.model_fields}
        assert fields_of == {at: getattr(preset, at) for at in Row.model_fields}


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("mine", "image: [", "its text is not YAML in line "),
        ("mine", "- image", "its text must be an object"),
        ("mine", "", "its text must be an object"),
        ("mine", "args: [x]", "image is missing, and mine is no built-in type"),
        ("vllm", "images: x", "images is not a field: use image, imageGpu, command"),
        ("vllm", "args: [--port, 8080]", "args.1: Input should be a valid string"),
        ("vllm", "port: 70000", "port: Input should be less than or equal to 65535"),
        ("vllm", "ready: health", "ready: String should match pattern"),
        ("vllm", "startSeconds: 100000", "startSeconds: Input should be less than or equal"),
        ("vllm", "protocol: grpc", "protocol: Input should be 'openai', 'openinference' or"),
        ("vllm", "args: ['{prot}']", "args has {prot}: use {port}, {metricPort}, {model}"),
        ("vllm", "env: {A: '{context}'}", "env has {context}: use {port}"),
        ("vllm", "resources: {limit: {}}", "resources.limit is not a field"),
        ("mine", "image: x # " + "x" * 65536, "its text has 65547 characters: 65536 are allowed"),
        ("mine", "image: &a [*a]", "image: Input should be a valid string"),
        ("Mine", MINE, "'Mine' cannot name a type"),
        ("my.server", MINE, "'my.server' cannot name a type"),
    ],
)
def test_a_bad_row_is_told_with_its_place_and_the_others_work(
    key: str, text: str, sentence: str
) -> None:
    table = extended({"mine": {key: text, "good": MINE}})
    (problem,) = table.problems
    assert str(problem).startswith(f"ConfigMap mine, key {key}: ")
    assert sentence in str(problem)
    assert str(problem).endswith("it is left out")
    assert table.presets["good"].image == "registry.example/mine:1"
    assert table.presets["vllm"] == presets()["vllm"]


def test_braces_that_are_no_names_stay() -> None:
    row = parsed("vllm", json.dumps({"args": ['--json={"level": 3}', "{}", "{models}"]}))
    assert row.args == ('--json={"level": 3}', "{}", "{models}")


def test_a_row_that_was_spoilt_goes_on_as_it_was_and_not_after_a_restart() -> None:
    good = extended(maps(mine=MINE, vllm="port: 9000"))
    spoilt = extended(maps(mine="image: [", vllm="port: many"), last=good.good)
    assert [each.kept for each in spoilt.problems] == [True, True]
    assert "what it said before goes on" in str(spoilt.problems[0])
    assert spoilt.presets == good.presets
    # Twice spoilt is as once, and mended is mended.
    again = extended(maps(mine="", vllm="port: many"), last=spoilt.good)
    assert again.presets == good.presets
    mended = extended(maps(mine=MINE, vllm="port: 9001"), last=again.good)
    assert not mended.problems
    assert mended.presets["vllm"].port == 9001
    restarted = extended(maps(mine="image: [", vllm="port: many"))
    assert restarted.presets == presets()
    assert [each.kept for each in restarted.problems] == [False, False]


def test_a_row_that_is_gone_leaves_the_built_in_one() -> None:
    good = extended(maps(mine=MINE, vllm="port: 9000"))
    assert extended({}, last=good.good).presets == presets()


def test_several_config_maps_count_in_the_order_of_their_names() -> None:
    found = {"b": {"vllm": "port: 2"}, "a": {"vllm": "port: 1\nmetricPort: 3", "mine": MINE}}
    table = extended(found)
    assert (table.presets["vllm"].port, table.presets["vllm"].metric_port) == (2, 3)
    assert table.sources["vllm"] == (BUILT_IN, "a", "b")
    assert extended(dict(reversed(found.items()))).presets == table.presets


def test_a_key_may_end_as_a_file_does() -> None:
    assert "mine" in extended({"a": {"mine.yaml": MINE}}).presets


def test_an_unknown_type_names_the_added_ones_too() -> None:
    known = extended(maps(my_server=MINE)).presets
    with pytest.raises(RuntimeProblem, match="my-server, sglang"):
        server(Runtime(type="x"), model="m", environment="e", paths=(), gpus=0, known=known)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = [info.alias or name for name, info in Row.model_fields.items()]


@settings(max_examples=200, deadline=None)
@given(row=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5), key=st.text(max_size=8))
def test_no_row_whatever_it_holds_makes_the_table_fail(row: dict[str, Any], key: str) -> None:
    table = extended({"a": {key: json.dumps(row), "vllm": yaml.safe_dump(row)}})
    assert set(presets()) <= set(table.presets)
    for place in (("a", "vllm"),):
        spoilt = any((each.config_map, each.key) == place for each in table.problems)
        assert spoilt != (place in table.good)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_no_text_makes_a_row_fail_but_by_saying_so(text: str) -> None:
    with contextlib.suppress(BadRowError):
        parsed("vllm", text)
