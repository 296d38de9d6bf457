"""The page about runtimes says what the presets are."""

from __future__ import annotations

from pathlib import Path

import yaml

from beamlit_operator.workloads.merge import directive_problem
from beamlit_operator.workloads.presets import extended, presets
from beamlit_operator.workloads.template import template_problem

PAGE = (Path(__file__).parents[3] / "docs" / "runtimes.md").read_text("utf-8")


def _rows() -> list[str]:
    return [
        f"| `{row.type}` | `{row.image}` | {f'`{row.image_gpu}`' if row.image_gpu else 'the same'} "
        f"| {row.port} | {row.metric_port or row.port} | {row.protocol} | `{row.ready}` |"
        for row in presets().values()
    ]


def test_the_table_of_presets_is_theirs() -> None:
    part = PAGE.partition("<!-- presets:")[2].partition("<!-- end of presets -->")[0]
    written = [line for line in part.splitlines() if line.startswith("| `")]
    assert written == _rows(), "\n" + "\n".join(_rows())


def _blocks() -> list[str]:
    return [part.partition("```")[0] for part in PAGE.split("```yaml\n")[1:]]


def test_the_example_of_a_table_works() -> None:
    (text,) = (each for each in _blocks() if "kind: ConfigMap" in each)
    document = yaml.safe_load(text)
    assert document["metadata"]["labels"] == {"beamlit.com/runtimes": "true"}
    table = extended({"our-runtimes": document["data"]})
    assert not table.problems
    assert table.presets["our-server"].memory_volume
    assert table.presets["vllm"].image != presets()["vllm"].image


def test_the_example_of_a_template_is_one() -> None:
    (text,) = (each for each in _blocks() if each.startswith("podTemplate:"))
    template = yaml.safe_load(text)["podTemplate"]
    assert template_problem(template) is None
    assert directive_problem(template, "spec.podTemplate") is None
