"""The value `runtimes` becomes a ConfigMap whose rows the operator takes."""

from __future__ import annotations

import json

import pytest
from tests.support.chart import CHART, Json

from beamlit_operator.workloads.presets import FromModel, Row, extended

charttemplates = pytest.importorskip(
    "tests.support.charttemplates",
    reason="helm-python-sdk, Helm's templates as a package, is not there for this machine",
    exc_type=ImportError,
)

ROWS: Json = {
    "my-server": {
        "image": "registry.example/mine:1",
        "args": ["--port", "{port}", "two\nlines", 'say "it"', "on", "1"],
        "env": {"A": "1", "B": "{model}"},
        "resources": {"limits": {"memory": "8Gi", "cpu": 2}},
        "ready": "/ok",
    },
    "vllm": {"image": "registry.example/vllm:2", "argsFromModel": {"embedding": ["--x"]}},
}


def test_the_values_become_the_rows_they_say() -> None:
    with charttemplates.templates() as chart:
        assert not any(_is_table(each) for each in chart.objects({}))
        (found,) = (each for each in chart.objects({"runtimes": ROWS}) if _is_table(each))
    table = extended({"beamlit-runtimes": found["data"]})
    assert not table.problems
    assert table.presets["my-server"].args == tuple(ROWS["my-server"]["args"])
    assert table.presets["my-server"].env == ROWS["my-server"]["env"]
    assert table.presets["my-server"].resources == ROWS["my-server"]["resources"]
    assert table.presets["vllm"].image == "registry.example/vllm:2"
    assert table.presets["vllm"].args_from_model.embedding == ("--x",)


def test_the_schema_of_values_knows_the_fields_of_a_row_and_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    row = schema["properties"]["runtimes"]["additionalProperties"]
    assert set(row["properties"]) == {info.alias for info in Row.model_fields.values()}
    parts = row["properties"]["argsFromModel"]["properties"]
    assert set(parts) == {info.alias for info in FromModel.model_fields.values()}


def _is_table(item: Json) -> bool:
    return (item["metadata"].get("labels") or {}).get("beamlit.com/runtimes") == "true"
