"""What a CustomResourceDefinition promises about its objects."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    ApiError,
    HttpClient,
    Json,
    Resource,
)

from .conftest import widget_definition
from .objects import widget


async def test_defaults_are_filled_in(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    made = await client.create(widgets, widget("one", namespace, parts=[{"name": "a"}]))
    assert made["spec"]["color"] == "red"
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["parts"] == [{"name": "a", "count": 7}]


async def test_unknown_fields_are_pruned_but_not_where_they_are_preserved(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    body = widget("one", namespace, bogus=1, free={"any": {"thing": [1]}}, labels={"k": "v"})
    made = await client.create(widgets, body)
    assert "bogus" not in made["spec"]
    assert made["spec"]["free"] == {"any": {"thing": [1]}}
    assert made["spec"]["labels"] == {"k": "v"}


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"size": 0}, "spec.size", "FieldValueInvalid"),
        ({"size": "x"}, "spec.size", "FieldValueTypeInvalid"),
        ({"size": None}, "spec.size", None),
        ({"color": "blue"}, "spec.color", "FieldValueNotSupported"),
        ({"name": "x" * 11}, "spec.name", "FieldValueTooLong"),
        ({"parts": [{}]}, "spec.parts[0].name", "FieldValueRequired"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]", "FieldValueDuplicate"),
        ({"tags": ["a", "a"]}, None, "FieldValueDuplicate"),
        ({"port": []}, "spec.port", "FieldValueTypeInvalid"),
        ({"labels": {"k": 1}}, None, "FieldValueTypeInvalid"),
        ({"size": 200}, "spec", "FieldValueInvalid"),
    ],
)
async def test_a_value_that_breaks_the_schema_is_refused_by_field(
    client: HttpClient,
    namespace: str,
    widgets: Resource,
    spec: Json,
    field: str | None,
    reason: str | None,
) -> None:
    with pytest.raises(ApiError) as caught:
        await client.create(widgets, widget("one", namespace, **spec))
    error = caught.value
    assert (error.status, error.reason) == (422, "Invalid")
    causes = [(c["field"], c["reason"]) for c in error.details["causes"]]
    assert any(
        (field is None or f == field) and (reason is None or r == reason) for f, r in causes
    ), error.details


@pytest.mark.parametrize("port", [80, "http"])
async def test_int_or_string_takes_both(
    client: HttpClient, namespace: str, widgets: Resource, port: Any
) -> None:
    made = await client.create(widgets, widget("one", namespace, port=port))
    assert made["spec"]["port"] == port


async def test_a_nullable_field_keeps_null(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    made = await client.create(widgets, widget("one", namespace, note=None))
    assert made["spec"]["note"] is None


async def test_rules_speak_with_their_messages(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    with pytest.raises(ApiError) as caught:
        await client.create(widgets, widget("one", namespace, size=200))
    assert "large ones must be big" in caught.value.message
    with pytest.raises(ApiError) as caught:
        await client.create(widgets, widget("one", namespace, name="Ann"))
    assert "name Ann must be lower case" in caught.value.message
    await client.create(widgets, widget("one", namespace, size=200, big=True))


async def test_transition_rules_hold_on_update_only(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace, color="green"))
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(widgets, "one", {"spec": {"color": "red"}}, namespace)
    (cause,) = caught.value.details["causes"]
    assert cause["field"] == "spec.color"
    assert cause["reason"] == "FieldValueForbidden"
    assert "color is immutable" in cause["message"]


async def test_status_and_spec_are_isolated(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    body = widget("one", namespace)
    body["status"] = {"message": "too early"}
    made = await client.create(widgets, body)
    assert "status" not in made
    made["spec"]["size"] = 5
    made["status"] = {"message": "now"}
    done = await client.update(widgets, made, subresource="status")
    assert (done["spec"]["size"], done["status"]) == (1, {"message": "now"})
    assert done["metadata"]["generation"] == 1
    done["spec"]["size"] = 6
    done["status"] = {"message": "later"}
    done = await client.update(widgets, done)
    assert (done["spec"]["size"], done["status"]) == (6, {"message": "now"})
    assert done["metadata"]["generation"] == 2


async def test_the_scale_subresource_reads_and_writes_replicas(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace, replicas=2))
    await client.merge_patch(
        widgets,
        "one",
        {"status": {"replicas": 1, "selector": "app=one"}},
        namespace,
        subresource="status",
    )
    scale = await client.get(widgets, "one", namespace, subresource="scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 1, "selector": "app=one"}
    scale["spec"]["replicas"] = 5
    await client.update(widgets, scale, subresource="scale")
    item = await client.get(widgets, "one", namespace)
    assert item["spec"]["replicas"] == 5
    assert item["metadata"]["generation"] == 2


async def test_every_served_version_shows_the_same_object(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace, size=3))
    beta = Resource(widgets.group, "v1beta1", widgets.plural, widgets.kind)
    found = await client.get(beta, "one", namespace)
    assert found["apiVersion"] == "conformance.beamlit.com/v1beta1"
    assert found["spec"]["size"] == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "string"}, "type"),
        ({"properties": {"a": {}}}, "properties[a].type"),
        ({"properties": {"a": {"type": "array"}}}, "items"),
        (
            {"x-kubernetes-validations": [{"rule": "self.size >"}]},
            "x-kubernetes-validations[0].rule",
        ),
    ],
)
async def test_a_definition_that_is_not_structural_is_refused(
    client: HttpClient, change: Json, field: str
) -> None:
    body = widget_definition()
    body["metadata"]["name"] = "gadgets.conformance.beamlit.com"
    body["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    body["spec"]["versions"] = body["spec"]["versions"][:1]
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema.pop("properties")
    schema.update(change)
    with pytest.raises(ApiError) as caught:
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, body)
    assert caught.value.status == 422
    assert any(c["field"].endswith(field) for c in caught.value.details["causes"])


async def test_deleting_a_definition_deletes_its_objects(
    client: HttpClient, namespace: str, eventually: Any
) -> None:
    body = widget_definition()
    body["metadata"]["name"] = "gadgets.conformance.beamlit.com"
    body["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    from .conftest import install

    await install(client, body)
    gadgets = Resource("conformance.beamlit.com", "v1", "gadgets", "Gadget")
    item = {**widget("one", namespace), "kind": "Gadget"}
    await client.create(gadgets, item)
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, body["metadata"]["name"])

    async def gone() -> bool:
        try:
            await client.get(CUSTOM_RESOURCE_DEFINITIONS, body["metadata"]["name"])
        except ApiError as error:
            return error.not_found
        return False

    await eventually(gone)
    with pytest.raises(ApiError) as caught:
        await client.get(gadgets, "one", namespace)
    assert caught.value.not_found
