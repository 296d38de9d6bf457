"""The alerts ask for what the code measures, and each has a runbook that its link leads to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from tests.unit.gateway.test_observability_documentation import documented

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "helm" / "beamlit-operator" / "files" / "monitoring" / "alerts.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
PAGE = (ROOT / "docs" / "operations.md").read_text()
METRICS = (ROOT / "docs" / "observability.md").read_text()
FIVE = {"workspace", "model", "environment", "deployment", "revision"}
SCRAPED = {"instance", "job"}
"""Labels that Prometheus itself gives."""

each_rule = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


def labels_of(metric: str) -> set[str]:
    """As docs/observability.md has them, which another test compares with the code."""
    row = re.search(rf"^\| `{metric}` \| \w+ \|([^|]*)\|", METRICS, re.MULTILINE)
    assert row is not None
    five = FIVE if "the five" in row[1] else set()
    return SCRAPED | five | set(re.findall(r"`(\w+)`", row[1]))


def parts(node: Any) -> Iterator[Any]:
    """A node of an expression and all below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if (child := getattr(node, name, None)) is not None:
            yield from parts(child)
    for child in getattr(node, "args", None) or ():
        yield from parts(child)


def selectors(expr: str) -> list[Any]:
    found = [p for p in parts(promql.parse(expr)) if isinstance(p, promql.VectorSelector)]
    assert found, f"{expr} asks for nothing"
    return found


def family(metric: str, known: set[str]) -> str:
    base = re.sub(r"_(bucket|sum|count)$", "", metric)
    return metric if metric in known else base


@each_rule
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = set(documented("beamlit_"))
    for selector in selectors(rule["expr"]):
        metric = family(str(selector.name), known)
        assert metric in known, f"no code registers {selector.name}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels_of(metric), f"{metric} has no label {matcher.name}"


@each_rule
def test_an_alert_keeps_the_labels_that_its_text_names(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    kept: set[str] = set()
    for part in parts(promql.parse(rule["expr"])):
        if isinstance(part, promql.AggregateExpr) and part.modifier is not None:
            kept |= set(part.modifier.labels)
    assert named <= kept | SCRAPED
    known = set(documented("beamlit_"))
    for selector in selectors(rule["expr"]):
        assert kept <= labels_of(family(str(selector.name), known)) | {"version"}


@each_rule
def test_an_alert_says_how_bad_it_is_and_leads_to_its_runbook(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert told["summary"]
    assert told["description"].endswith(".")
    assert told["runbook_url"].endswith(f"docs/operations.md#{rule['alert'].lower()}")
    section = PAGE.partition(f"\n### {rule['alert']}\n")[2].partition("\n### ")[0]
    assert told["action"] in section
    assert rule["expr"].strip() in section


def test_names_are_unique_and_ours() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"Beamlit[A-Z]\w+", name) for name in names)


def test_every_alert_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(Beamlit[A-Z]\w+)`", PAGE))
    assert named <= {rule["alert"] for rule in RULES}


def test_links_within_the_page_lead_somewhere() -> None:
    heads = {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= heads
