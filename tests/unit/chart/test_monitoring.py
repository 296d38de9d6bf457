"""The dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "operator" / "beamlit_operator"
MONITORING = ROOT / "helm" / "beamlit-operator" / "files" / "monitoring"
SUFFIXES = ("_total", "_bucket", "_sum", "_count")
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())


def bare(metric: str) -> str:
    for suffix in SUFFIXES:
        metric = metric.removesuffix(suffix)
    return metric


def registered() -> set[str]:
    """The names in the programs' own words: every metric is registered by its literal name."""
    rooms = ("gateway", "controllers", "autoscaling")
    texts = [path.read_text() for room in rooms for path in (SOURCES / room).rglob("*.py")]
    found = {name for text in texts for name in re.findall(r'"(beamlit_[a-z0-9_]+)"', text)}
    assert "beamlit_leader" in found
    return {bare(name) for name in found}


def expressions() -> list[str]:
    asked = [target["expr"] for each in DASHBOARD["panels"] for target in each.get("targets", ())]
    variables = DASHBOARD["templating"]["list"]
    return asked + [each["query"]["query"] for each in variables if each["type"] == "query"]


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_asks_for_metrics_that_are_registered(expression: str) -> None:
    promql = expression.replace("$__rate_interval", "5m")
    if not promql.startswith("label_values("):
        promql_parser.parse(promql)
    asked = set(re.findall(r"\bbeamlit_[a-z0-9_]+", expression))
    assert asked
    assert {bare(name) for name in asked} <= registered()


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    places = [
        (x, y)
        for each in panels
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
