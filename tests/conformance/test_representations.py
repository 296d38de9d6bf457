"""Other forms of the same: YAML, the old watch paths, events of both groups, keys given twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    SERVICES,
    HttpClient,
    Json,
    Resource,
)

from .objects import config_map, deployment, widget
from .wire import APPLY, JSON_PATCH, MERGE, ask


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/yaml", "application/yaml"),
        ("application/yaml, application/json", "application/yaml"),
        ("application/json, application/yaml", "application/json"),
        ("*/*", "application/json"),
    ],
)
async def test_answers_come_in_the_form_asked_for(
    client: HttpClient, namespace: str, accept: str, kind: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    for name, status in (("/one", 200), ("?fieldSelector=metadata.name%3Done", 200), ("/no", 404)):
        answer = await ask(client, "GET", CONFIG_MAPS.path(namespace) + name, accept=accept)
        assert answer.status == status
        assert answer.headers["Content-Type"] == kind
        found = yaml.safe_load(answer.text)
        (item,) = found.get("items") or [found]
        assert item.get("data", {"a": "1"}) == {"a": "1"}


@pytest.mark.parametrize("name", ["", "/one"])
async def test_the_old_watch_paths_still_watch(
    client: HttpClient, namespace: str, name: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    path = f"/api/v1/watch/namespaces/{namespace}/configmaps{name}?timeoutSeconds=1"
    answer = await ask(client, "GET", path)
    assert answer.status == 200
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert ("ADDED", "one") in [(e["type"], e["object"]["metadata"]["name"]) for e in events]


async def test_events_are_the_same_in_both_groups(client: HttpClient, namespace: str) -> None:
    new = Resource("events.k8s.io", "v1", "events", "Event")
    concerned = {"kind": "Pod", "name": "p", "namespace": namespace}
    body: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "old"},
        "involvedObject": concerned,
        "reason": "R",
        "message": "hello",
        "type": "Normal",
        "source": {"component": "me"},
    }
    await client.create(EVENTS, body, namespace)
    seen = await client.get(new, "old", namespace)
    assert (seen["apiVersion"], seen["note"], seen["regarding"]) == (
        "events.k8s.io/v1",
        "hello",
        concerned,
    )
    assert seen["deprecatedSource"] == {"component": "me"}
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "new"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "beamlit.com/me",
        "reportingInstance": "me-1",
        "action": "Do",
        "reason": "R",
        "regarding": concerned,
        "note": "bye",
        "type": "Normal",
    }
    made = await client.create(new, body, namespace)
    assert made["note"] == "bye"
    found = await client.get(EVENTS, "new", namespace)
    assert (found["message"], found["involvedObject"]) == ("bye", concerned)
    assert found["reportingComponent"] == "beamlit.com/me"
    listed = await client.list(new, namespace)
    assert {"old", "new"} <= {item["metadata"]["name"] for item in listed.items}
    await client.delete(new, "new", namespace)


async def test_an_event_is_where_what_it_is_about_is(client: HttpClient, namespace: str) -> None:
    body: Json = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}}
    for other in ("default", ""):
        body["involvedObject"]["namespace"] = other
        answer = await ask(client, "POST", EVENTS.path(namespace), body)
        assert answer.status == 422
        assert answer.causes == [("involvedObject.namespace", "FieldValueInvalid")]


async def test_items_of_typed_lists_do_not_repeat_their_kind(
    client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    await client.create(widgets, widget("one", namespace))
    plain = await ask(client, "GET", CONFIG_MAPS.path(namespace))
    assert (plain.body["kind"], plain.body["apiVersion"]) == ("ConfigMapList", "v1")
    assert plain.body["items"]
    assert all("kind" not in i and "apiVersion" not in i for i in plain.body["items"])
    custom = await ask(client, "GET", widgets.path(namespace))
    assert [i["kind"] for i in custom.body["items"]] == ["Widget"]


@pytest.mark.parametrize("path", ["/nope", "/apis/nope.io/v1", "/apis/nope.io/v1/things"])
async def test_an_unknown_path_is_answered_in_plain_text(client: HttpClient, path: str) -> None:
    answer = await ask(client, "GET", path)
    assert (answer.status, answer.text) == (404, "404 page not found\n")


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ('{"metadata": {"name": "x"}, "data": {"a": "1", "a": "2"}}', "json", "data.a"),
        ("metadata:\n  name: x\ndata:\n  a: '1'\n  a: '2'\n", "yaml", "line 5"),
    ],
)
async def test_a_key_given_twice_is_refused_or_a_warning(
    client: HttpClient, namespace: str, body: str, kind: str, field: str
) -> None:
    path, kind = CONFIG_MAPS.path(namespace), f"application/{kind}"
    answer = await ask(client, "POST", f"{path}?fieldValidation=Strict", body, kind=kind)
    assert answer.status == 400
    assert "strict decoding error" in answer.message
    assert field in answer.message
    answer = await ask(client, "POST", path, body, kind=kind)
    assert answer.status == 201
    assert answer.body["data"] == {"a": "2"}
    assert any(field in text for text in answer.warnings), answer.warnings
    answer = await ask(client, "POST", f"{path}?fieldValidation=Ignore&dryRun=All", body, kind=kind)
    assert answer.warnings == []


async def test_an_applied_key_given_twice_is_a_warning(client: HttpClient, namespace: str) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata:\n  a: '1'\n  a: '2'\n"
    path = CONFIG_MAPS.path(namespace, "one") + "?fieldManager=me"
    answer = await ask(client, "PATCH", path, body, kind=APPLY)
    assert (answer.status, answer.body["data"]) == (201, {"a": "2"})
    assert answer.warnings == ['line 6: key "a" already set in map']


@pytest.mark.parametrize(
    ("resource", "body", "text"),
    [
        (
            LEASES,
            {"metadata": {"name": "x"}, "spec": {"renewTime": "2026-01-01T00:00:00Z"}},
            "cannot be handled as a Lease",
        ),
        (
            Resource("", "v1", "secrets", "Secret"),
            {"metadata": {"name": "x"}, "data": {"a": "!!"}},
            "cannot be handled as a Secret",
        ),
        (
            Resource("", "v1", "limitranges", "LimitRange"),
            {
                "metadata": {"name": "x"},
                "spec": {"limits": [{"type": "Pod", "max": {"cpu": "lots"}}]},
            },
            "cannot be handled as a LimitRange",
        ),
    ],
)
async def test_what_is_not_of_its_type_cannot_be_read(
    client: HttpClient, namespace: str, resource: Resource, body: Json, text: str
) -> None:
    answer = await ask(client, "POST", resource.path(namespace), body)
    assert answer.status == 400
    assert text in answer.message


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        ({"data": {"a": 5}}, MERGE),
        ([{"op": "add", "path": "/data", "value": {"a": 5}}], JSON_PATCH),
        ([{"op": "frob", "path": "/data"}], JSON_PATCH),
        ([{"op": "test", "path": "/data/a", "value": "9"}], JSON_PATCH),
    ],
)
async def test_a_patch_that_leaves_no_such_object_is_invalid(
    client: HttpClient, namespace: str, patch: Any, kind: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    answer = await ask(client, "PATCH", CONFIG_MAPS.path(namespace, "one"), patch, kind=kind)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")


@pytest.mark.parametrize(
    ("resources", "field", "text"),
    [
        (
            {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
            "requests",
            'Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}},
            "requests",
            'Invalid value: "1": must be equal to nvidia.com/gpu limit of 2',
        ),
        ({"requests": {"nvidia.com/gpu": 1}}, "limits", "Required value: Limit must be set"),
    ],
)
async def test_requests_fit_their_limits(
    client: HttpClient, namespace: str, resources: Json, field: str, text: str
) -> None:
    body = deployment("web")
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
    answer = await ask(client, "POST", DEPLOYMENTS.path(namespace), body)
    assert answer.status == 422
    path = f"spec.template.spec.containers[0].resources.{field}"
    assert f"{path}: {text}" in answer.message


async def test_the_address_of_a_service_stays(client: HttpClient, namespace: str) -> None:
    spec: Json = {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}
    await client.create(SERVICES, {"metadata": {"name": "s"}, "spec": spec}, namespace)
    path = SERVICES.path(namespace, "s")
    answer = await ask(client, "PATCH", path, {"spec": {"clusterIP": "10.96.0.77"}}, kind=MERGE)
    assert answer.status == 422
    assert "may not change once set" in answer.message
    del spec["clusterIP"]
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
    answer = await ask(client, "PUT", path, body)
    assert (answer.status, answer.body["spec"]["clusterIP"]) == (200, "None")


async def test_a_request_that_hangs_up_disturbs_nobody(client: HttpClient, namespace: str) -> None:
    path = CONFIG_MAPS.path(namespace) + "?watch=1&timeoutSeconds=60"
    watch = asyncio.create_task(ask(client, "GET", path))
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    assert await client.get(CONFIG_MAPS, "one", namespace)
