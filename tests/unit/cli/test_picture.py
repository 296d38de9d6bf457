"""What ``beamlit rollout status`` shows of given states."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from beamlit_operator.api import ModelDeployment
from beamlit_operator.cli.picture import bar, clock, picture, summary

T = "2026-05-04T12:00:00Z"


def deployment(
    *, annotations: dict[str, str] | None = None, generation: int = 1, **status: Any
) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {
                "name": "iris",
                "generation": generation,
                "annotations": annotations or {},
            },
            "spec": {
                "model": "iris",
                "rollout": {
                    "strategy": "Canary",
                    "steps": [{"weight": 10}, {"weight": 50, "pause": "5m"}],
                },
            },
            "status": {"observedGeneration": 1, "phase": "Active", **status},
        }
    )


REVISIONS = [
    {
        "name": "iris-2",
        "version": "v2",
        "replicas": 1,
        "readyReplicas": 1,
        "traffic": 10,
        "role": "canary",
    },
    {
        "name": "iris-1",
        "version": "v1",
        "replicas": 3,
        "readyReplicas": 3,
        "traffic": 90,
        "role": "stable",
    },
]
ROLLOUT = {
    "phase": "Paused",
    "stable": "iris-1",
    "canary": "iris-2",
    "step": 1,
    "steps": 2,
    "weight": 10,
    "startedAt": T,
    "since": T,
    "message": "waits for approval",
    "analysis": {
        "requests": 120,
        "errorPercent": 0.75,
        "p95Milliseconds": 12.5,
        "message": "good so far",
    },
}
HISTORY = [
    {
        "revision": "iris-1",
        "version": "v1",
        "startedAt": T,
        "outcome": "Serving",
        "releasedFrom": {"environment": "staging", "by": "ada"},
    },
    {
        "revision": "iris-0",
        "version": "v0",
        "startedAt": T,
        "endedAt": T,
        "outcome": "RolledBack",
        "reason": "5 % errors",
    },
]


def rendered(item: ModelDeployment) -> list[str]:
    out = StringIO()
    Console(file=out, width=200).print(picture(item))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_rollout_is_shown_with_shares_step_analysis_and_history() -> None:
    at = clock(deployment(rollout=ROLLOUT).status.rollout.since)  # type: ignore[union-attr]
    lines = rendered(deployment(revisions=REVISIONS, rollout=ROLLOUT, history=HISTORY))
    assert lines == [
        f"iris: Paused, step 1 of 2, since {at}",
        "  waits for approval",
        "  ROLE    REVISION  VERSION  READY  TRAFFIC",
        "  stable  iris-1    v1       3/3    ██████████████████··  90 %",
        "  canary  iris-2    v2       1/1    ██··················  10 %",
        "  steps    [10 %] > 50 % for 5m > 100 %",
        "  analysis 120 requests, 0.75 % errors, p95 12.5 ms: good so far",
        "  REVISION  VERSION  STARTED              ENDED                OUTCOME     FROM AND WHY",
        f"  iris-1    v1       {at}  -                    Serving     released from staging by ada",
        f"  iris-0    v0       {at}  {at}  RolledBack  5 % errors",
    ]


def test_what_a_person_holds_is_told_apart_from_what_waits_for_one() -> None:
    held = {"beamlit.com/rollout-pause": "iris-2"}
    assert rendered(deployment(rollout=ROLLOUT, annotations=held))[0].startswith(
        "iris: Paused by hand, step 1 of 2"
    )
    other = {"beamlit.com/rollout-pause": "iris-1"}
    assert "by hand" not in rendered(deployment(rollout=ROLLOUT, annotations=other))[0]


def test_without_a_rollout_the_state_is_said() -> None:
    assert rendered(deployment())[0] == "iris: Active, no rollout under way"
    assert rendered(deployment(generation=2))[0] == "iris: Active, edited, and not looked at yet"
    failed = {
        "type": "Ready",
        "status": "False",
        "reason": "StartFailed",
        "message": "no file",
        "lastTransitionTime": T,
    }
    assert rendered(deployment(conditions=[failed]))[0] == "iris: Active, StartFailed: no file"


@pytest.mark.parametrize(
    ("percent", "cells"), [(0, 0), (1, 1), (5, 1), (10, 2), (50, 10), (99, 20), (100, 20)]
)
def test_a_bar_has_a_cell_for_five_percent_and_one_for_any_share(percent: int, cells: int) -> None:
    text = bar(percent).plain
    assert (text.count("█"), text.count("█") + text.count("·")) == (cells, 20)


def test_the_summary_changes_with_shares_steps_and_messages() -> None:
    assert summary(deployment(revisions=REVISIONS, rollout=ROLLOUT)) == (
        "iris: Paused step 1 of 2; iris-2 10 %, iris-1 90 %; waits for approval"
    )
    assert summary(deployment()) == "iris: no rollout under way; "
