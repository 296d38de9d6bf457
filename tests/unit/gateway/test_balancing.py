"""What a deployment says of its endpoint, as the gateway reads it and as Envoy is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.gatewayobjects import model_deployment

from beamlit_operator.gateway import names
from beamlit_operator.gateway.balancing import Balancing, parse_balancing
from beamlit_operator.gateway.catalog import Catalog, Pod
from beamlit_operator.gateway.clusters import Shape, way_to_pods
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey, RevisionName, Workspace

KEY = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-1"))
PODS = [Pod("10.0.0.1", 80), Pod("10.0.0.2", 80)]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, Balancing()),
        ({}, Balancing()),
        ({"maxConcurrency": 0}, Balancing()),
        ({"maxConcurrency": 4}, Balancing(4, 100)),
        ({"maxConcurrency": 4, "maxQueued": 7}, Balancing(4, 7)),
        ({"maxQueued": 7}, Balancing()),
        ({"loadBalancing": "LeastRequest", "prefixLength": 9}, Balancing()),
        ({"loadBalancing": "PromptPrefix"}, Balancing(0, 0, 256)),
        ({"loadBalancing": "PromptPrefix", "prefixLength": 9}, Balancing(0, 0, 9)),
        # What the schema would have refused.
        ("much", Balancing()),
        ({"maxConcurrency": -1, "maxQueued": "many"}, Balancing()),
        ({"maxConcurrency": 10**9}, Balancing()),
        ({"maxConcurrency": 4, "maxQueued": -1}, Balancing(4, 100)),
        ({"loadBalancing": "Random"}, Balancing()),
    ],
)
def test_what_is_not_said_or_cannot_be_is_no_limit_and_no_prefix(
    endpoint: Any, expected: Balancing
) -> None:
    assert parse_balancing(endpoint) == expected


def test_without_a_limit_one_cluster_leads_to_the_pods_and_to_the_cold_listener() -> None:
    shape = Shape(h2c=False, balancing=Balancing())
    assert list(shape.clusters(KEY)) == [KEY.cluster]
    (endpoints,) = shape.endpoints(KEY, PODS).values()
    assert [len(each.lb_endpoints) for each in endpoints.endpoints] == [2, 1]


def test_a_limit_holds_for_the_pods_and_not_for_the_cold_listener() -> None:
    shape = Shape(h2c=False, balancing=Balancing(3, 5))
    clusters = shape.clusters(KEY)
    assert list(clusters) == [KEY.cluster, KEY.pods_cluster]
    limits = clusters[KEY.pods_cluster].circuit_breakers
    assert limits.per_host_thresholds[0].max_connections.value == 3
    assert limits.thresholds[0].max_pending_requests.value == 5
    assert not clusters[KEY.cluster].circuit_breakers.per_host_thresholds
    ((name, endpoints),) = shape.endpoints(KEY, PODS).items()
    assert name == endpoints.cluster_name == KEY.pods_cluster
    assert [len(each.lb_endpoints) for each in endpoints.endpoints] == [2]
    assert RevisionKey.of_cluster(KEY.pods_cluster) == RevisionKey.of_cluster(KEY.cluster) == KEY


@pytest.mark.parametrize(
    ("app_protocol", "endpoint", "way"),
    [
        (None, None, names.POD_CLUSTER),
        ("kubernetes.io/h2c", None, names.POD_CLUSTER_H2C),
        (None, {"maxConcurrency": 1}, KEY.pods_cluster),
        ("kubernetes.io/h2c", {"maxConcurrency": 1}, KEY.pods_cluster),
    ],
)
def test_the_way_of_a_woken_request_fits_the_server_and_keeps_the_limit(
    app_protocol: str | None, endpoint: dict[str, Any] | None, way: str
) -> None:
    catalog = Catalog()
    body = model_deployment(
        "iris", traffic={"iris-1": 100}, app_protocol=app_protocol, endpoint=endpoint
    )
    catalog.put_deployment("demo", "iris", body)
    deployment = catalog.get(DeploymentKey(Workspace("demo"), "iris"))
    assert deployment is not None
    assert way_to_pods(deployment, KEY) == way
