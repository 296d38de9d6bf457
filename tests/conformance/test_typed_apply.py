"""Server-side apply fits the schema or is refused: it is never pruned, and null is no absence."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import DEPLOYMENTS, ApiError, HttpClient, Json, Resource

from .objects import config_map, deployment, widget
from .wire import APPLY, MERGE, ask


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"x": 1}, ".spec.x: field not declared in schema"),
        ({"parts": [{"name": "a", "x": 1}]}, '.spec.parts[name="a"].x: field not declared'),
        ({"size": "q"}, ".spec.size: expected numeric (int or float), got string"),
        ({"big": "q"}, ".spec.big: expected boolean, got &{q}"),
        ({"color": 3}, ".spec.color: expected string, got &value.valueUnstructured{Value:3}"),
        ({"parts": {}}, ".spec.parts: expected list, got &{map[]}"),
        ({"labels": []}, ".spec.labels: expected map, got &{[]}"),
        ({"labels": {"a": 1}}, ".spec.labels.a: expected string, got"),
        ({"args": [1]}, ".spec.args[0]: expected string, got"),
        (
            {"parts": [{"name": "a"}, {"name": "a"}]},
            '.spec.parts: duplicate entries for key [name="a"]',
        ),
        ({"tags": ["a", "a"]}, '.spec.tags: duplicate entries for key [="a"]'),
        ({"parts": [{"count": 1}]}, 'an element that omits all key fields ["name"]'),
    ],
)
async def test_what_cannot_be_typed_is_refused(
    client: HttpClient, namespace: str, widgets: Resource, spec: Json, problem: str
) -> None:
    path = widgets.path(namespace, "one") + "?fieldManager=me"
    for fresh in (True, False):
        answer = await ask(client, "PATCH", path, widget("one", namespace, **spec), kind=APPLY)
        assert answer.status == 500, answer.message
        assert answer.message.startswith(
            f"failed to create typed patch object ({namespace}/one; "
            "conformance.beamlit.com/v1, Kind=Widget): "
        )
        assert problem in answer.message
        if fresh:
            await client.create(widgets, widget("one", namespace))


async def test_an_undeclared_field_of_the_status_is_refused(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace))
    body = {**widget("one", namespace), "status": {"x": 1}}
    path = widgets.path(namespace, "one") + "/status?fieldManager=me"
    answer = await ask(client, "PATCH", path, body, kind=APPLY)
    assert answer.status == 500
    assert ".status.x: field not declared in schema" in answer.message


async def test_an_undeclared_field_of_a_built_in_type_is_refused(
    client: HttpClient, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/one?fieldManager=me"
    body = {**config_map("one"), "nope": 1}
    answer = await ask(client, "PATCH", path, body, kind=APPLY)
    assert answer.status == 500
    assert answer.message == (
        "failed to create typed patch object (/one; /v1, Kind=ConfigMap): "
        ".nope: field not declared in schema"
    )


@pytest.mark.parametrize(
    ("env", "status", "text"),
    [
        ([{"name": "A"}, {"name": "A"}], 500, 'env: duplicate entries for key [name="A"]'),
        ([{"value": "x"}], 422, "spec.template.spec.containers[0].env[0].name: Required value"),
        ("x", 500, '.spec.template.spec.containers[name="main"].env: expected list, got &{x}'),
    ],
)
async def test_keyed_lists_of_built_in_types_need_their_keys_once(
    client: HttpClient, namespace: str, env: Any, status: int, text: str
) -> None:
    body = deployment("web", namespace)
    body["spec"]["template"]["spec"]["containers"][0]["env"] = env
    path = DEPLOYMENTS.path(namespace, "web") + "?fieldManager=me"
    answer = await ask(client, "PATCH", path, body, kind=APPLY)
    assert answer.status == status
    assert text in answer.message


async def test_an_applied_null_is_not_absent(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    path = widgets.path(namespace, "one") + "?fieldManager=me"
    answer = await ask(client, "PATCH", path, widget("one", namespace, big=None), kind=APPLY)
    assert answer.status == 422
    assert ("spec.big", "FieldValueTypeInvalid") in answer.causes


@pytest.mark.parametrize(
    ("who", "subresource", "text"),
    [("Apply", "", 'conflict with "one": '), ("Update", "", 'conflict with "one" using v1: ')],
)
async def test_a_conflict_names_an_updater_with_its_version_and_an_applier_without(
    client: HttpClient, namespace: str, who: str, subresource: str, text: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    mine, theirs = config_map("c", a="1"), config_map("c", a="2")
    if who == "Apply":
        await ask(client, "PATCH", f"{path}/c?fieldManager=one", mine, kind=APPLY)
    else:
        await ask(client, "POST", f"{path}?fieldManager=one", mine)
    answer = await ask(client, "PATCH", f"{path}/c?fieldManager=two", theirs, kind=APPLY)
    assert answer.status == 409
    assert answer.message == f"Apply failed with 1 conflict: {text}.data.a"


async def test_several_conflicts_are_listed_by_manager(client: HttpClient, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/c"
    await ask(
        client, "PATCH", f"{path}?fieldManager=one", config_map("c", a="1", b="1"), kind=APPLY
    )
    body = config_map("c", a="2", b="2")
    answer = await ask(client, "PATCH", f"{path}?fieldManager=two", body, kind=APPLY)
    assert answer.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    )


async def test_who_scales_a_custom_resource_owns_the_number_through_the_subresource(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace))
    path = widgets.path(namespace, "one") + "/scale?fieldManager=hpa"
    await ask(client, "PATCH", path, {"spec": {"replicas": 3}}, kind=MERGE)
    found = await client.get(widgets, "one", namespace)
    (entry,) = [e for e in found["metadata"]["managedFields"] if e["manager"] == "hpa"]
    assert (entry["subresource"], entry["operation"]) == ("scale", "Update")
    assert entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    body = widget("one", namespace, replicas=5)
    with pytest.raises(ApiError) as caught:
        await client.apply(widgets, body, field_manager="op", force=False)
    assert 'conflict with "hpa" with subresource "scale" using' in caught.value.message
