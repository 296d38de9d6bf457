"""Bodies of custom resources: what null means, whose kind it is, which version is replaced."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    LEASES,
    HttpClient,
    Json,
    Resource,
)

from .conftest import widget_definition
from .objects import config_map, widget
from .wire import APPLY, MERGE, ask


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"big": None}, {}),
        ({"args": None, "parts": None, "port": 1}, {"port": 1}),
        ({"labels": {"k": None}}, {"labels": {}}),
        ({"replicas": None, "color": None}, {}),
        ({"note": None}, {"note": None}),
        ({"free": {"x": 80.0}}, {"free": {"x": 80}}),
        ({"free": {"x": None}}, {"free": {"x": None}}),
        ({"parts": [{"name": "a", "count": None}]}, {"parts": [{"name": "a", "count": 7}]}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_null_is_absent_where_a_field_is_not_nullable(
    client: HttpClient,
    namespace: str,
    widgets: Resource,
    method: str,
    given: Json,
    stored: Json,
) -> None:
    path, body = widgets.path(namespace), widget("one", namespace, **given)
    if method == "PUT":
        made = await client.create(widgets, widget("one", namespace))
        body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        path += "/one"
    answer = await ask(client, method, path, body)
    assert answer.status in (200, 201), answer.message
    defaults = {"size": 1, "color": "red", "replicas": 1}
    assert answer.body["spec"] == {**defaults, **stored}
    assert "80.0" not in answer.text


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"size": None}, ("spec.size", "FieldValueRequired")),
        ({"parts": [{"name": None}]}, ("spec.parts[0].name", "FieldValueRequired")),
        ({"tags": [None]}, ("spec.tags[0]", "FieldValueTypeInvalid")),
        ({"parts": [None]}, ("spec.parts[0]", "FieldValueTypeInvalid")),
    ],
)
async def test_null_is_no_value_for_what_is_required_and_no_item_of_a_list(
    client: HttpClient, namespace: str, widgets: Resource, given: Json, cause: tuple[str, str]
) -> None:
    answer = await ask(client, "POST", widgets.path(namespace), widget("one", namespace, **given))
    assert answer.status == 422
    assert cause in answer.causes
    # The rules were not evaluated on an object like this.
    assert ("<nil>", "FieldValueInvalid") in answer.causes
    assert "some validation rules were not checked" in answer.message


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"kind": "Gadget"}, 422, 'kind: Invalid value: "Gadget": must be Widget'),
        ({"apiVersion": "foo/v1"}, 400, "does not match the expected API version"),
        ({"kind": None}, 400, "Object 'Kind' is missing"),
    ],
)
async def test_a_custom_resource_is_of_its_kind(
    client: HttpClient, namespace: str, widgets: Resource, change: Json, status: int, text: str
) -> None:
    body = {k: v for k, v in {**widget("one", namespace), **change}.items() if v is not None}
    answer = await ask(client, "POST", widgets.path(namespace), body)
    assert answer.status == status
    assert text in answer.message


async def test_a_put_of_a_custom_resource_names_the_version_it_replaces(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace))
    path = widgets.path(namespace, "one")
    answer = await ask(client, "PUT", path, widget("one", namespace))
    assert answer.status == 422
    assert answer.message == (
        'widgets.conformance.beamlit.com "one" is invalid: metadata.resourceVersion: '
        "Invalid value: 0: must be specified for an update"
    )


@pytest.mark.parametrize("resource", [LEASES, CUSTOM_RESOURCE_DEFINITIONS])
async def test_some_built_in_types_want_the_version_too(
    client: HttpClient, namespace: str, widgets: Resource, resource: Resource
) -> None:
    body: Json = widget_definition()
    where: str | None = None
    if resource is LEASES:
        where = namespace
        body = {"metadata": {"name": "one"}, "spec": {}}
        await client.create(LEASES, body, namespace)
    answer = await ask(client, "PUT", resource.path(where, body["metadata"]["name"]), body)
    assert answer.status == 422
    assert answer.causes == [("metadata.resourceVersion", "FieldValueInvalid")]


async def test_a_put_of_another_object_is_a_conflict(client: HttpClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    body = config_map("one")
    body["metadata"]["uid"] = "other"
    answer = await ask(client, "PUT", CONFIG_MAPS.path(namespace, "one"), body)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert "UID in precondition: other" in answer.message
    patch = {"metadata": {"uid": "other"}}
    answer = await ask(client, "PATCH", CONFIG_MAPS.path(namespace, "one"), patch, kind=MERGE)
    assert answer.status == 422


async def test_a_new_object_has_no_version_yet(client: HttpClient, namespace: str) -> None:
    body = config_map("one")
    body["metadata"]["resourceVersion"] = "1"
    answer = await ask(client, "POST", CONFIG_MAPS.path(namespace), body)
    assert answer.status == 500
    assert answer.message == "resourceVersion should not be set on objects to be created"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"size": 200}, "spec: Invalid value: large ones must be big"),
        ({"name": "a_b"}, 'spec.name: Invalid value: "a_b": write it without underscores'),
        ({"color": ""}, 'spec.color: Unsupported value: "": supported values: "red", "green"'),
        ({"tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        ({"port": []}, 'spec.port in body must be of type integer,string: "array"'),
    ],
)
async def test_a_refusal_says_what_is_wrong_in_kubernetes_words(
    client: HttpClient, namespace: str, widgets: Resource, spec: Any, message: str
) -> None:
    body = widget("one", namespace, **spec)
    answer = await ask(client, "POST", widgets.path(namespace), body)
    assert answer.status == 422
    assert message in answer.message


async def test_a_finalizer_without_a_domain_is_a_warning_or_refused(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    body = widget("one", namespace)
    body["metadata"]["finalizers"] = ["nope"]
    answer = await ask(client, "POST", widgets.path(namespace), body)
    assert answer.status == 201
    assert any("prefer a domain-qualified finalizer name" in w for w in answer.warnings)
    await client.merge_patch(widgets, "one", {"metadata": {"finalizers": []}}, namespace)
    plain = config_map("one")
    plain["metadata"]["finalizers"] = ["nope"]
    answer = await ask(client, "POST", CONFIG_MAPS.path(namespace), plain)
    assert answer.status == 422
    assert answer.causes == [("metadata.finalizers[0]", "FieldValueInvalid")]


@pytest.mark.parametrize(("method", "kind"), [("PUT", "application/json"), ("PATCH", APPLY)])
@pytest.mark.parametrize(
    ("metadata", "text"),
    [({}, "name must be provided"), ({"name": "two"}, "does not match the name on the URL (one)")],
)
async def test_a_body_carries_the_name_in_its_path(
    client: HttpClient, namespace: str, method: str, kind: str, metadata: Json, text: str
) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    path = CONFIG_MAPS.path(namespace, "one") + "?fieldManager=me"
    answer = await ask(client, method, path, body, kind=kind)
    assert answer.status == 400
    assert text in answer.message
