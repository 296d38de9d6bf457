"""What the route table says of itself when callers are authenticated."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.gatewayobjects import model_deployment
from tests.unit.gateway.test_translation import deployment_events

from beamlit_operator.gateway import gate, names
from beamlit_operator.gateway.bootstrap import bootstrap
from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.listeners import main_listener
from beamlit_operator.gateway.protos import Message, Route, RouteConfiguration, RouteList
from beamlit_operator.gateway.resources import ResourceType
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.translation import full_state

GUARDED = GatewaySettings(gateway_id="test", domain="models.test", authentication=True)
OPEN = GatewaySettings(gateway_id="test", domain="models.test")


def routes_of(catalog: Catalog, settings: GatewaySettings) -> list[Message]:
    """Every route of the table, wherever it stands."""
    body = full_state(catalog, settings=settings)[ResourceType.ROUTES][names.ROUTES]
    assert body is not None
    table = RouteConfiguration.FromString(body.body.value)
    return list(_routes(table))


def _routes(message: Message) -> Iterator[Message]:
    if message.DESCRIPTOR.full_name == Route.DESCRIPTOR.full_name:
        yield message
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        if message.type_url.endswith(RouteList.DESCRIPTOR.full_name):
            yield from _routes(RouteList.FromString(message.value))
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from _routes(value[key])
        elif hasattr(value, "DESCRIPTOR"):
            yield from _routes(value)
        else:
            for each in value:
                yield from _routes(each)


def clusters_of(route: Message) -> set[str]:
    weighted = {each.name for each in route.route.weighted_clusters.clusters}
    return (weighted | {route.route.cluster}) - {""}


@settings(deadline=None, max_examples=60)
@given(st.lists(deployment_events(), max_size=8))
def test_whatever_leads_to_a_model_says_whose_it_is(events) -> None:
    catalog = Catalog()
    for _, workspace, name, body in events:
        catalog.put_deployment(workspace, name, body)
    for route in routes_of(catalog, GUARDED):
        for cluster in clusters_of(route) - {"beamlit_nowhere"}:
            noted = [
                about["d"]
                for by in (gate.GATE, gate.GATE_BODY)
                if "d" in (about := route.metadata.filter_metadata[by])
            ]
            assert noted == ["/".join(cluster.split("/")[:2])]


def test_without_authentication_nothing_is_noted_and_nothing_is_asked() -> None:
    catalog = Catalog()
    catalog.put_deployment("demo", "iris", model_deployment("iris", traffic={"iris-1": 100}))
    for route in routes_of(catalog, OPEN):
        assert set(route.metadata.filter_metadata) <= {gate.GATE}
        assert "d" not in route.metadata.filter_metadata[gate.GATE]
    listener = main_listener(OPEN).SerializeToString()
    assert b"gate_body" not in listener
    assert b"gate_body" in main_listener(GUARDED).SerializeToString()
    found = {cluster["name"] for cluster in bootstrap(OPEN)["static_resources"]["clusters"]}
    assert names.REVIEW_CLUSTER not in found


def test_only_a_workspace_with_a_public_deployment_reads_bodies_of_everybody() -> None:
    catalog = Catalog()
    for workspace, public in (("demo", True), ("prod", False)):
        body = model_deployment(
            "iris", workspace=workspace, traffic={"i-1": 100}, endpoint={"public": public}
        )
        catalog.put_deployment(workspace, "iris", body)
    reading = [
        dict(route.metadata.filter_metadata[gate.GATE])
        for route in routes_of(catalog, GUARDED)
        if clusters_of(route) == {"beamlit_nowhere"}
    ]
    # Two workspaces, and those that are not known.
    assert sorted("open" in about for about in reading) == [False, False, True]
    assert all(about["any"] and about["later"] for about in reading)
    public = [
        "public" in route.metadata.filter_metadata[by]
        for route in routes_of(catalog, GUARDED)
        for by in (gate.GATE, gate.GATE_BODY)
        if "d" in route.metadata.filter_metadata[by]
    ]
    assert public.count(True) == len(public) / 2 > 0
