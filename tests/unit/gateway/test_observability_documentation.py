"""docs/observability.md names every metric and every field, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.fakekube import FakeKube

from beamlit_operator.controllers.operator import Operator
from beamlit_operator.controllers.options import Options
from beamlit_operator.gateway.metrics import AtScrape, GatewayMetrics, Vitals
from beamlit_operator.gateway.replies import ErrorReason
from beamlit_operator.gateway.statistics import FAMILIES, HISTOGRAM
from beamlit_operator.gateway.telemetry import FIELDS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "observability.md").read_text()


def documented(prefix: str) -> dict[str, str]:
    """Types by the name of the metric."""
    rows = re.findall(r"^\| `(beamlit_\w+)` \| (\w+) \|", PAGE, re.MULTILINE)
    return {name: kind for name, kind in rows if name.startswith(prefix)}


def shown(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_every_metric_of_the_gateway_is_documented() -> None:
    metrics = GatewayMetrics()
    metrics.watch(lambda: AtScrape({}, {}, {}))
    metrics.watch_health(lambda: Vitals(True, True, 0.0, {}))
    there = {shown(f.name, f.type): f.type for f in metrics.registry.collect()}
    there |= {
        shown(name, "histogram" if name == HISTOGRAM else "counter"): (
            "histogram" if name == HISTOGRAM else "counter"
        )
        for name, _ in FAMILIES
    }
    assert documented("beamlit_gateway_") == there


def test_every_metric_of_the_operator_is_documented() -> None:
    operator = Operator(FakeKube(), Options(webhook_listen="127.0.0.1:0"))
    there = {shown(f.name, f.type): f.type for f in operator.metrics.registry.collect()}
    documented_here = {
        name: kind
        for name, kind in documented("beamlit_").items()
        if not name.startswith("beamlit_gateway_")
    }
    assert documented_here == there


def test_every_field_of_the_access_log_is_documented() -> None:
    section = PAGE.partition("## Access log")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert {field for row in rows for field in re.findall(r"`(\w+)`", row)} == set(FIELDS)


def test_every_metric_in_the_examples_exists() -> None:
    examples = "".join(re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL))
    known = set(documented("beamlit_"))
    for name in re.findall(r"beamlit_\w+", examples):
        assert name in known or re.sub(r"_(bucket|sum|count)$", "", name) in known


def test_every_reason_of_an_error_is_documented() -> None:
    page = (DOCS / "gateway.md").read_text()
    missing = [reason.value for reason in ErrorReason if f"`{reason.value}`" not in page]
    assert not missing
