"""How clients find out what is served."""

from __future__ import annotations

import pytest

from beamlit_operator.kube import ApiError, HttpClient, Json, Resource


async def _get(client: HttpClient, path: str, accept: str = "application/json") -> Json:
    request = await client._api.param_serialize(
        "GET", path, header_params={"Accept": accept}, auth_settings=["BearerToken"]
    )
    answer = await client._api.call_api(*request)
    assert answer.response.status == 200
    found: Json = await answer.response.json(content_type=None)
    return found


async def test_the_version_has_major_and_minor(client: HttpClient) -> None:
    found = await _get(client, "/version")
    assert found["major"] == "1"
    assert found["gitVersion"].startswith(f"v1.{found['minor'].rstrip('+')}")


async def test_plain_discovery_lists_resources_with_their_traits(
    client: HttpClient, widgets: Resource
) -> None:
    groups = await _get(client, "/apis")
    group = next(g for g in groups["groups"] if g["name"] == "conformance.beamlit.com")
    assert group["preferredVersion"]["version"] == "v1"
    assert [v["version"] for v in group["versions"]] == ["v1", "v1beta1"]
    found = await _get(client, "/apis/conformance.beamlit.com/v1")
    resources = {r["name"]: r for r in found["resources"]}
    assert resources["widgets"]["shortNames"] == ["wdg"]
    assert resources["widgets"]["categories"] == ["conformance"]
    assert resources["widgets"]["namespaced"] is True
    assert {"get", "list", "watch", "patch"} <= set(resources["widgets"]["verbs"])
    assert resources["widgets/scale"]["kind"] == "Scale"
    assert "widgets/status" in resources
    core = await _get(client, "/api/v1")
    assert {"pods", "pods/log", "namespaces"} <= {r["name"] for r in core["resources"]}


async def test_aggregated_discovery_has_everything_in_two_requests(
    client: HttpClient, widgets: Resource
) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    core = await _get(client, "/api", accept)
    assert core["kind"] == "APIGroupDiscoveryList"
    rest = await _get(client, "/apis", accept)
    groups = {g["metadata"]["name"]: g for g in rest["items"]}
    versions = groups["conformance.beamlit.com"]["versions"]
    resource = next(r for r in versions[0]["resources"] if r["resource"] == "widgets")
    assert resource["responseKind"]["kind"] == "Widget"
    assert resource["scope"] == "Namespaced"
    assert {s["subresource"] for s in resource["subresources"]} == {"scale", "status"}


async def test_openapi_describes_custom_and_built_in_types(
    client: HttpClient, widgets: Resource
) -> None:
    index = await _get(client, "/openapi/v3")
    assert {"api/v1", "apis/apps/v1"} <= set(index["paths"])
    url = index["paths"]["apis/conformance.beamlit.com/v1"]["serverRelativeURL"]
    document = await _get(client, url)
    schema = next(
        s
        for s in document["components"]["schemas"].values()
        if any(k["kind"] == "Widget" for k in s.get("x-kubernetes-group-version-kind", []))
    )
    assert schema["properties"]["spec"]["properties"]["size"]["description"] == "How large it is."


async def test_a_path_that_is_not_served_is_not_found(client: HttpClient) -> None:
    for path in ("/apis/nobody.example.com/v1", "/api/v1/nothings", "/nowhere"):
        with pytest.raises(ApiError) as caught:
            await client.request("GET", path)
        assert caught.value.status == 404


async def test_tables_have_the_printer_columns(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    from .objects import widget

    await client.create(widgets, widget("one", namespace, size=42))
    accept = "application/json;as=Table;g=meta.k8s.io;v=v1"
    found = await _get(client, widgets.path(namespace), accept)
    assert found["kind"] == "Table"
    assert [c["name"] for c in found["columnDefinitions"]] == ["Name", "Size", "Age"]
    (row,) = found["rows"]
    assert row["cells"][:2] == ["one", 42]
    assert row["object"]["kind"] == "PartialObjectMetadata"


async def test_whoever_can_log_in_may_ask_what_they_may_do(client: HttpClient) -> None:
    attributes = {"namespace": "default", "verb": "get", "resource": "pods"}
    response = await client.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={"spec": {"resourceAttributes": attributes}},
    )
    assert (await response.json())["status"]["allowed"] is True
