"""What is read from the objects of the API."""

from __future__ import annotations

import pytest
from tests.support.gatewayobjects import endpoint_slice, model_deployment

from beamlit_operator.gateway.catalog import Pod, parse_deployment, parse_slice
from beamlit_operator.gateway.settings import Address


def test_only_ready_pods_with_an_address_count() -> None:
    body = endpoint_slice("iris-1", [("127.0.0.1", 80)], deployment="iris")
    body["endpoints"] += [
        {"addresses": ["127.0.0.2"], "conditions": {"ready": False, "serving": True}},
        {"addresses": ["127.0.0.3"]},
        {"addresses": ["pod.example"], "conditions": {"ready": True}},
        {"addresses": []},
    ]
    found = parse_slice(body)
    assert found is not None
    assert found[1] == (Pod("127.0.0.1", 80), Pod("127.0.0.3", 80))


def test_the_port_named_http_is_used() -> None:
    body = endpoint_slice("iris-1", [("127.0.0.1", 80)], deployment="iris")
    body["ports"] = [{"name": "metrics", "port": 9}, {"name": "http", "port": 8080}]
    found = parse_slice(body)
    assert found is not None
    assert found[1] == (Pod("127.0.0.1", 8080),)


@pytest.mark.parametrize("missing", [{"endpoints": None}, {"ports": None}, {"ports": [{}]}])
def test_a_slice_without_pods_or_port_is_a_revision_without_pods(missing: dict) -> None:  # type: ignore[type-arg]
    body = endpoint_slice("iris-1", [("127.0.0.1", 80)], deployment="iris") | missing
    found = parse_slice(body)
    assert found is not None
    assert found[1] == ()


def test_a_slice_of_somebody_else_is_passed_over() -> None:
    body = endpoint_slice("iris-1", [("127.0.0.1", 80)], deployment="iris")
    body["metadata"]["labels"] = {"app": "other"}
    assert parse_slice(body) is None


def test_a_slice_of_somebody_elses_service_with_our_labels_is_passed_over() -> None:
    body = endpoint_slice("iris-1", [("127.0.0.1", 80)], deployment="iris")
    body["metadata"]["labels"]["kubernetes.io/service-name"] = "by-hand"
    assert parse_slice(body) is None


def test_a_deployment_without_status_and_defaults_is_read() -> None:
    body = {"metadata": {"namespace": "demo", "name": "iris"}, "spec": {"model": "iris"}}
    found = parse_deployment(body)
    assert found is not None
    assert (found.environment, found.enabled, found.revisions) == ("production", True, ())


def test_revisions_without_traffic_are_known_too() -> None:
    found = parse_deployment(model_deployment("iris", traffic={"old": 0, "new": 100}))
    assert found is not None
    assert [(str(r.key.revision), r.traffic) for r in found.revisions] == [("old", 0), ("new", 100)]
    assert found.serving.key.revision == "new"
    assert found.served


def test_a_deployment_whose_revisions_get_no_traffic_is_not_served() -> None:
    found = parse_deployment(model_deployment("iris", traffic={"iris-1": 0}))
    assert found is not None
    assert not found.served


def test_a_deployment_that_is_being_deleted_is_gone() -> None:
    body = model_deployment("iris")
    body["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    assert parse_deployment(body) is None


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), (":80", "0.0.0.0", 80), ("[::1]:80", "::1", 80)],
)
def test_addresses_are_read_as_people_write_them(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize("text", ["80", "host", "host:", "host:x", "host:70000"])
def test_a_malformed_address_is_refused_with_the_form_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Address.parse(text)
