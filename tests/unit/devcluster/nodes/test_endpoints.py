"""EndpointSlice decisions."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.devcluster.controllers.endpointslice import Snapshot, decide


def service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "a"}},
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "None",
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
            **spec,
        },
    }


def pod(
    name: str, *, ready: bool = True, leaving: bool = False, port: int = 8080
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "uid": name}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {
            "nodeName": "a",
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": f"127.1.0.{len(name)}",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def only(plan: Any) -> dict[str, Any]:
    (created,) = plan.create
    return dict(created)


@pytest.mark.parametrize(
    ("ready", "leaving", "conditions"),
    [
        (True, False, {"ready": True, "serving": True, "terminating": False}),
        (False, False, {"ready": False, "serving": False, "terminating": False}),
        (True, True, {"ready": False, "serving": True, "terminating": True}),
        (False, True, {"ready": False, "serving": False, "terminating": True}),
    ],
)
def test_conditions_follow_readiness_and_deletion(
    ready: bool, leaving: bool, conditions: dict[str, bool]
) -> None:
    created = only(decide(Snapshot(service(), [pod("a", ready=ready, leaving=leaving)], [], {})))
    (endpoint,) = created["endpoints"]
    assert endpoint["conditions"] == conditions


def test_a_slice_names_node_zone_pod_and_carries_the_services_labels() -> None:
    created = only(decide(Snapshot(service(), [pod("a")], [], {"a": "us-east-1a"})))
    (endpoint,) = created["endpoints"]
    assert (endpoint["nodeName"], endpoint["zone"]) == ("a", "us-east-1a")
    assert endpoint["targetRef"]["name"] == "a"
    labels = created["metadata"]["labels"]
    assert labels["team"] == "a"
    assert labels["kubernetes.io/service-name"] == "web"
    assert created["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert created["metadata"]["ownerReferences"][0]["uid"] == "s"


def test_pods_that_call_a_port_by_different_numbers_are_in_different_slices() -> None:
    plan = decide(Snapshot(service(), [pod("a"), pod("bb", port=9090)], [], {}))
    assert sorted(item["ports"][0]["port"] for item in plan.create) == [8080, 9090]


def test_a_port_that_no_pod_has_is_left_out() -> None:
    ports = [{"name": "x", "port": 1, "targetPort": "nowhere"}, {"name": "n", "port": 5}]
    created = only(decide(Snapshot(service(ports=ports), [pod("a")], [], {})))
    assert created["ports"] == [{"name": "n", "port": 5, "protocol": "TCP"}]


def test_pods_without_address_or_that_ended_are_not_listed() -> None:
    early, ended = pod("a"), pod("b")
    del early["status"]["podIP"]
    ended["status"]["phase"] = "Succeeded"
    assert only(decide(Snapshot(service(), [early, ended], [], {})))["endpoints"] == []


@pytest.mark.parametrize("spec", [{"type": "ExternalName"}, {"selector": None}])
def test_a_service_without_pods_of_its_own_gets_no_slices(spec: Any) -> None:
    assert decide(Snapshot(service(**spec), [pod("a")], [], {})).create == ()


def test_the_plan_carried_out_changes_nothing_more() -> None:
    first = only(decide(Snapshot(service(), [pod("a")], [], {})))
    again = decide(Snapshot(service(), [pod("a")], [first], {}))
    assert (again.create, again.replace, again.delete) == ((), (), ())


def test_a_change_replaces_the_slice_at_the_version_that_was_seen() -> None:
    first = only(decide(Snapshot(service(), [pod("a")], [], {})))
    first["metadata"]["resourceVersion"] = "7"
    plan = decide(Snapshot(service(), [pod("a", ready=False)], [first], {}))
    (replaced,) = plan.replace
    assert replaced["metadata"]["resourceVersion"] == "7"


def test_slices_of_other_managers_are_never_touched() -> None:
    foreign = {"metadata": {"name": "mine", "labels": {"kubernetes.io/service-name": "web"}}}
    assert decide(Snapshot(service(), [], [foreign], {})).delete == ()


def test_publish_not_ready_addresses_publishes_them() -> None:
    item = service(publishNotReadyAddresses=True)
    created = only(decide(Snapshot(item, [pod("a", ready=False)], [], {})))
    assert created["endpoints"][0]["conditions"]["ready"] is True


def test_the_application_protocol_of_the_port_is_passed_on() -> None:
    port = {"name": "http", "port": 80, "targetPort": "web", "appProtocol": "kubernetes.io/h2c"}
    created = only(decide(Snapshot(service(ports=[port]), [pod("a")], [], {})))
    assert [each["appProtocol"] for each in created["ports"]] == ["kubernetes.io/h2c"]
