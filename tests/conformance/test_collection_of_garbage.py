"""Owners and dependents, and the end of namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, NAMESPACES, ApiError, HttpClient, Json

from .objects import config_map


def _owned_by(owner: Json, name: str, *, blocking: bool = False) -> Json:
    body = config_map(name)
    body["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocking,
        }
    ]
    return body


async def _names(client: HttpClient, namespace: str) -> set[str]:
    found = await client.list(CONFIG_MAPS, namespace)
    return {i["metadata"]["name"] for i in found.items} - {"kube-root-ca.crt"}


async def test_dependents_go_after_their_owner_in_the_background(
    client: HttpClient, namespace: str, eventually: Any
) -> None:
    owner = await client.create(CONFIG_MAPS, config_map("owner"), namespace)
    child = await client.create(CONFIG_MAPS, _owned_by(owner, "child"), namespace)
    await client.create(CONFIG_MAPS, _owned_by(child, "grandchild"), namespace)
    await client.delete(CONFIG_MAPS, "owner", namespace, propagation="Background")

    async def empty() -> bool:
        return not await _names(client, namespace)

    await eventually(empty)


async def test_in_the_foreground_the_owner_goes_last(
    client: HttpClient, namespace: str, eventually: Any
) -> None:
    owner = await client.create(CONFIG_MAPS, config_map("owner"), namespace)
    body = _owned_by(owner, "child", blocking=True)
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(CONFIG_MAPS, body, namespace)
    await client.delete(CONFIG_MAPS, "owner", namespace, propagation="Foreground")

    async def child_is_going() -> bool:
        child = await client.get(CONFIG_MAPS, "child", namespace)
        return "deletionTimestamp" in child["metadata"]

    await eventually(child_is_going)
    held = await client.get(CONFIG_MAPS, "owner", namespace)
    assert held["metadata"]["finalizers"] == ["foregroundDeletion"]
    await client.merge_patch(CONFIG_MAPS, "child", {"metadata": {"finalizers": None}}, namespace)

    async def empty() -> bool:
        return not await _names(client, namespace)

    await eventually(empty)


async def test_orphans_stay_and_lose_the_reference(
    client: HttpClient, namespace: str, eventually: Any
) -> None:
    owner = await client.create(CONFIG_MAPS, config_map("owner"), namespace)
    await client.create(CONFIG_MAPS, _owned_by(owner, "child"), namespace)
    await client.delete(CONFIG_MAPS, "owner", namespace, propagation="Orphan")

    async def only_the_child() -> bool:
        return await _names(client, namespace) == {"child"}

    await eventually(only_the_child)
    child = await client.get(CONFIG_MAPS, "child", namespace)
    assert not child["metadata"].get("ownerReferences")


async def test_an_object_whose_owner_never_was_is_collected(
    client: HttpClient, namespace: str, eventually: Any
) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    await client.create(CONFIG_MAPS, _owned_by(ghost, "child"), namespace)

    async def empty() -> bool:
        return not await _names(client, namespace)

    await eventually(empty)


async def test_a_deleted_namespace_takes_its_contents_along(
    client: HttpClient, eventually: Any
) -> None:
    made = await client.create(NAMESPACES, {"metadata": {"generateName": "conformance-"}})
    name = made["metadata"]["name"]
    body = config_map("held")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(CONFIG_MAPS, body, name)
    await client.create(CONFIG_MAPS, config_map("free"), name)
    await client.delete(NAMESPACES, name)

    async def only_the_held() -> bool:
        return await _names(client, name) == {"held"}

    await eventually(only_the_held)
    home = await client.get(NAMESPACES, name)
    assert home["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, config_map("late"), name)
    assert caught.value.status == 403
    assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    await client.merge_patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, name)

    async def gone() -> bool:
        try:
            await client.get(NAMESPACES, name)
        except ApiError as error:
            return error.not_found
        return False

    await eventually(gone)
