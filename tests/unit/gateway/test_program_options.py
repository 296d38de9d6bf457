"""What the gateway can be told on its command line and by variables."""

from __future__ import annotations

import pytest

from beamlit_operator.gateway.__main__ import parse_arguments, settings_from
from beamlit_operator.gateway.bootstrap import bootstrap
from beamlit_operator.gateway.names import COLLECTOR_CLUSTER


def test_telemetry_is_quiet_unless_asked_for() -> None:
    settings = settings_from(parse_arguments([]))
    assert (settings.access_log, settings.tracing, settings.otlp_endpoint) == ("off", False, "")
    clusters = bootstrap(settings)["static_resources"]["clusters"]
    assert COLLECTOR_CLUSTER not in {cluster["name"] for cluster in clusters}


def test_everything_can_be_said_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ACCESS_LOG": "stdout",
        "TRACING": "true",
        "OTLP_ENDPOINT": "collector.example:4317",
        "TRACE_SAMPLING": "2.5",
        "DRAIN_DELAY": "7",
    }.items():
        monkeypatch.setenv(f"BEAMLIT_GATEWAY_{name}", value)
    settings = settings_from(parse_arguments([]))
    assert (settings.access_log, settings.tracing) == ("stdout", True)
    assert (settings.trace_sampling, settings.drain_delay) == (2.5, 7.0)
    clusters = {c["name"]: c for c in bootstrap(settings)["static_resources"]["clusters"]}
    assert "collector.example" in str(clusters[COLLECTOR_CLUSTER])
    assert not settings_from(parse_arguments(["--no-tracing"])).tracing


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--otlp-endpoint", "collector"], "collector"),
        (["--trace-sampling", "101"], "--trace-sampling"),
        (["--listen", "8080"], "8080"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        settings_from(parse_arguments(arguments))
