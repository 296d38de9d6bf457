"""What the autoscaler is told of a revision."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.autoscaling import ScalingConfig
from beamlit_operator.controllers.scaling import start_deadline
from beamlit_operator.kube import Json


def pod(*, node: str = "", waits: str = "", **status: Any) -> Json:
    containers = [{"name": "model", "state": {"waiting": {"reason": waits}}}] if waits else []
    return {
        "metadata": {"name": "iris-1"},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Pending", "containerStatuses": containers, **status},
    }


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


@pytest.mark.parametrize(
    ("pods", "seconds"),
    [
        ([], 4200.0),
        ([pod(node="us")], 4200.0),
        ([pod(node="us", waits="ContainerCreating")], 4200.0),
        ([pod(conditions=[{**UNSCHEDULABLE, "message": "0/3 nodes"}])], 4200.0),
        ([pod(node="us", waits="ImagePullBackOff")], 300.0),
        ([pod(node="us", waits="CrashLoopBackOff"), pod(node="eu")], 300.0),
    ],
)
def test_a_start_may_take_what_the_workload_allows_unless_it_fails(
    pods: list[Json], seconds: float
) -> None:
    live = {"metadata": {"name": "iris-1"}, "spec": {"progressDeadlineSeconds": 4200}}
    assert start_deadline(live, pods, scaling=ScalingConfig()) == seconds


def test_a_short_progress_deadline_does_not_shorten_it() -> None:
    live = {"metadata": {"name": "iris-1"}, "spec": {"progressDeadlineSeconds": 30}}
    assert start_deadline(live, [], scaling=ScalingConfig()) == 300.0
