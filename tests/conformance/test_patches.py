"""JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, DEPLOYMENTS, ApiError, HttpClient, Json, Resource

from .objects import config_map, deployment, widget

JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


async def _patch(client: HttpClient, path: str, body: Any, content_type: str) -> Json:
    response = await client.request("PATCH", path, body=body, content_type=content_type)
    found: Json = await response.json()
    return found


async def test_a_merge_patch_sets_and_removes(client: HttpClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1", b="2"), namespace)
    patched = await client.merge_patch(
        CONFIG_MAPS, "one", {"data": {"a": None, "c": "3"}}, namespace
    )
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_a_json_patch_tests_adds_and_removes(client: HttpClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    path = CONFIG_MAPS.path(namespace, "one")
    patch = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "add", "path": "/data/b", "value": "2"},
        {"op": "remove", "path": "/data/a"},
    ]
    assert (await _patch(client, path, patch, JSON_PATCH))["data"] == {"b": "2"}
    with pytest.raises(ApiError) as caught:
        await _patch(client, path, patch, JSON_PATCH)
    assert caught.value.status == 422


async def test_a_strategic_merge_patch_merges_lists_by_key(
    client: HttpClient, namespace: str
) -> None:
    await client.create(DEPLOYMENTS, deployment("web"), namespace)
    path = DEPLOYMENTS.path(namespace, "web")
    containers = [{"name": "main", "env": [{"name": "B", "value": "2"}]}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    patched = await _patch(client, path, patch, STRATEGIC)
    container = patched["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example.com/none:1"
    assert {e["name"]: e["value"] for e in container["env"]} == {"A": "1", "B": "2"}
    containers[0]["env"] = [{"name": "A", "$patch": "delete"}]  # type: ignore[list-item]
    patched = await _patch(client, path, patch, STRATEGIC)
    container = patched["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "B", "value": "2"}]


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ("AB", "C", "CAB"),
        ("AB", "BC", "ABC"),
        ("ABC", "BD", "ABDC"),
        ("ABC", "DB", "DABC"),
        ("ABCD", "DEA", "BCDEA"),
        ("ABC", "XCY", "XABCY"),
        ("AB", "BA", "BA"),
    ],
)
async def test_a_strategic_merge_patch_puts_items_where_kubernetes_puts_them(
    client: HttpClient, namespace: str, before: str, patch: str, after: str
) -> None:
    body = deployment("web")
    main = body["spec"]["template"]["spec"]["containers"][0]
    main["env"] = [{"name": name, "value": "1"} for name in before]
    await client.create(DEPLOYMENTS, body, namespace)
    env = [{"name": name, "value": "1"} for name in patch]
    change = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": env}]}}}}
    found = await _patch(client, DEPLOYMENTS.path(namespace, "web"), change, STRATEGIC)
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert "".join(variable["name"] for variable in container["env"]) == after


async def test_a_strategic_merge_patch_can_replace(client: HttpClient, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment("web"), namespace)
    patch = {"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}
    patched = await _patch(client, DEPLOYMENTS.path(namespace, "web"), patch, STRATEGIC)
    assert patched["spec"]["strategy"] == {"type": "Recreate"}


async def test_what_a_strategic_merge_patch_deletes_goes_first(
    client: HttpClient, namespace: str
) -> None:
    body = deployment("web")
    pod = body["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "v", "emptyDir": {"medium": "Memory"}}]
    await client.create(DEPLOYMENTS, body, namespace)
    volumes = [{"name": "v", "configMap": {"name": "c"}}, {"name": "v", "$patch": "delete"}]
    patch = {"spec": {"template": {"spec": {"volumes": volumes}}}}
    patched = await _patch(client, DEPLOYMENTS.path(namespace, "web"), patch, STRATEGIC)
    (volume,) = patched["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == "c"
    assert "emptyDir" not in volume


async def test_a_directive_for_what_is_not_there_is_forgotten_and_one_to_merge_refused(
    client: HttpClient, namespace: str
) -> None:
    await client.create(DEPLOYMENTS, deployment("web"), namespace)
    path = DEPLOYMENTS.path(namespace, "web")
    selector = {"$patch": "replace", "disk": "ssd"}
    patch = {"spec": {"template": {"spec": {"nodeSelector": selector}}}}
    patched = await _patch(client, path, patch, STRATEGIC)
    assert not patched["spec"]["template"]["spec"].get("nodeSelector")
    with pytest.raises(ApiError) as caught:
        await _patch(client, path, {"spec": {"strategy": {"$patch": "merge"}}}, STRATEGIC)
    assert "unknown patch type: merge in map" in caught.value.message
    assert caught.value.status == 500


async def test_custom_resources_have_no_strategic_merge_patch(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace))
    with pytest.raises(ApiError) as caught:
        await _patch(client, widgets.path(namespace, "one"), {}, STRATEGIC)
    assert (caught.value.status, caught.value.reason) == (415, "UnsupportedMediaType")


async def test_a_patch_of_an_old_version_conflicts(client: HttpClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    await client.merge_patch(CONFIG_MAPS, "one", {"data": {"a": "2"}}, namespace)
    version = made["metadata"]["resourceVersion"]
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(
            CONFIG_MAPS,
            "one",
            {"metadata": {"resourceVersion": version}, "data": {"a": "3"}},
            namespace,
        )
    assert caught.value.conflict
