"""What flags and variables say to the operator."""

from __future__ import annotations

import pytest

from beamlit_operator.controllers.options import Options, parse


@pytest.mark.parametrize(
    ("flag", "variable", "wrong"),
    [
        ("--resync", "BEAMLIT_RESYNC", "0.5"),
        ("--workers", "BEAMLIT_WORKERS", "0"),
        ("--workers", "BEAMLIT_WORKERS", "many"),
        ("--cache-limit", "BEAMLIT_CACHE_LIMIT", "much"),
        ("--cache-claim", "BEAMLIT_CACHE_CLAIM", "Models"),
        ("--prometheus-url", "BEAMLIT_PROMETHEUS_URL", "prometheus:9090"),
    ],
)
def test_a_variable_is_judged_as_its_flag_is(
    flag: str, variable: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, environ in (([flag, wrong], {}), ([], {variable: wrong})):
        with pytest.raises(SystemExit):
            parse(arguments, environ)
        assert flag in capsys.readouterr().err


def test_a_flag_wins_over_its_variable_and_that_over_the_default() -> None:
    environ = {"BEAMLIT_RESYNC": "20", "BEAMLIT_LEADER_ELECTION": "no"}
    assert parse(["--resync", "30", "--leader-election"], environ).resync == 30.0
    found = parse([], environ)
    assert (found.resync, found.leader_election) == (20.0, False)
    assert parse([], {}).resync == Options().resync
    assert parse([], {}).leader_election
