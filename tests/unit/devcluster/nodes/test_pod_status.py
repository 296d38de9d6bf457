"""Pod phases, conditions, probes and back-off. Pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.kubelet.backoff import BackOff
from beamlit_operator.devcluster.kubelet.probes import Series, Settings
from beamlit_operator.devcluster.kubelet.records import first_records, refusal
from beamlit_operator.devcluster.kubelet.status import (
    ContainerRecord,
    Facts,
    phase_of,
    qos_class,
    status_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAITING: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


def record(state: dict[str, Any], role: Any = "main", **more: Any) -> ContainerRecord:
    return ContainerRecord(more.pop("name", "c"), "image", role, state, **more)


def facts(policy: str, *records: ContainerRecord, **pod: Any) -> Facts:
    body = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": {"restartPolicy": policy, "containers": [], **pod.pop("spec", {})},
        **pod,
    }
    return Facts(body, records, "127.1.0.1", "127.0.0.1", NOW, NOW)


@pytest.mark.parametrize(
    ("policy", "records", "phase"),
    [
        ("Always", [record(WAITING)], "Pending"),
        ("Always", [record(RUNNING)], "Running"),
        ("Always", [record(RUNNING), record(WAITING)], "Pending"),
        ("Always", [record(WAITING, last_state=ended(1))], "Running"),
        ("Always", [record(ended(1))], "Running"),
        ("Never", [record(ended(0))], "Succeeded"),
        ("Never", [record(ended(1)), record(ended(0))], "Failed"),
        ("Never", [record(ended(1)), record(RUNNING)], "Running"),
        ("OnFailure", [record(ended(1))], "Running"),
        ("OnFailure", [record(ended(0))], "Succeeded"),
        ("Always", [record(RUNNING, "init"), record(WAITING)], "Pending"),
        ("Never", [record(ended(2), "init"), record(WAITING)], "Failed"),
        ("Always", [record(ended(2), "init"), record(WAITING)], "Pending"),
        ("Always", [record(ended(0), "init"), record(RUNNING)], "Running"),
        ("Always", [record(RUNNING, "sidecar"), record(RUNNING)], "Running"),
        ("Never", [record(RUNNING, "sidecar"), record(ended(0))], "Running"),
        ("Never", [record(ended(143), "sidecar"), record(ended(0))], "Succeeded"),
    ],
)
def test_the_phase_follows_the_table(
    policy: str, records: list[ContainerRecord], phase: str
) -> None:
    assert phase_of(facts(policy, *records)) == phase


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in status["conditions"]}


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    first = record(RUNNING, ready=True, started=True)
    second = record(RUNNING, name="d", ready=False)
    status = status_of(facts("Always", first, second))
    assert conditions(status)["Ready"] == "False"
    (ready,) = [item for item in status["conditions"] if item["type"] == "Ready"]
    assert ready["message"] == "containers with unready status: [d]"
    second.ready = True
    assert conditions(status_of(facts("Always", first, second)))["Ready"] == "True"


def test_a_readiness_gate_keeps_a_pod_from_being_ready() -> None:
    gate = {"spec": {"readinessGates": [{"conditionType": "x/y"}]}}
    main = record(RUNNING, ready=True)
    assert conditions(status_of(facts("Always", main, **gate)))["Ready"] == "False"
    passed = {"status": {"conditions": [{"type": "x/y", "status": "True"}]}}
    status = status_of(facts("Always", main, **gate, **passed))
    assert conditions(status) == {
        "x/y": "True",
        "PodScheduled": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }


def test_transition_times_stay_while_the_condition_does() -> None:
    before = status_of(facts("Always", record(RUNNING, ready=True)))
    for item in before["conditions"]:
        item["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    after = status_of(facts("Always", record(RUNNING, ready=False), status=before))
    times = {item["type"]: item["lastTransitionTime"] for item in after["conditions"]}
    assert times["Initialized"] == "2020-01-01T00:00:00Z"
    assert times["Ready"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"nvidia.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_the_quality_of_service_follows_requests_and_limits(resources: Any, quality: str) -> None:
    assert qos_class({"spec": {"containers": [{"resources": resources}]}}) == quality


def test_a_pod_taken_over_counts_a_restart_for_what_was_running() -> None:
    status = {"containerStatuses": [{"name": "c", "restartCount": 2, "state": RUNNING}]}
    body: dict[str, Any] = {"spec": {"containers": [{"name": "c"}]}, "status": status}
    (taken,) = first_records(body)
    assert taken.restart_count == 3
    assert taken.last_state["terminated"]["exitCode"] == 255
    body["spec"]["restartPolicy"] = "Never"
    (lost,) = first_records(body)
    assert lost.exit_code == 255


@pytest.mark.parametrize("spec", [{"hostNetwork": True}, {"os": {"name": "windows"}}])
def test_what_processes_cannot_do_is_refused(spec: dict[str, Any]) -> None:
    assert "embedded cluster" in (refusal({"spec": {"containers": [], **spec}}) or "")


def settings(success: int = 1, failure: int = 3) -> Settings:
    return Settings(0, 10, 1, success, failure)


def test_a_probe_passes_and_fails_at_its_thresholds() -> None:
    series = Series()
    verdicts = []
    for success in (False, False, False, True, True, False):
        series = series.after(success, settings(success=2))
        verdicts.append(series.verdict)
    assert verdicts == [None, None, False, False, True, True]


def test_attempts_in_between_can_only_help() -> None:
    series = Series().after(False, settings(failure=1), eager=True)
    assert series == Series()
    assert series.after(True, settings(), eager=True).verdict is True
    assert series.after(True, settings(success=2), eager=True) == Series()


@given(st.lists(st.tuples(st.booleans(), st.booleans())), st.integers(1, 4), st.integers(1, 4))
def test_failures_in_between_never_bring_a_probe_down(
    attempts: list[tuple[bool, bool]], success: int, failure: int
) -> None:
    numbers = settings(success, failure)
    everything, declared = Series(), Series()
    for passed, eager in attempts:
        everything = everything.after(passed, numbers, eager=eager)
        if not eager:
            declared = declared.after(passed, numbers)
    if everything.verdict is False:
        assert declared.verdict is False


def test_restarts_wait_longer_and_longer_up_to_five_minutes() -> None:
    delays, last = [], None
    for _ in range(9):
        last = BackOff().next_delay(last, ran_for=1)
        delays.append(last)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert BackOff().next_delay(300, ran_for=600) == 0
