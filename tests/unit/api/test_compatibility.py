"""Which changes of a definition are additive, and the sentences about those that are not."""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.previous import CHART
from tests.support.stack import ROOT

from beamlit_operator.api.compatibility import Schema, breaks, main, read
from beamlit_operator.api.schema import matching

SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "name": {"type": "string", "maxLength": 63, "pattern": "^[a-z]+$", "nullable": True},
        "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
        "list": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "items": {"type": "object", "properties": {"key": {"type": "string"}}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "map": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 10}},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    },
    "x-kubernetes-validations": [{"rule": "self.size > 0", "message": "no"}],
}


def definition() -> dict:
    """A definition to change."""
    schema = {"type": "object", "properties": {"spec": SPEC}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things", "shortNames": ["th"]},
        "versions": [version],
    }
    return copy.deepcopy({"metadata": {"name": "things.example.com"}, "spec": spec})


def spec_of(changed: dict) -> dict:
    version = changed["spec"]["versions"][0]
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def field(name: str, **changes: object) -> Callable[[dict], None]:
    """Changes a field's schema; None removes a keyword."""

    def change(changed: dict) -> None:
        found = spec_of(changed)["properties"][name]
        for keyword, value in changes.items():
            keyword = keyword.replace("_", "-") if keyword.startswith("x_") else keyword
            if value is None:
                del found[keyword]
            else:
                found[keyword] = value

    return change


def more(name: str, schema: dict, *, required: bool = False) -> Callable[[dict], None]:
    def change(changed: dict) -> None:
        spec_of(changed)["properties"][name] = schema
        if required:
            spec_of(changed)["required"].append(name)

    return change


def version(**changes: object) -> Callable[[dict], None]:
    return lambda changed: changed["spec"]["versions"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: spec_of(c)["properties"].pop("name"), "spec.name: the field was removed"),
        (lambda c: spec_of(c)["required"].append("name"), "spec.name: the field is required now"),
        (more("new", {"type": "string"}, required=True), "spec.new: the field is required now"),
        (field("size", type="string"), 'spec.size: the type was "integer" and is "string"'),
        (field("size", minimum=2), "spec.size: the smallest value was 1 and is 2"),
        (field("size", maximum=8), "spec.size: the largest value was 9 and is 8"),
        (field("size", multipleOf=2), "spec.size: a step was added: 2"),
        (field("name", maxLength=62), "spec.name: the longest length was 63 and is 62"),
        (field("name", minLength=1), "spec.name: the shortest length was none and is 1"),
        (field("name", pattern="^x$"), 'spec.name: the pattern was "^[a-z]+$" and is "^x$"'),
        (field("name", format="date"), 'spec.name: a format was added: "date"'),
        (field("name", nullable=None), "spec.name: may no longer be null"),
        (field("name", enum=["x"]), "spec.name: only certain values are allowed now"),
        (field("mode", enum=["A"]), 'spec.mode: the value "B" was removed'),
        (field("mode", default="B"), 'spec.mode: the default was "A" and is "B"'),
        (field("mode", default=None), 'spec.mode: the default was "A" and is none'),
        (field("size", default=3), "spec.size: a default was added: 3"),
        (field("list", x_kubernetes_list_type="atomic"), "spec.list: the list type was"),
        (field("list", maxItems=3), "spec.list: the most items was none and is 3"),
        (
            lambda c: spec_of(c)["properties"]["list"]["items"]["properties"].pop("key"),
            "spec.list[].key: the field was removed",
        ),
        (field("free", x_kubernetes_preserve_unknown_fields=None), "spec.free: no longer keeps"),
        (field("map", additionalProperties=None), "spec.map{}: what was in it is no longer kept"),
        (
            field("map", additionalProperties={"type": "string", "maxLength": 9}),
            "spec.map{}: the longest length was 10 and is 9",
        ),
        (field("either", anyOf=[{"type": "integer"}]), "spec.either: the anyOf was"),
        (
            lambda c: spec_of(c)["x-kubernetes-validations"].append({"rule": "self.size < 5"}),
            "spec: a rule was added or changed: self.size < 5",
        ),
        (
            field(
                "name",
                pattern=None,
                x_kubernetes_validations=[{"rule": matching("^[a-y]+$"), "message": "no"}],
            ),
            "spec.name: a rule was added or changed: self.matches(r'^[a-y]+$')",
        ),
        (lambda c: c["spec"].update(scope="Cluster"), "Thing: the scope was Namespaced"),
        (lambda c: c["spec"]["names"].update(plural="thingies"), "Thing: the plural was things"),
        (
            lambda c: c["spec"]["names"].update(shortNames=[]),
            "Thing: the short name th was removed",
        ),
        (version(name="v2"), "Thing v1: the version is not served any more"),
        (version(served=False), "Thing v1: the version is not served any more"),
        (version(storage=False), "Thing v1: objects are stored in another version"),
        (version(subresources={}), "Thing v1: the subresource status was removed"),
    ],
)
def test_what_is_not_additive_is_told_with_the_field(
    change: Callable[[dict], object], sentence: str
) -> None:
    changed = definition()
    change(changed)
    (found,) = breaks({"x": definition()}, {"x": changed})
    assert sentence in found
    assert found.startswith("Thing")


@pytest.mark.parametrize(
    "change",
    [
        more("new", {"type": "string"}),
        more("new", {"type": "string", "default": "x"}, required=True),
        more("new", {"type": "object", "required": ["a"], "properties": {"a": {}}}),
        field("size", minimum=0, maximum=10),
        field("size", minimum=None, maximum=None),
        field("name", maxLength=64, pattern=None, description="longer"),
        field(
            "name",
            pattern=None,
            x_kubernetes_validations=[{"rule": matching("^[a-z]+$"), "message": "letters only"}],
        ),
        field("mode", enum=["A", "B", "C"]),
        field("list", nullable=True),
        lambda c: spec_of(c)["required"].clear(),
        lambda c: spec_of(c)["x-kubernetes-validations"].clear(),
        lambda c: c["spec"]["names"]["shortNames"].append("thg"),
        version(additionalPrinterColumns=[{"name": "Size"}]),
        lambda c: c["spec"]["versions"].append({"name": "v2", "served": True, "storage": False}),
    ],
)
def test_what_is_additive_is_let_through(change: Callable[[dict], object]) -> None:
    changed = definition()
    change(changed)
    assert breaks({"x": definition()}, {"x": changed}) == []


def test_a_kind_that_is_gone_is_told() -> None:
    assert breaks({"things.example.com": definition()}, {}) == [
        "things.example.com: the definition was removed"
    ]


def test_the_definitions_follow_those_of_every_version_that_is_kept() -> None:
    current = read(ROOT / "crds")
    before: dict[str, Schema] = read(CHART)
    assert set(before) <= set(current)
    assert breaks(before, current) == []


def test_the_command_fails_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = definition()
    del spec_of(changed)["properties"]["name"]
    folders = {}
    for name, content in (("old", definition()), ("new", changed)):
        folders[name] = tmp_path / name / "crds"
        folders[name].mkdir(parents=True)
        (folders[name] / "things.yaml").write_text(yaml.safe_dump(content))
    packed = tmp_path / "chart.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folders["old"], "chart/files/crds")
    assert main([str(folders["old"]), "--after", str(packed)]) == 0
    assert main([str(folders["new"]), "--after", str(packed)]) == 1
    assert "Thing v1: spec.name: the field was removed" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no definitions"):
        main([str(tmp_path), "--after", str(packed)])
