"""Server-side apply: who owns what, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, DEPLOYMENTS, ApiError, HttpClient, Json, Resource

from .objects import config_map, deployment, widget


def _entries(item: Json, manager: str) -> list[Json]:
    return [e for e in item["metadata"]["managedFields"] if e["manager"] == manager]


def _map(namespace: str, **data: str) -> Json:
    body = config_map("one", **data)
    body["metadata"]["namespace"] = namespace
    return body


async def test_apply_creates_and_records_the_owner(client: HttpClient, namespace: str) -> None:
    made = await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    (entry,) = _entries(made, "alice")
    assert entry["operation"] == "Apply"
    assert entry["apiVersion"] == "v1"
    assert entry["fieldsType"] == "FieldsV1"
    assert entry["fieldsV1"] == {"f:data": {"f:a": {}}}


async def test_applying_the_same_again_writes_nothing(client: HttpClient, namespace: str) -> None:
    first = await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    again = await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    assert first == again


async def test_a_field_that_is_no_longer_applied_is_removed(
    client: HttpClient, namespace: str
) -> None:
    await client.apply(CONFIG_MAPS, _map(namespace, a="1", b="2"), field_manager="alice")
    left = await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    assert left["data"] == {"a": "1"}


async def test_a_shared_field_stays_until_its_last_owner_lets_go(
    client: HttpClient, namespace: str
) -> None:
    await client.apply(CONFIG_MAPS, _map(namespace, a="1", b="2"), field_manager="alice")
    await client.apply(CONFIG_MAPS, _map(namespace, b="2"), field_manager="bob")
    left = await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    assert left["data"] == {"a": "1", "b": "2"}
    left = await client.apply(CONFIG_MAPS, _map(namespace), field_manager="bob")
    assert left["data"] == {"a": "1"}


async def test_a_field_of_somebody_else_is_a_conflict_unless_forced(
    client: HttpClient, namespace: str
) -> None:
    await client.apply(CONFIG_MAPS, _map(namespace, a="1"), field_manager="alice")
    with pytest.raises(ApiError) as caught:
        await client.apply(CONFIG_MAPS, _map(namespace, a="2"), field_manager="bob", force=False)
    error = caught.value
    assert (error.status, error.reason) == (409, "Conflict")
    (cause,) = error.details["causes"]
    assert cause["reason"] == "FieldManagerConflict"
    assert cause["field"] == ".data.a"
    assert 'conflict with "alice"' in cause["message"]
    taken = await client.apply(CONFIG_MAPS, _map(namespace, a="2"), field_manager="bob")
    assert taken["data"] == {"a": "2"}
    assert _entries(taken, "bob")
    assert not any("f:data" in e["fieldsV1"] for e in _entries(taken, "alice"))


async def test_an_update_takes_ownership_of_what_it_changes(
    client: HttpClient, namespace: str
) -> None:
    await client.apply(CONFIG_MAPS, _map(namespace, a="1", b="2"), field_manager="alice")
    response = await client.request(
        "PATCH",
        CONFIG_MAPS.path(namespace, "one"),
        query={"fieldManager": "editor"},
        body={"data": {"a": "9"}},
        content_type="application/merge-patch+json",
    )
    item = await response.json()
    (entry,) = _entries(item, "editor")
    assert entry["operation"] == "Update"
    assert entry["fieldsV1"] == {"f:data": {"f:a": {}}}
    assert _entries(item, "alice")[0]["fieldsV1"] == {"f:data": {"f:b": {}}}


async def test_list_maps_are_merged_by_key(client: HttpClient, namespace: str) -> None:
    body = deployment("web", namespace)
    await client.apply(DEPLOYMENTS, body, field_manager="alice")
    side: Json = {"name": "side", "image": "example.com/side:1"}
    other: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [side]}}},
    }
    both = await client.apply(DEPLOYMENTS, other, field_manager="bob")
    names = [c["name"] for c in both["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["main", "side"]
    other["spec"] = {"minReadySeconds": 1}
    one = await client.apply(DEPLOYMENTS, other, field_manager="bob")
    assert [c["name"] for c in one["spec"]["template"]["spec"]["containers"]] == ["main"]


async def test_ports_are_told_apart_by_number_and_protocol(
    client: HttpClient, namespace: str
) -> None:
    body = deployment("web", namespace)
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["ports"] = [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]
    made = await client.apply(DEPLOYMENTS, body, field_manager="alice")
    ports = made["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [p["protocol"] for p in ports] == ["TCP", "UDP"]
    assert await client.apply(DEPLOYMENTS, body, field_manager="alice") == made


async def test_replicas_that_are_not_applied_stay_as_others_set_them(
    client: HttpClient, namespace: str
) -> None:
    body = deployment("web", namespace)
    await client.apply(DEPLOYMENTS, body, field_manager="alice")
    await client.merge_patch(
        DEPLOYMENTS, "web", {"spec": {"replicas": 4}}, namespace, subresource="scale"
    )
    del body["spec"]["replicas"]
    left = await client.apply(DEPLOYMENTS, body, field_manager="alice")
    assert left["spec"]["replicas"] == 4
    entries = [e for e in left["metadata"]["managedFields"] if e.get("subresource") == "scale"]
    assert [e["fieldsV1"] for e in entries] == [{"f:spec": {"f:replicas": {}}}]


async def test_sets_are_shared_and_atomic_lists_replaced(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    def spec(**fields: Any) -> Json:
        return widget("one", namespace, **fields)

    await client.apply(widgets, spec(tags=["a", "b"], args=["x", "y"]), field_manager="alice")
    both = await client.apply(widgets, spec(tags=["c"]), field_manager="bob")
    assert sorted(both["spec"]["tags"]) == ["a", "b", "c"]
    less = await client.apply(widgets, spec(tags=["b"], args=["z"]), field_manager="alice")
    assert sorted(less["spec"]["tags"]) == ["b", "c"]
    assert less["spec"]["args"] == ["z"]


async def test_status_and_spec_have_separate_owners(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    body = widget("one", namespace)
    await client.apply(widgets, body, field_manager="alice")
    status = {**body, "status": {"message": "fine"}}
    status.pop("spec")
    done = await client.apply(widgets, status, field_manager="bob", subresource="status")
    assert done["status"] == {"message": "fine"}
    (entry,) = _entries(done, "bob")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {"f:message": {}}}
    again = await client.apply(widgets, body, field_manager="alice")
    assert again["status"] == {"message": "fine"}
    assert again["metadata"]["generation"] == 1


async def test_dry_run_apply_stores_nothing(client: HttpClient, namespace: str) -> None:
    response = await client.request(
        "PATCH",
        CONFIG_MAPS.path(namespace, "one"),
        query={"fieldManager": "alice", "dryRun": "All"},
        body=_map(namespace, a="1"),
        content_type="application/apply-patch+yaml",
    )
    assert (await response.json())["data"] == {"a": "1"}
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "one", namespace)
    assert caught.value.not_found


async def test_apply_needs_a_field_manager(client: HttpClient, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await client.request(
            "PATCH",
            CONFIG_MAPS.path(namespace, "one"),
            body=_map(namespace),
            content_type="application/apply-patch+yaml",
        )
    assert caught.value.status in (400, 422)
