"""Why pods do not start, told from their statuses."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.api import labels
from beamlit_operator.controllers.diagnosis import (
    claim_missing,
    fetch_failed,
    why_not_started,
    why_refused,
)
from beamlit_operator.kube import Json


def pod(name: str = "p", *, deleting: bool = False, **status: Any) -> Json:
    metadata: Json = {"name": name, "namespace": "team", "labels": {labels.REVISION: "iris-1"}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    return {"metadata": metadata, "status": status}


def container(**more: Any) -> Json:
    return {"name": "model", "restartCount": 0, **more}


def ended(code: int, message: str = "", reason: str = "Error") -> Json:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def not_ready_since(time: str) -> Json:
    at = f"2026-05-04T{time}Z"
    return {"type": "Ready", "status": "False", "lastTransitionTime": at}


def restarted(count: int, *, started: str) -> Json:
    last = ended(137)
    last["terminated"]["startedAt"] = f"2026-05-04T{started}Z"
    return container(restartCount=count, state={"running": {}}, lastState=last)


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
}
CASES: list[tuple[str, Json, str | None]] = [
    ("nothing is known yet", pod(), None),
    ("it is unschedulable", pod(conditions=[UNSCHEDULABLE]), "0/3 nodes are available"),
    (
        "the image cannot be pulled",
        pod(
            containerStatuses=[
                container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no image"}})
            ]
        ),
        "container model cannot start: ImagePullBackOff: no image",
    ),
    (
        "it was killed while it served, and starts again",
        pod(
            startTime="2026-05-04T12:00:00Z",
            conditions=[not_ready_since("12:00:01")],
            containerStatuses=[restarted(1, started="12:00:01")],
        ),
        None,
    ),
    (
        "it was killed while it served, and then failed to start",
        pod(
            conditions=[not_ready_since("12:05:00")],
            containerStatuses=[restarted(2, started="12:05:01")],
        ),
        "container model keeps ending: exit code 137",
    ),
    (
        "it was never ready",
        pod(
            startTime="2026-05-04T12:00:00Z",
            conditions=[not_ready_since("12:00:00")],
            containerStatuses=[restarted(1, started="12:00:00")],
        ),
        "container model keeps ending: exit code 137",
    ),
    (
        "it is being created",
        pod(containerStatuses=[container(state={"waiting": {"reason": "ContainerCreating"}})]),
        None,
    ),
    (
        "it crashes",
        pod(
            containerStatuses=[
                container(
                    restartCount=1,
                    state={"waiting": {"reason": "CrashLoopBackOff"}},
                    lastState=ended(3, "no such model"),
                )
            ]
        ),
        "container model keeps ending: exit code 3: no such model",
    ),
    (
        "it runs again after a crash",
        pod(
            containerStatuses=[
                container(
                    restartCount=1, state={"running": {}}, lastState=ended(137, reason="OOMKilled")
                )
            ]
        ),
        "exit code 137 (OOMKilled)",
    ),
    (
        "it ended once and was not restarted yet",
        pod(containerStatuses=[container(state=ended(1))]),
        None,
    ),
    (
        "the files cannot be fetched",
        pod(
            initContainerStatuses=[
                {**container(restartCount=2, state=ended(1, "AccessDenied")), "name": "fetch"}
            ]
        ),
        "container fetch keeps ending: exit code 1: AccessDenied",
    ),
    (
        "a long fetch ends with a sentence",
        pod(
            initContainerStatuses=[
                {
                    **container(
                        restartCount=2,
                        state=ended(
                            1,
                            "fetching s3://a/b: 1.0 MiB of 9.0 MiB (11 %), 1.0 MiB/s\n"
                            "beamlit fetch: Changed: s3://a/b is at sha256:1 now\n",
                        ),
                    ),
                    "name": "fetch",
                }
            ]
        ),
        "container fetch keeps ending: Changed: s3://a/b is at sha256:1 now (kubectl",
    ),
    (
        "it was evicted",
        pod(phase="Failed", reason="Evicted", message="no disk"),
        "Evicted: no disk",
    ),
    ("it is being deleted", pod(deleting=True, conditions=[UNSCHEDULABLE]), None),
]


@pytest.mark.parametrize(("item", "told"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_pod_is_told_when(item: Json, told: str | None) -> None:
    found = why_not_started([item])
    if told is None:
        assert found is None
    else:
        assert told in (found or "")


def test_a_ready_pod_outweighs_one_that_fails() -> None:
    good = pod("a", conditions=[{"type": "Ready", "status": "True"}])
    assert why_not_started([pod("b", conditions=[UNSCHEDULABLE]), good]) is None


def test_a_long_message_is_told_by_its_end_and_with_where_the_log_is() -> None:
    crash = container(
        restartCount=1,
        state={"waiting": {"reason": "CrashLoopBackOff"}},
        lastState=ended(1, "x" * 5000 + " the {end}"),
    )
    told = why_not_started([pod(containerStatuses=[crash])]) or ""
    assert len(told) < 1000
    assert "the {end}" in told
    assert "kubectl logs -n team -l beamlit.com/revision=iris-1 -c model" in told


@pytest.mark.parametrize(
    ("name", "state", "failed"),
    [
        ("fetch", {"state": ended(1)}, True),
        ("fetch", {"state": {"running": {}}, "lastState": ended(1)}, True),
        ("fetch", {"state": ended(0, reason="Completed")}, False),
        ("fetch", {"state": {"waiting": {"reason": "PodInitializing"}}}, False),
        ("other", {"state": ended(1)}, False),
    ],
)
def test_a_failed_fetch_is_told_apart(name: str, state: Json, failed: bool) -> None:
    assert fetch_failed([pod(initContainerStatuses=[{"name": name, **state}])]) is failed


REFUSED = 'pods "iris-1-abcde" is forbidden: exceeded quota: team, requested: pods=1, used: 1'


def refusing(message: str = REFUSED, *, replicas: int = 1, status: str = "True") -> Json:
    condition = {"type": "ReplicaFailure", "status": status, "message": message}
    return {"spec": {"replicas": replicas}, "status": {"conditions": [condition]}}


def test_pods_that_are_refused_are_told_in_the_api_servers_words_without_their_names() -> None:
    told = why_refused(refusing())
    assert told == (
        "the API server refuses the pods: pods are forbidden: exceeded quota: team, requested: "
        "pods=1, used: 1"
    )
    assert told == why_refused(refusing(REFUSED.replace("abcde", "fghij")))


@pytest.mark.parametrize(
    "workload",
    [None, {}, {"spec": {"replicas": 1}}, refusing(replicas=0), refusing(status="False")],
    ids=["none", "empty", "well", "asleep", "over"],
)
def test_nothing_is_told_of_a_workload_that_is_not_refused(workload: Json | None) -> None:
    assert why_refused(workload) is None


@pytest.mark.parametrize(
    ("status", "message", "missing"),
    [
        ("False", '0/3 nodes are available: persistentvolumeclaim "weights" not found.', True),
        ("False", "pod has unbound immediate PersistentVolumeClaims.", True),
        ("False", "0/3 nodes are available: 3 Insufficient cpu.", False),
        ("True", "", False),
    ],
)
def test_a_pod_without_a_node_because_of_a_claim_is_a_reason_to_look_again(
    status: str, message: str, missing: bool
) -> None:
    condition = {"type": "PodScheduled", "status": status, "message": message}
    assert claim_missing([pod(conditions=[condition])]) is missing
