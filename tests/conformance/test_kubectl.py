"""kubectl as a user of the API."""

from __future__ import annotations

import json
from typing import Any

from beamlit_operator.kube import HttpClient, Resource

from .objects import config_map, deployment, widget


async def test_apply_creates_then_configures_then_leaves_alone(kubectl: Any) -> None:
    body = deployment("web")
    assert "created" in (await kubectl("apply", "-f", "-", stdin=json.dumps(body))).stdout
    body["spec"]["minReadySeconds"] = 2
    diff = await kubectl("diff", "-f", "-", stdin=json.dumps(body), check=False)
    assert diff.returncode == 1
    assert "+  minReadySeconds: 2" in diff.stdout
    assert "configured" in (await kubectl("apply", "-f", "-", stdin=json.dumps(body))).stdout
    assert "unchanged" in (await kubectl("apply", "-f", "-", stdin=json.dumps(body))).stdout
    del body["spec"]["template"]["spec"]["containers"][0]["env"]
    await kubectl("apply", "-f", "-", stdin=json.dumps(body))
    found = json.loads((await kubectl("get", "deployment", "web", "-o", "json")).stdout)
    assert "env" not in found["spec"]["template"]["spec"]["containers"][0]


async def test_server_side_apply_reports_conflicts(kubectl: Any) -> None:
    body = json.dumps(config_map("one", a="1"))
    await kubectl("apply", "--server-side", "--field-manager=alice", "-f", "-", stdin=body)
    other = json.dumps(config_map("one", a="2"))
    result = await kubectl(
        "apply", "--server-side", "--field-manager=bob", "-f", "-", stdin=other, check=False
    )
    assert result.returncode != 0
    assert 'conflict with "alice"' in result.stderr


async def test_a_misspelt_field_is_refused(kubectl: Any) -> None:
    body = deployment("web")
    body["spec"]["replicaz"] = 1
    result = await kubectl("apply", "-f", "-", stdin=json.dumps(body), check=False)
    assert result.returncode != 0
    assert 'unknown field "spec.replicaz"' in result.stderr


async def test_a_kind_that_is_not_served_is_named(kubectl: Any) -> None:
    body = {"apiVersion": "nobody.example.com/v1", "kind": "Gizmo", "metadata": {"name": "x"}}
    result = await kubectl("apply", "-f", "-", stdin=json.dumps(body), check=False)
    assert result.returncode != 0
    assert 'no matches for kind "Gizmo"' in result.stderr


async def test_get_prints_the_columns_of_a_custom_resource(
    kubectl: Any, client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace, size=42))
    lines = (await kubectl("get", "wdg")).stdout.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "AGE"]
    assert lines[1].split()[:2] == ["one", "42"]
    assert "one" in (await kubectl("get", "conformance")).stdout


async def test_explain_describes_fields(kubectl: Any, widgets: Resource) -> None:
    text = (await kubectl("explain", "widget.spec.size")).stdout
    assert "How large it is." in text
    text = (await kubectl("explain", "deployment.spec.strategy")).stdout
    assert "rollingUpdate" in text


async def test_describe_shows_events(
    kubectl: Any, client: HttpClient, namespace: str, widgets: Resource
) -> None:
    from beamlit_operator.kube import EVENTS

    made = await client.create(widgets, widget("one", namespace))
    about = {
        "apiVersion": made["apiVersion"],
        "kind": "Widget",
        "name": "one",
        "namespace": namespace,
        "uid": made["metadata"]["uid"],
    }
    event = {
        "metadata": {"name": "one.1"},
        "involvedObject": about,
        "reason": "Painted",
        "message": "it is red now",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": made["metadata"]["creationTimestamp"],
        "lastTimestamp": made["metadata"]["creationTimestamp"],
        "source": {"component": "painter"},
    }
    await client.create(EVENTS, event, namespace)
    text = (await kubectl("describe", "widget", "one")).stdout
    assert "it is red now" in text
    assert "Painted" in (await kubectl("get", "events")).stdout


async def test_wait_scale_label_and_delete(
    kubectl: Any, client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("one", namespace))
    await kubectl("scale", "widget/one", "--replicas=3")
    await kubectl("label", "widget", "one", "a=b")
    await kubectl("annotate", "widget", "one", "c=d")
    await kubectl("wait", "widget/one", "--for=jsonpath={.spec.replicas}=3", "--timeout=60s")
    await kubectl("patch", "widget", "one", "--type=merge", "-p", '{"spec":{"size":9}}')
    found = json.loads((await kubectl("get", "widget", "one", "-o", "json")).stdout)
    assert (found["spec"]["size"], found["metadata"]["labels"]) == (9, {"a": "b"})
    await kubectl("delete", "widget", "one", "--timeout=60s")
    result = await kubectl("get", "widget", "one", check=False)
    assert "NotFound" in result.stderr


async def test_api_resources_lists_kinds_and_short_names(kubectl: Any, widgets: Resource) -> None:
    text = (await kubectl("api-resources")).stdout
    rows = {line.split()[0]: line.split() for line in text.splitlines()}
    assert rows["widgets"][1:] == ["wdg", "conformance.beamlit.com/v1", "true", "Widget"]
    assert rows["deployments"][1] == "deploy"


async def test_create_makes_the_usual_things(kubectl: Any) -> None:
    await kubectl("create", "configmap", "one", "--from-literal=a=b")
    await kubectl("create", "secret", "generic", "key", "--from-literal=token=x")
    await kubectl("create", "serviceaccount", "robot")
    await kubectl("create", "deployment", "web", "--image=example.com/none:1", "--replicas=0")
    found = json.loads((await kubectl("get", "configmap", "one", "-o", "json")).stdout)
    assert found["data"] == {"a": "b"}
    assert (await kubectl("auth", "can-i", "create", "pods")).stdout.strip() == "yes"
