"""What the gateway can be told on its command line and by variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamlit_operator.gateway.__main__ import main, parse_arguments, settings_from
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


TLS = (
    *("--tls-listen", "127.0.0.1:8443"),
    *("--tls-certificate", "/tls/tls.crt", "--tls-key", "/tls/tls.key"),
)


def test_callers_are_authenticated_where_that_is_asked_for() -> None:
    assert not settings_from(parse_arguments([])).authentication
    issuer = '[{"issuer": "https://id.test", "audiences": ["a"]}]'
    arguments = ["--authentication", "--audiences", "one,two", "--oidc-issuers", issuer]
    settings = settings_from(parse_arguments(arguments))
    assert (settings.authentication, settings.audiences) == (True, ("one", "two"))
    assert [each.issuer for each in settings.issuers] == ["https://id.test"]


def test_what_envoy_reads_is_written_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["beamlit-gateway", "--no-envoy", "--write-bootstrap", *TLS]
    monkeypatch.setattr("sys.argv", [*command, "--runtime-dir", str(tmp_path)])
    assert main() == 0
    assert json.loads((tmp_path / "envoy.json").read_text())["node"]
    (secret,) = json.loads((tmp_path / "tls.json").read_text())["resources"]
    assert secret["tls_certificate"]["watched_directory"] == {"path": "/tls"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--otlp-endpoint", "collector"], "collector"),
        (["--trace-sampling", "101"], "--trace-sampling"),
        (["--listen", "8080"], "8080"),
        (["--tls-listen", ":8443"], "--tls-certificate"),
        (["--tls-key", "/tls/tls.key"], "need each other"),
        ([*TLS, "--tls-key", "/other/tls.key"], "one folder"),
        ([*TLS, "--no-envoy"], "--runtime-dir"),
        (["--authentication", "--audiences", ""], "--audiences"),
        (["--oidc-issuers", "[{}]"], "audiences"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        settings_from(parse_arguments(arguments))
