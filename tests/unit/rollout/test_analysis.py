"""Verdicts, row by row, and how rarely they are written."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.rollouts import START

from beamlit_operator.api.rollout import RolloutAnalysis
from beamlit_operator.rollout import Answer, Evidence, Measured
from beamlit_operator.rollout.analysis import judge, told

ERRORS = RolloutAnalysis(minimum_requests=20, max_error_percent=5)
LATENCY = RolloutAnalysis(minimum_requests=20, max_latency_percent=150)
QUERY = RolloutAnalysis.model_validate(
    {"minimumRequests": 1, "prometheus": {"query": "q", "minimum": "0.5", "maximum": 2}}
)


def seen(requests=100, errors=0, p95=100.0, stable=100, stable_p95=100.0, answer=None):
    return Evidence(
        Measured(requests, errors, p95), Measured(stable, p95_milliseconds=stable_p95), answer
    )


@pytest.mark.parametrize(
    ("criteria", "evidence", "verdict", "words"),
    [
        (ERRORS, Evidence(), "Undecided", "20 requests, of which 0 came"),
        (ERRORS, seen(requests=19, errors=19), "Undecided", "of which 19 came"),
        (ERRORS, seen(requests=20, errors=1), "Good", "5.0 %"),
        (ERRORS, seen(requests=20, errors=2), "Bad", "10.0 % of its requests failed, 5 % may"),
        (LATENCY, seen(p95=150.0), "Good", "150 %"),
        (LATENCY, seen(p95=151.0), "Bad", "151 % of the stable revision's, 150 % may be"),
        (LATENCY, seen(p95=500.0, stable=19), "Undecided", "to the stable revision"),
        (LATENCY, seen(p95=None), "Undecided", "latencies"),
        (LATENCY, seen(stable_p95=None), "Undecided", "latencies"),
        (QUERY, seen(), "Undecided", "waits for Prometheus"),
        (QUERY, seen(answer=Answer(problem="no such metric")), "Undecided", "no such metric"),
        (QUERY, seen(answer=Answer(math.nan)), "Undecided", "no number"),
        (QUERY, seen(answer=Answer(0.4)), "Bad", "at least 0.5 is good"),
        (QUERY, seen(answer=Answer(2.1)), "Bad", "at most 2 is good"),
        (QUERY, seen(answer=Answer(2.0)), "Good", "gives 2"),
    ],
)
def test_every_row_of_the_table_of_verdicts_holds(criteria, evidence, verdict, words):
    judgement = judge(criteria, evidence)
    assert judgement.verdict == verdict
    assert words in judgement.message


def test_a_query_without_a_result_needs_a_person():
    assert judge(QUERY, seen(answer=Answer(problem="no such metric"))).blocked
    assert not judge(QUERY, seen()).blocked


def test_at_weight_100_latency_is_compared_with_nothing():
    assert judge(LATENCY, seen(p95=900.0, stable=0), weight=100).verdict == "Good"


def test_one_bad_criterion_is_enough_and_all_must_be_good():
    both = RolloutAnalysis(minimum_requests=1, max_error_percent=5, max_latency_percent=150)
    assert judge(both, seen(errors=50)).verdict == "Bad"
    assert judge(both, seen(p95=900.0)).verdict == "Bad"
    assert judge(both, seen(stable=0)).verdict == "Undecided"
    assert judge(both, seen(errors=50, stable=0)).verdict == "Bad"
    assert judge(both, seen()).verdict == "Good"


@given(requests=st.integers(0, 10**6), errors=st.integers(0, 10**6))
def test_fewer_errors_never_make_a_verdict_worse(requests, errors):
    errors = min(errors, requests)
    worse = judge(ERRORS, seen(requests=requests, errors=errors)).verdict
    better = judge(ERRORS, seen(requests=requests, errors=errors // 2)).verdict
    rank = ["Bad", "Undecided", "Good"]
    assert rank.index(better) >= rank.index(worse)


def test_numbers_are_written_at_most_every_ten_seconds_and_a_verdict_at_once():
    first, more, bad = seen(requests=30), seen(requests=90), seen(requests=90, errors=90)
    before = told(judge(ERRORS, first), first, before=None, now=START)
    assert (before.requests, before.error_percent, before.p95_milliseconds) == (30, 0.0, 100.0)

    def again(evidence, seconds):
        now = START + timedelta(seconds=seconds)
        return told(judge(ERRORS, evidence), evidence, before=before, now=now)

    assert again(more, 9) is before
    assert again(more, 10).requests == 90
    assert again(bad, 1).verdict == "Bad"
    # Nothing new is nothing to write, and a clock that was set back does not keep old numbers.
    assert again(first, 600) is before
    assert again(more, -86400).requests == 90


def test_large_counts_are_rounded():
    evidence = seen(requests=123_456)
    assert told(judge(ERRORS, evidence), evidence, before=None, now=START).requests == 120_000
