"""Merging the gateways' reports: sums, rates, restarts and silence."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.autoscaling.loads import (
    DeploymentKey,
    GatewayLoad,
    LoadError,
    LoadMerger,
    LoadSample,
    parse_load,
)

KEY = DeploymentKey("team/iris-production")


def report(
    total: int = 0, *, concurrency: float = 0.0, held: int = 0, gateway: str = "gw-1"
) -> GatewayLoad:
    return parse_load(
        {
            "gateway": gateway,
            "deployments": {
                KEY: {"concurrency": concurrency, "requestsTotal": total, "held": held}
            },
        }
    )


def test_gateways_are_added_up() -> None:
    merger = LoadMerger()
    merger.record("a", report(concurrency=1.5, held=1), now_seconds=0)
    merger.record("b", report(concurrency=2.0, held=2, gateway="gw-2"), now_seconds=0)
    assert merger.samples(now_seconds=0) == {KEY: LoadSample(3.5, 3, 0.0, busiest=2.0)}


def test_a_rate_is_the_difference_of_two_reports() -> None:
    merger = LoadMerger()
    merger.record("a", report(100), now_seconds=0)
    assert merger.samples(now_seconds=0)[KEY].requests_per_second == 0
    merger.record("a", report(130), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].requests_per_second == 15


@pytest.mark.parametrize("gateway", ["gw-1", "gw-new"])
def test_a_restarted_gateway_counts_from_zero(gateway: str) -> None:
    merger = LoadMerger()
    merger.record("a", report(100), now_seconds=0)
    merger.record("a", report(10, gateway=gateway), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].requests_per_second == 5


def test_a_restarted_gateway_that_counts_higher_already_is_known_by_its_id() -> None:
    merger = LoadMerger()
    merger.record("a", report(10), now_seconds=0)
    merger.record("a", report(30, gateway="gw-new"), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].requests_per_second == 15


def test_a_deployment_that_was_quiet_for_a_while_does_not_count_its_past_again() -> None:
    merger = LoadMerger()
    merger.record("a", report(1000), now_seconds=0)
    merger.record("a", GatewayLoad("gw-1", {}), now_seconds=2)
    assert merger.samples(now_seconds=2) == {}
    merger.record("a", report(1004), now_seconds=4)
    assert merger.samples(now_seconds=4)[KEY].requests_per_second == 2


def two(merger: LoadMerger, *, now: float) -> None:
    merger.record("a", report(concurrency=3), now_seconds=now)
    merger.record("b", report(concurrency=1, gateway="gw-2"), now_seconds=now)
    assert merger.samples(now_seconds=now)[KEY].concurrency == 4


def test_a_silent_gateway_counts_for_a_bounded_time() -> None:
    merger = LoadMerger(keep_seconds=60)
    two(merger, now=0)
    merger.record("b", report(concurrency=1, gateway="gw-2"), now_seconds=60)
    assert merger.samples(now_seconds=60)[KEY].concurrency == 4
    merger.record("b", report(concurrency=1, gateway="gw-2"), now_seconds=62)
    assert merger.samples(now_seconds=62)[KEY].concurrency == 1
    assert not merger.is_blind(now_seconds=62)
    assert merger.is_blind(now_seconds=123)


def test_the_callers_of_a_gateway_that_died_do_not_count_twice() -> None:
    merger = LoadMerger(keep_seconds=60)
    two(merger, now=0)
    merger.record("b", report(concurrency=4, gateway="gw-2"), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].concurrency == 4
    merger.record("b", report(concurrency=9, gateway="gw-2"), now_seconds=4)
    assert merger.samples(now_seconds=4)[KEY].concurrency == 9


def test_what_was_held_and_is_in_progress_now_does_not_count_twice() -> None:
    merger = LoadMerger(keep_seconds=60)
    merger.record("a", report(held=5), now_seconds=0)
    merger.record("b", report(gateway="gw-2"), now_seconds=0)
    assert merger.samples(now_seconds=0)[KEY].held == 5
    merger.record("a", report(concurrency=5), now_seconds=2)
    sample = merger.samples(now_seconds=2)[KEY]
    assert sample.concurrency + sample.held == 5


@pytest.mark.parametrize(
    ("total", "concurrency", "held", "rate"),
    [(30, 0.0, 30, 15.0), (10_001, 0.0, 0, 0.0), (10_001, 2.5, 4, 3.0), (1, 3.0, 0, 0.5)],
)
def test_of_a_deployment_that_is_new_to_us_only_what_is_there_counts_as_a_rate(
    total: int, concurrency: float, held: int, rate: float
) -> None:
    merger = LoadMerger()
    merger.record("a", GatewayLoad("gw-1", {}), now_seconds=0)
    merger.record("a", report(total, concurrency=concurrency, held=held), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].requests_per_second == rate


def test_deleted_deployments_are_forgotten() -> None:
    merger = LoadMerger()
    merger.record("a", report(7), now_seconds=0)
    merger.record("a", GatewayLoad("gw-1", {}), now_seconds=2)
    merger.forget_all_but([])
    assert merger._sources["a"].totals == {}


def test_one_that_was_disabled_for_a_moment_does_not_count_its_past_as_a_burst() -> None:
    merger = LoadMerger()
    merger.record("a", report(10_000), now_seconds=0)
    merger.forget_all_but([])
    merger.record("a", report(10_004), now_seconds=2)
    assert merger.samples(now_seconds=2)[KEY].requests_per_second == 2


def test_the_part_of_a_revision_is_its_part_of_everything() -> None:
    assert LoadSample(4, 2, 10, 4).scaled(0.25) == LoadSample(1, 0.5, 2.5, 1)


_ENTRY = {"concurrency": 1, "requestsTotal": 1, "held": 0}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"gateway": "g"},
        {"gateway": "g", "deployments": []},
        {"gateway": "g", "deployments": {"a/b": {}}},
        {"gateway": "g", "deployments": {"a/b": _ENTRY | {"concurrency": "1"}}},
        {"gateway": "g", "deployments": {"a/b": _ENTRY | {"concurrency": -1}}},
        {"gateway": "g", "deployments": {"a/b": _ENTRY | {"held": float("nan")}}},
        {"gateway": "g", "deployments": {"a/b": _ENTRY | {"held": True}}},
    ],
)
def test_what_is_no_report_is_refused(document: Any) -> None:
    with pytest.raises(LoadError):
        parse_load(document)
