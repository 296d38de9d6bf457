"""A Model that is read as a ServiceAccount, end to end; and what keeps it from being read so."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.identitystore import IdentityStore

from beamlit_operator.kube import CONFIG_MAPS, MODELS, SERVICE_ACCOUNTS, TOKEN_REVIEWS, Json

from .conftest import Workspace, ready

ROLE = "arn:aws:iam::111122223333:role/models"
AUDIENCE = "models.example.com"


@pytest.fixture
def store(stack: Any) -> Iterator[IdentityStore]:
    with IdentityStore(stack.store) as store:
        yield store


def origin(store: IdentityStore, **more: Any) -> Json:
    web = {
        "serviceAccountName": "reader",
        "audience": AUDIENCE,
        "stsEndpoint": store.endpoint,
        **more,
    }
    s3 = {"uri": "s3://models/tiny", "endpoint": store.endpoint, "webIdentity": web}
    return {"origin": {"s3": s3}}


async def account(workspace: Workspace, **annotations: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "reader",
            "namespace": workspace.name,
            "annotations": annotations,
        },
    }
    await workspace.client.apply(SERVICE_ACCOUNTS, body, field_manager="test")


async def model_until(workspace: Workspace, reason: str) -> Json:
    """The condition Ready of the Model, once it has the reason."""
    async with asyncio.timeout(90):
        while True:
            condition = ready(await workspace.client.get(MODELS, "tiny", workspace.name))
            if condition["reason"] == reason:
                return condition
            await asyncio.sleep(0.1)


def claims(token: str) -> Json:
    part = token.split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def test_a_model_is_fetched_with_the_token_of_its_pod_and_of_nobody_else(
    workspace: Workspace, store: IdentityStore
) -> None:
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.apply("Model", "tiny", origin(store))
    waiting = await model_until(workspace, "ServiceAccountNotUsable")
    assert "ServiceAccount reader does not exist" in waiting["message"]
    await account(workspace, **{"eks.amazonaws.com/role-arn": ROLE})
    # The token goes nowhere before its account's owner says so.
    async with asyncio.timeout(90):
        while "beamlit.com/sts-endpoint" not in waiting["message"]:
            waiting = await model_until(workspace, "ServiceAccountNotUsable")
            await asyncio.sleep(0.1)
    assert store.exchanged == []
    agreed = {"eks.amazonaws.com/role-arn": ROLE, "beamlit.com/sts-endpoint": store.endpoint}
    await account(workspace, **agreed)
    async with asyncio.timeout(90):
        while f"beamlit.com/sts-audience={AUDIENCE}" not in waiting["message"]:
            waiting = await model_until(workspace, "ServiceAccountNotUsable")
            await asyncio.sleep(0.1)
    assert store.exchanged == []
    await account(workspace, **agreed, **{"beamlit.com/sts-audience": AUDIENCE})
    await model_until(workspace, "OriginResolved")
    (asked,) = store.exchanged
    assert "pod" not in claims(asked["WebIdentityToken"])["kubernetes.io"]

    await workspace.deployment()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200

    sent = store.exchanged[-1]
    assert (sent["RoleArn"], sent["RoleSessionName"]) == (ROLE, f"{workspace.name}.tiny")
    token = sent["WebIdentityToken"]
    review = await workspace.client.create(
        TOKEN_REVIEWS,
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        },
    )
    assert review["status"]["authenticated"] is True
    assert review["status"]["user"]["username"] == f"system:serviceaccount:{workspace.name}:reader"
    assert claims(token)["aud"] == [AUDIENCE]
    (pod,) = await workspace.pods()
    assert claims(token)["kubernetes.io"]["pod"]["name"] == pod["metadata"]["name"]
    assert "" not in store.callers

    (server,) = pod["spec"]["containers"]
    assert {each["name"] for each in server["volumeMounts"]} == {"models", "tmp"}
    assert not [each for each in server["env"] if each["name"].startswith("AWS_")]
    skipped = pod["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"]
    assert set(skipped.split(",")) == {"fetch", "model"}
    assert token not in json.dumps(await workspace.pods())
    for log in workspace.stack.folder.glob("*.log"):
        assert token not in log.read_text(errors="replace")


async def test_a_template_with_another_account_is_refused_before_anything_starts(
    workspace: Workspace, store: IdentityStore
) -> None:
    await workspace.apply("Environment", "production", {"policies": []})
    agreed = {
        "beamlit.com/sts-endpoint": store.endpoint,
        "beamlit.com/sts-audience": AUDIENCE,
    }
    await account(workspace, **agreed)
    await workspace.apply("Model", "tiny", origin(store, roleArn=ROLE))
    await workspace.deployment(podTemplate={"spec": {"serviceAccountName": "mine"}})
    refused = await workspace.until_ready("InvalidSpec")
    assert "spec.podTemplate.spec.serviceAccountName is mine" in ready(refused)["message"]


async def test_the_nodes_identity_is_refused_where_nobody_allowed_it(workspace: Workspace) -> None:
    s3 = {"uri": "s3://models/tiny", "endpoint": workspace.stack.store, "nodeCredentials": True}
    await workspace.apply("Model", "tiny", {"origin": {"s3": s3}})
    refused = await model_until(workspace, "NodeCredentialsNotAllowed")
    assert "origins.allowNodeCredentials" in refused["message"]


async def test_authorities_are_waited_for_and_found_by_themselves(workspace: Workspace) -> None:
    s3 = {
        "uri": "s3://models/tiny",
        "endpoint": workspace.stack.store,
        "caConfigMapRef": {"name": "our-ca"},
        "credentialsSecretRef": {"name": "store"},
    }
    await workspace.secret()
    await workspace.apply("Model", "tiny", {"origin": {"s3": s3}})
    missing = await model_until(workspace, "ConfigMapNotFound")
    assert "ConfigMap our-ca does not exist" in missing["message"]
    roots = await workspace.client.get(CONFIG_MAPS, "kube-root-ca.crt", workspace.name)
    await workspace.apply("ConfigMap", "our-ca", data=roots["data"])
    await model_until(workspace, "OriginResolved")
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.deployment()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
