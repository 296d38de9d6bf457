"""Lists in pages and with selectors."""

from __future__ import annotations

import pytest

from beamlit_operator.kube import CONFIG_MAPS, EVENTS, ApiError, HttpClient

from .objects import config_map


async def _make(client: HttpClient, namespace: str, count: int) -> None:
    for number in range(count):
        body = config_map(f"item-{number}")
        body["metadata"]["labels"] = {"number": str(number), "even": str(number % 2 == 0).lower()}
        await client.create(CONFIG_MAPS, body, namespace)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("number=3", [3]),
        ("number==3", [3]),
        ("number!=3,number", [0, 1, 2, 4]),
        ("number in (1, 2)", [1, 2]),
        ("number notin (1,2),number", [0, 3, 4]),
        ("even=true,number notin (0)", [2, 4]),
        ("number,!even", []),
    ],
)
async def test_label_selectors_select(
    client: HttpClient, namespace: str, selector: str, expected: list[int]
) -> None:
    await _make(client, namespace, 5)
    found = await client.list(CONFIG_MAPS, namespace, label_selector=selector)
    assert [i["metadata"]["name"] for i in found.items] == [f"item-{n}" for n in expected]


async def test_field_selectors_select(client: HttpClient, namespace: str) -> None:
    await _make(client, namespace, 3)
    found = await client.list(CONFIG_MAPS, namespace, field_selector="metadata.name=item-1")
    assert [i["metadata"]["name"] for i in found.items] == ["item-1"]
    event = {
        "metadata": {"name": "seen"},
        "involvedObject": {"kind": "ConfigMap", "name": "item-1", "namespace": namespace},
        "reason": "Seen",
        "type": "Normal",
    }
    await client.create(EVENTS, event, namespace)
    selector = "involvedObject.name=item-1,reason=Seen,type!=Warning"
    found = await client.list(EVENTS, namespace, field_selector=selector)
    assert [i["metadata"]["name"] for i in found.items] == ["seen"]


@pytest.mark.parametrize("query", [{"fieldSelector": "data.a=1"}, {"labelSelector": "a in b"}])
async def test_a_bad_selector_is_refused(
    client: HttpClient, namespace: str, query: dict[str, str]
) -> None:
    with pytest.raises(ApiError) as caught:
        await client.request("GET", CONFIG_MAPS.path(namespace), query=query)
    assert (caught.value.status, caught.value.reason) == (400, "BadRequest")


async def test_pages_show_the_list_as_it_was_on_the_first_page(
    client: HttpClient, namespace: str
) -> None:
    await _make(client, namespace, 5)
    path = CONFIG_MAPS.path(namespace)
    query: dict[str, str | int] = {"limit": 2, "labelSelector": "number"}
    names: list[str] = []
    versions: set[str] = set()
    while True:
        page = await (await client.request("GET", path, query=query)).json()
        assert len(page["items"]) <= 2
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue")
        if not token:
            break
        if len(names) == 2:
            late = config_map("item-9")
            late["metadata"]["labels"] = {"number": "9"}
            await client.create(CONFIG_MAPS, late, namespace)
        query["continue"] = token
    assert names == [f"item-{n}" for n in range(5)]
    assert len(versions) == 1


async def test_a_forged_continue_token_is_refused(client: HttpClient, namespace: str) -> None:
    query = {"limit": 1, "continue": "not-a-token"}
    with pytest.raises(ApiError) as caught:
        await client.request("GET", CONFIG_MAPS.path(namespace), query=query)
    assert caught.value.status in (400, 410)


async def test_metadata_only_lists_leave_the_rest_out(client: HttpClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one", secret="x"), namespace)
    request = await client._api.param_serialize(
        "GET",
        CONFIG_MAPS.path(namespace, "one"),
        header_params={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
        auth_settings=["BearerToken"],
    )
    answer = await client._api.call_api(*request)
    found = await answer.response.json()
    assert found["kind"] == "PartialObjectMetadata"
    assert "data" not in found
