"""What a workspace lists, and how much of it."""

from __future__ import annotations

import json

import pytest
from tests.support.gatewayobjects import model_deployment

from beamlit_operator.gateway import openai
from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.protos import Message, RouteConfiguration, RouteList
from beamlit_operator.gateway.resources import ResourceType
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.translation import full_state
from beamlit_operator.kube import Json

SETTINGS = GatewaySettings(gateway_id="test", domain="models.test")
LISTING = "/demo/openai/v1/models"


def table_of(*objects: Json) -> Message:
    catalog = Catalog()
    for obj in objects:
        catalog.put_deployment(obj["metadata"]["namespace"], obj["metadata"]["name"], obj)
    table = RouteConfiguration()
    full_state(catalog, settings=SETTINGS)[ResourceType.ROUTES]["routes"].body.Unpack(table)
    return table


def listing(table: Message) -> Json:
    by_path = table.virtual_hosts[0].matcher.matcher_tree.prefix_match_map.map
    by_method = by_path[LISTING].matcher.matcher_tree.exact_match_map.map
    models = by_method["GET"].matcher.matcher_tree.prefix_match_map.map[LISTING]
    routes = RouteList()
    models.action.typed_config.Unpack(routes)
    body = routes.routes[0].direct_response.body.inline_string
    assert len(body.encode()) <= openai.LIST_LIMIT
    return dict(json.loads(body))


def served(number: int, **fields: object) -> Json:
    name = f"m{number:05}"
    return model_deployment(name, model=name, traffic={f"{name}-1": 100}, **fields)  # type: ignore[arg-type]


def test_a_list_that_is_too_long_for_envoy_is_cut_off_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [served(number) for number in range(200)]
    whole = listing(table_of(*models))
    assert "has_more" not in whole
    ids = [entry["id"] for entry in whole["data"]]
    assert ids == [f"m{number:05}" for number in range(200)]
    monkeypatch.setattr(openai, "LIST_LIMIT", 10_000)
    some = listing(table_of(*models))
    assert some["has_more"] is True
    assert [entry["id"] for entry in some["data"]] == ids[: len(some["data"])]
    assert 100 < len(some["data"]) < 200


def test_only_what_is_served_is_listed() -> None:
    found = listing(
        table_of(
            served(1),
            served(2, enabled=False),
            served(3, problem=("Duplicate", "an older one")),
            model_deployment("new", model="new"),
            model_deployment("x", model="x", environment="dev", traffic={"x-1": 100}, created=""),
        )
    )
    assert found == {
        "object": "list",
        "data": [
            {"id": "m00001", "object": "model", "created": 1735689600, "owned_by": "demo"},
            {"id": "x@dev", "object": "model", "created": 0, "owned_by": "demo"},
        ],
    }
