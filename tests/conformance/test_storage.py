"""Volumes, claims and classes as the API server keeps them: defaults, rules, what may change."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import PODS, ApiError, HttpClient, Json

from .storage import CLAIMS, CLASSES, VOLUMES, claim, host_path, local, storage_class


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    """One where claims are let go again: their namespaces would stay."""
    return cluster_kubeconfig


@pytest.fixture
async def cleanup(client: HttpClient) -> AsyncIterator[list[tuple[Any, str]]]:
    """What is cluster-wide and goes after the test."""
    made: list[tuple[Any, str]] = []
    yield made
    for resource, name in made:
        with contextlib.suppress(ApiError):
            await client.delete(resource, name)


async def _refusal(client: HttpClient, resource: Any, body: Json, namespace: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await client.create(resource, body, namespace or None)
    return caught.value


def _causes(error: ApiError) -> set[tuple[str, str]]:
    assert error.status == 422, error
    return {(c["field"], c["reason"]) for c in error.details.get("causes") or ()}


async def test_a_new_claim_is_pending_protected_and_a_file_system(
    client: HttpClient, namespace: str
) -> None:
    made = await client.create(CLAIMS, claim("a", storageClassName="none-such"), namespace)
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["volumeMode"] == "Filesystem"
    assert "kubernetes.io/pvc-protection" in made["metadata"]["finalizers"]
    await client.delete(CLAIMS, "a", namespace)


async def test_a_new_volume_has_its_defaults(
    client: HttpClient, cleanup: list[tuple[Any, str]]
) -> None:
    body = host_path(storageClassName="none-such")
    cleanup.append((VOLUMES, body["metadata"]["name"]))
    made = await client.create(VOLUMES, body)
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert made["spec"]["volumeMode"] == "Filesystem"
    assert made["spec"]["hostPath"] == {"path": "/tmp/conformance", "type": ""}
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["lastPhaseTransitionTime"]
    assert "kubernetes.io/pv-protection" in made["metadata"]["finalizers"]


async def test_a_new_class_has_its_defaults_and_stays_as_it_is(
    client: HttpClient, cleanup: list[tuple[Any, str]]
) -> None:
    body = storage_class()
    name = body["metadata"]["name"]
    cleanup.append((CLASSES, name))
    made = await client.create(CLASSES, body)
    assert (made["reclaimPolicy"], made["volumeBindingMode"]) == ("Delete", "Immediate")
    for change in ({"reclaimPolicy": "Retain"}, {"provisioner": "example.com/other"}):
        with pytest.raises(ApiError) as caught:
            await client.merge_patch(CLASSES, name, change)
        assert caught.value.status == 422
    body = storage_class(provisioner="")
    assert ("provisioner", "FieldValueRequired") in _causes(
        await _refusal(client, CLASSES, body, "")
    )


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"accessModes": []}, "spec.accessModes", "FieldValueRequired"),
        ({"accessModes": ["Sometimes"]}, "spec.accessModes", "FieldValueNotSupported"),
        (
            {"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]},
            "spec.accessModes",
            "FieldValueForbidden",
        ),
        ({"resources": {}}, "spec.resources[storage]", "FieldValueRequired"),
        (
            {"resources": {"requests": {"storage": "0"}}},
            "spec.resources[storage]",
            "FieldValueInvalid",
        ),
        ({"volumeMode": "Tape"}, "spec.volumeMode", "FieldValueNotSupported"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": ""}}, "", "FieldValueRequired"),
    ],
)
async def test_a_claim_that_makes_no_sense_is_refused(
    client: HttpClient, namespace: str, spec: Json, field: str, reason: str
) -> None:
    found = _causes(await _refusal(client, CLAIMS, claim("bad", **spec), namespace))
    assert any(reason == r and field in (f, "") for f, r in found), found


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (host_path(capacity={}), "spec.capacity", "FieldValueRequired"),
        (host_path(capacity={"storage": "-1Gi"}), "spec.capacity[storage]", "FieldValueInvalid"),
        (host_path(accessModes=[]), "spec.accessModes", "FieldValueRequired"),
        (host_path(hostPath=None), "spec", "FieldValueRequired"),
        (host_path(hostPath={"path": "/a/../b"}), "spec.hostPath.path", "FieldValueInvalid"),
        (
            host_path(local={"path": "/x"}),
            "spec.local",
            "FieldValueForbidden",
        ),
        (local(nodeAffinity=None), "spec.nodeAffinity", "FieldValueRequired"),
        (
            host_path(persistentVolumeReclaimPolicy="Burn"),
            "spec.persistentVolumeReclaimPolicy",
            "FieldValueNotSupported",
        ),
    ],
)
async def test_a_volume_that_makes_no_sense_is_refused(
    client: HttpClient, body: Json, field: str, reason: str
) -> None:
    assert (field, reason) in _causes(await _refusal(client, VOLUMES, body, ""))


async def test_a_quantity_that_is_none_is_refused(client: HttpClient, namespace: str) -> None:
    body = claim("bad", resources={"requests": {"storage": "much"}})
    assert (await _refusal(client, CLAIMS, body, namespace)).status == 400


async def test_a_claims_spec_is_fixed_but_for_its_volume_once(
    client: HttpClient, namespace: str
) -> None:
    await client.create(CLAIMS, claim("a", storageClassName="none-such"), namespace)
    named = await client.merge_patch(CLAIMS, "a", {"spec": {"volumeName": "none-such"}}, namespace)
    assert named["spec"]["volumeName"] == "none-such"
    for change in (
        {"volumeName": "another"},
        {"accessModes": ["ReadWriteMany"]},
        {"storageClassName": "other"},
    ):
        with pytest.raises(ApiError) as caught:
            await client.merge_patch(CLAIMS, "a", {"spec": change}, namespace)
        assert ("spec", "FieldValueForbidden") in _causes(caught.value)
    await client.delete(CLAIMS, "a", namespace)


async def test_a_claim_without_a_volume_does_not_grow(client: HttpClient, namespace: str) -> None:
    await client.create(CLAIMS, claim("a", storageClassName="none-such"), namespace)
    more = {"spec": {"resources": {"requests": {"storage": "2Mi"}}}}
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(CLAIMS, "a", more, namespace)
    assert caught.value.status in (403, 422)
    await client.delete(CLAIMS, "a", namespace)


async def test_a_volumes_source_is_fixed(
    client: HttpClient, cleanup: list[tuple[Any, str]]
) -> None:
    body = host_path(storageClassName="none-such")
    name = body["metadata"]["name"]
    cleanup.append((VOLUMES, name))
    await client.create(VOLUMES, body)
    with pytest.raises(ApiError) as caught:
        await client.merge_patch(VOLUMES, name, {"spec": {"hostPath": {"path": "/tmp/other"}}})
    assert ("spec.persistentvolumesource", "FieldValueForbidden") in _causes(caught.value)
    changed = await client.merge_patch(VOLUMES, name, {"spec": {"capacity": {"storage": "3Mi"}}})
    assert changed["spec"]["capacity"] == {"storage": "3Mi"}


async def test_a_claim_that_names_no_class_has_the_youngest_default_one(
    client: HttpClient, namespace: str, cleanup: list[tuple[Any, str]]
) -> None:
    body = storage_class(provisioner="example.com/nobody")
    body["metadata"]["name"] = name = f"aaa-{secrets.token_hex(4)}"
    body["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    cleanup.append((CLASSES, name))
    await client.create(CLASSES, body)
    made = await client.create(CLAIMS, claim("defaulted"), namespace)
    assert made["spec"]["storageClassName"] == name
    none = await client.create(CLAIMS, claim("none", storageClassName=""), namespace)
    assert none["spec"]["storageClassName"] == ""
    for each in ("defaulted", "none"):
        await client.delete(CLAIMS, each, namespace)


async def test_a_source_to_fill_a_claim_from_stands_in_both_fields(
    client: HttpClient, namespace: str
) -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "other"}
    body = claim("filled", storageClassName="none-such", dataSource=source)
    made = await client.create(CLAIMS, body, namespace)
    for name in ("dataSource", "dataSourceRef"):
        found = made["spec"][name]
        assert (found["kind"], found["name"]) == ("PersistentVolumeClaim", "other")
    await client.delete(CLAIMS, "filled", namespace)


@pytest.mark.parametrize(
    ("mount", "field", "reason"),
    [
        ({"subPath": "../up"}, "subPath", "FieldValueInvalid"),
        ({"subPath": "a/../../b"}, "subPath", "FieldValueInvalid"),
        ({"subPath": "/etc"}, "subPath", "FieldValueInvalid"),
        ({"subPathExpr": "$(A)/.."}, "subPathExpr", "FieldValueInvalid"),
        ({"subPath": "a", "subPathExpr": "$(A)"}, "subPathExpr", "FieldValueInvalid"),
    ],
)
async def test_a_part_of_a_volume_must_be_inside_of_it(
    client: HttpClient, namespace: str, mount: Json, field: str, reason: str
) -> None:
    body = {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "example.com/none:1",
                    "volumeMounts": [{"name": "v", "mountPath": "/x", **mount}],
                }
            ],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}],
            "automountServiceAccountToken": False,
        },
    }
    found = _causes(await _refusal(client, PODS, body, namespace))
    assert any(f.endswith(field) and r == reason for f, r in found), found


async def test_two_volumes_are_not_mounted_at_one_place(client: HttpClient, namespace: str) -> None:
    mounts = [{"name": name, "mountPath": "/x"} for name in ("v", "w")]
    body = {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [{"name": "c", "image": "example.com/none:1", "volumeMounts": mounts}],
            "volumes": [{"name": name, "emptyDir": {}} for name in ("v", "w")],
            "automountServiceAccountToken": False,
        },
    }
    error = await _refusal(client, PODS, body, namespace)
    assert ("spec.containers[0].volumeMounts[1].mountPath", "FieldValueInvalid") in _causes(error)


async def test_a_pods_claim_has_a_name(client: HttpClient, namespace: str) -> None:
    body = {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [{"name": "c", "image": "example.com/none:1"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": ""}}],
            "automountServiceAccountToken": False,
        },
    }
    error = await _refusal(client, PODS, body, namespace)
    assert ("spec.volumes[0].persistentVolumeClaim.claimName", "FieldValueRequired") in _causes(
        error
    )
