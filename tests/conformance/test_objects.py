"""Creating, reading, replacing and deleting objects, and the refusals that go with it."""

from __future__ import annotations

import re

import pytest

from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    SECRETS,
    SERVICES,
    ApiError,
    HttpClient,
)

from .objects import config_map, deployment


async def test_a_new_object_gets_identity_and_version(client: HttpClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    metadata = made["metadata"]
    assert re.fullmatch(r"[0-9a-f-]{36}", metadata["uid"])
    assert metadata["resourceVersion"].isdigit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert metadata["namespace"] == namespace
    assert made == await client.get(CONFIG_MAPS, "one", namespace)


async def test_generate_name_appends_five_letters(client: HttpClient, namespace: str) -> None:
    body = config_map("")
    body["metadata"] = {"generateName": "made-"}
    made = await client.create(CONFIG_MAPS, body, namespace)
    assert re.fullmatch(r"made-[a-z0-9]{5}", made["metadata"]["name"])


async def test_a_taken_name_is_refused_with_already_exists(
    client: HttpClient, namespace: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, config_map("one"), namespace)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


async def test_a_missing_object_is_not_found_and_named(client: HttpClient, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await client.get(DEPLOYMENTS, "ghost", namespace)
    error = caught.value
    assert (error.status, error.reason) == (404, "NotFound")
    assert error.message == 'deployments.apps "ghost" not found'
    assert error.details["name"] == "ghost"
    assert error.details["kind"] == "deployments"
    assert error.details["group"] == "apps"


async def test_an_update_from_an_old_version_conflicts(client: HttpClient, namespace: str) -> None:
    first = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    first["data"]["a"] = "2"
    second = await client.update(CONFIG_MAPS, first)
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    with pytest.raises(ApiError) as caught:
        await client.update(CONFIG_MAPS, first)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    assert "the object has been modified" in caught.value.message


async def test_an_update_that_changes_nothing_keeps_the_version(
    client: HttpClient, namespace: str
) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    again = await client.update(CONFIG_MAPS, made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_generation_moves_with_the_spec_only(client: HttpClient, namespace: str) -> None:
    made = await client.create(DEPLOYMENTS, deployment("web"), namespace)
    assert made["metadata"]["generation"] == 1
    labelled = await client.merge_patch(
        DEPLOYMENTS, "web", {"metadata": {"labels": {"a": "b"}}}, namespace
    )
    assert labelled["metadata"]["generation"] == 1
    changed = await client.merge_patch(
        DEPLOYMENTS, "web", {"spec": {"minReadySeconds": 3}}, namespace
    )
    assert changed["metadata"]["generation"] == 2


async def test_uid_and_creation_time_cannot_be_changed(client: HttpClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one"), namespace)
    patched = await client.merge_patch(
        CONFIG_MAPS,
        "one",
        {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "labels": {"a": "b"}}},
        namespace,
    )
    assert patched["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(CONFIG_MAPS, "one", {"metadata": {"uid": "other"}}, namespace)
    assert caught.value.status in (409, 422)


async def test_a_broken_object_is_invalid_with_a_cause_per_field(
    client: HttpClient, namespace: str
) -> None:
    body = deployment("web")
    body["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    body["spec"]["template"]["spec"]["containers"][0]["name"] = "Not A Label"
    with pytest.raises(ApiError) as caught:
        await client.create(DEPLOYMENTS, body, namespace)
    error = caught.value
    assert (error.status, error.reason) == (422, "Invalid")
    causes = {cause["field"]: cause for cause in error.details["causes"]}
    assert causes["spec.template.metadata.labels"]["reason"] == "FieldValueInvalid"
    assert causes["spec.template.spec.containers[0].name"]["reason"] == "FieldValueInvalid"
    assert error.message.startswith('Deployment.apps "web" is invalid: [')


async def test_names_must_be_dns_names(client: HttpClient, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, config_map("Not_A_Name"), namespace)
    assert caught.value.status == 422
    assert caught.value.details["causes"][0]["field"] == "metadata.name"


async def test_a_namespace_must_exist(client: HttpClient) -> None:
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, config_map("one"), "no-such-namespace")
    assert caught.value.status == 404
    assert 'namespaces "no-such-namespace" not found' in caught.value.message


async def test_a_dry_run_of_a_deletion_may_be_asked_for_in_its_body(
    client: HttpClient, namespace: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    path = CONFIG_MAPS.path(namespace, "one")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}
    await client.request("DELETE", path, body=options)
    assert (await client.get(CONFIG_MAPS, "one", namespace))["metadata"]["name"] == "one"


async def test_dry_run_answers_but_stores_nothing(client: HttpClient, namespace: str) -> None:
    path = CONFIG_MAPS.path(namespace)
    response = await client.request(
        "POST", path, query={"dryRun": "All"}, body=config_map("ghost", a="1")
    )
    made = await response.json()
    assert made["metadata"]["uid"]
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "ghost", namespace)
    assert caught.value.not_found


async def test_unknown_fields_are_dropped_warned_about_or_refused(
    client: HttpClient, namespace: str
) -> None:
    body = config_map("one")
    body["unknown"] = 1
    path = CONFIG_MAPS.path(namespace)
    with pytest.raises(ApiError) as caught:
        await client.request("POST", path, query={"fieldValidation": "Strict"}, body=body)
    assert caught.value.status == 400
    assert 'unknown field "unknown"' in caught.value.message
    response = await client.request("POST", path, query={"fieldValidation": "Warn"}, body=body)
    assert "unknown field" in response.headers["Warning"]
    assert "unknown" not in await response.json()


async def test_a_wrong_type_is_a_bad_request(client: HttpClient, namespace: str) -> None:
    body = deployment("web")
    body["spec"]["replicas"] = "many"
    with pytest.raises(ApiError) as caught:
        await client.create(DEPLOYMENTS, body, namespace)
    assert (caught.value.status, caught.value.reason) == (400, "BadRequest")


async def test_defaults_of_built_in_types_are_filled_in(client: HttpClient, namespace: str) -> None:
    body = deployment("web")
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["ports"] = [{"containerPort": 80}]
    container["readinessProbe"] = {"httpGet": {"port": 80}}
    made = await client.create(DEPLOYMENTS, body, namespace)
    spec = made["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Always"
    assert pod["terminationGracePeriodSeconds"] == 30
    container = pod["containers"][0]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["ports"][0]["protocol"] == "TCP"
    probe = container["readinessProbe"]
    assert (probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"]) == (
        10,
        1,
        3,
    )
    assert probe["httpGet"] == {"path": "/", "port": 80, "scheme": "HTTP"}


async def test_a_service_gets_its_defaults(client: HttpClient, namespace: str) -> None:
    body = {
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]},
    }
    made = await client.create(SERVICES, body, namespace)
    assert made["spec"]["type"] == "ClusterIP"
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]


async def test_string_data_of_a_secret_becomes_data(client: HttpClient, namespace: str) -> None:
    body = {"metadata": {"name": "key"}, "stringData": {"a": "b"}}
    made = await client.create(SECRETS, body, namespace)
    assert made["data"] == {"a": "Yg=="}
    assert made["type"] == "Opaque"
    assert "stringData" not in made


async def test_an_immutable_config_map_cannot_change(client: HttpClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, {**config_map("one", a="1"), "immutable": True}, namespace)
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(CONFIG_MAPS, "one", {"data": {"a": "2"}}, namespace)
    assert caught.value.status == 422
    assert caught.value.details["causes"][0]["reason"] == "FieldValueForbidden"


async def test_the_selector_of_a_deployment_is_immutable(
    client: HttpClient, namespace: str
) -> None:
    await client.create(DEPLOYMENTS, deployment("web"), namespace)
    labels = {"app": "web", "more": "x"}
    template = {"metadata": {"labels": labels}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(DEPLOYMENTS, "web", {"spec": spec}, namespace)
    assert "field is immutable" in caught.value.message


async def test_deleting_needs_the_right_uid(client: HttpClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one"), namespace)
    with pytest.raises(ApiError) as caught:
        await client.delete(CONFIG_MAPS, "one", namespace, uid="11111111-2222")
    assert caught.value.conflict
    await client.delete(CONFIG_MAPS, "one", namespace, uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "one", namespace)
    assert caught.value.not_found


async def test_a_finalizer_keeps_an_object_until_it_is_removed(
    client: HttpClient, namespace: str
) -> None:
    body = config_map("one")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(CONFIG_MAPS, body, namespace)
    await client.delete(CONFIG_MAPS, "one", namespace)
    held = await client.get(CONFIG_MAPS, "one", namespace)
    assert held["metadata"]["deletionTimestamp"]
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(
            CONFIG_MAPS, "one", {"metadata": {"finalizers": ["example.com/more"]}}, namespace
        )
    assert caught.value.status == 422
    await client.merge_patch(CONFIG_MAPS, "one", {"metadata": {"finalizers": None}}, namespace)
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "one", namespace)
    assert caught.value.not_found


async def test_deleting_a_collection_honours_the_selector(
    client: HttpClient, namespace: str
) -> None:
    for name, color in (("a", "red"), ("b", "red"), ("c", "blue")):
        body = config_map(name)
        body["metadata"]["labels"] = {"color": color}
        await client.create(CONFIG_MAPS, body, namespace)
    response = await client.request(
        "DELETE", CONFIG_MAPS.path(namespace), query={"labelSelector": "color=red"}
    )
    await response.read()
    left = await client.list(CONFIG_MAPS, namespace, label_selector="color")
    assert [item["metadata"]["name"] for item in left.items] == ["c"]


async def test_the_names_of_a_body_and_of_the_url_must_agree(
    client: HttpClient, namespace: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    with pytest.raises(ApiError) as caught:
        await client.request("PUT", CONFIG_MAPS.path(namespace, "one"), body=config_map("two"))
    assert caught.value.status == 400
    body = config_map("three")
    body["metadata"]["namespace"] = "elsewhere"
    with pytest.raises(ApiError) as caught:
        await client.request("POST", CONFIG_MAPS.path(namespace), body=body)
    assert caught.value.status == 400


async def test_a_namespace_is_labelled_with_its_name(client: HttpClient, namespace: str) -> None:
    found = await client.get(NAMESPACES, namespace)
    assert found["metadata"]["labels"]["kubernetes.io/metadata.name"] == namespace
    assert found["status"]["phase"] == "Active"
