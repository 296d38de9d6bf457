"""ServiceAccounts, their tokens, and what the API server says about a token."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, PODS, ApiError, HttpClient, Json

from .conftest import Eventually
from .identities import ACCOUNTS, account, review, speaking_as, token_of, whoami
from .wire import ask

POD: Json = {
    "metadata": {"name": "one"},
    # No node has such a label: the pod is never run.
    "spec": {
        "nodeSelector": {"conformance.beamlit.com/none": "x"},
        "containers": [{"name": "main", "image": "example.com/none:1"}],
    },
}


@pytest.fixture
async def user(client: HttpClient, namespace: str) -> str:
    return await account(client, namespace, "robot")


async def _refused(client: HttpClient) -> bool:
    try:
        await whoami(client)
    except ApiError as error:
        if (error.status, error.reason, error.message) != (401, "Unauthorized", "Unauthorized"):
            raise
        return True
    return False


def _parts(token: str) -> list[Json]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


async def test_a_token_makes_its_bearer_the_service_account(
    client: HttpClient, namespace: str, user: str
) -> None:
    uid = (await client.get(ACCOUNTS, "robot", namespace))["metadata"]["uid"]
    async with speaking_as(client, await token_of(client, namespace, "robot")) as robot:
        info = await whoami(robot)
    assert info["username"] == user
    assert info["uid"] == uid
    assert info["groups"] == [
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    ]
    assert "authentication.kubernetes.io/credential-id" in info["extra"]


async def test_a_token_lasts_an_hour_unless_asked_otherwise(
    client: HttpClient, namespace: str, user: str
) -> None:
    _, usual = _parts(await token_of(client, namespace, "robot"))
    _, short = _parts(await token_of(client, namespace, "robot", expirationSeconds=600))
    assert usual["exp"] - usual["iat"] == 3600
    assert short["exp"] - short["iat"] == 600
    assert usual["sub"] == user
    assert usual["kubernetes.io"]["serviceaccount"]["name"] == "robot"


async def test_a_token_of_less_than_ten_minutes_is_refused(
    client: HttpClient, namespace: str, user: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await token_of(client, namespace, "robot", expirationSeconds=5)
    assert caught.value.status == 422
    assert caught.value.message == (
        'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: '
        "5: may not specify a duration less than 10 minutes"
    )


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("nobody", {}, 'serviceaccounts "nobody" not found'),
        (
            "robot",
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "nope"}},
            'pods "nope" not found',
        ),
    ],
)
async def test_a_token_needs_what_it_names(
    client: HttpClient, namespace: str, user: str, name: str, spec: Json, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await token_of(client, namespace, name, **spec)
    assert (caught.value.status, caught.value.message) == (404, message)


async def test_a_token_review_knows_a_good_token(
    client: HttpClient, namespace: str, user: str
) -> None:
    token = await token_of(client, namespace, "robot")
    status = await review(client, "TokenReview", {"token": token})
    assert status["authenticated"] is True
    assert status["user"]["username"] == user
    assert status["audiences"] == _parts(token)[1]["aud"]


async def test_a_token_review_knows_the_token_of_the_one_who_asks(client: HttpClient) -> None:
    given = client._api.configuration.api_key.get("BearerToken", "")
    if not given:
        pytest.skip("this kubeconfig has no token")
    status = await review(client, "TokenReview", {"token": given.removeprefix("Bearer ")})
    assert status["user"]["username"] == (await whoami(client))["username"]


@pytest.mark.parametrize("token", ["rubbish", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_a_token_review_does_not_believe_rubbish(client: HttpClient, token: str) -> None:
    status = await review(client, "TokenReview", {"token": token})
    assert not status.get("authenticated")
    assert "invalid bearer token" in status["error"]
    async with speaking_as(client, token) as stranger:
        assert await _refused(stranger)


async def test_a_token_review_without_a_token_is_refused(client: HttpClient) -> None:
    with pytest.raises(ApiError) as caught:
        await review(client, "TokenReview", {})
    assert caught.value.status == 400
    assert caught.value.message == "token is required for TokenReview in authentication"


async def test_a_token_changed_in_one_letter_is_refused(
    client: HttpClient, namespace: str, user: str
) -> None:
    token = await token_of(client, namespace, "robot")
    head, _, signature = token.rpartition(".")
    middle = len(signature) // 2
    changed = "A" if signature[middle] != "A" else "B"
    forged = f"{head}.{signature[:middle]}{changed}{signature[middle + 1 :]}"
    async with speaking_as(client, forged) as stranger:
        assert await _refused(stranger)


async def test_a_token_for_another_audience_is_for_it_alone(
    client: HttpClient, namespace: str, user: str
) -> None:
    token = await token_of(client, namespace, "robot", audiences=["vault"])
    async with speaking_as(client, token) as robot:
        assert await _refused(robot)
    status = await review(client, "TokenReview", {"token": token, "audiences": ["vault", "other"]})
    assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
    status = await review(client, "TokenReview", {"token": token, "audiences": ["other"]})
    assert status["error"] == (
        '[invalid bearer token, token audiences ["vault"] is invalid for the target audiences '
        '["other"]]'
    )


async def test_deleting_the_account_ends_its_tokens(
    client: HttpClient, namespace: str, user: str, eventually: Eventually
) -> None:
    async with speaking_as(client, await token_of(client, namespace, "robot")) as robot:
        await whoami(robot)
        await client.delete(ACCOUNTS, "robot", namespace)
        await eventually(lambda: _refused(robot))
        # Another account of the same name is another account.
        await account(client, namespace, "robot")
        assert await _refused(robot)


async def test_a_token_bound_to_a_pod_ends_with_the_pod(
    client: HttpClient, namespace: str, user: str, eventually: Eventually
) -> None:
    spec = {**POD["spec"], "serviceAccountName": "robot"}
    pod = await client.create(PODS, {**POD, "spec": spec}, namespace)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": pod["metadata"]["uid"]}
    token = await token_of(client, namespace, "robot", boundObjectRef=bound)
    async with speaking_as(client, token) as robot:
        extra = (await whoami(robot))["extra"]
        assert extra["authentication.kubernetes.io/pod-name"] == ["one"]
        await client.delete(PODS, "one", namespace, grace_period_seconds=0)
        await eventually(lambda: _refused(robot))


async def test_the_published_keys_include_the_one_a_token_is_signed_with(
    client: HttpClient, namespace: str, user: str
) -> None:
    header, claims = _parts(await token_of(client, namespace, "robot"))
    kind = "application/jwk-set+json"
    keys = await ask(client, "GET", "/openid/v1/jwks", accept=kind)
    assert keys.headers["Content-Type"] == kind
    assert (await ask(client, "GET", "/openid/v1/jwks", accept="application/json")).status == 406
    (key,) = [key for key in json.loads(keys.text)["keys"] if key["kid"] == header["kid"]]
    assert (key["use"], key["alg"]) == ("sig", header["alg"])
    assert "d" not in key
    answer = await client.request("GET", "/.well-known/openid-configuration")
    document = json.loads(await answer.read())
    assert document["issuer"] == claims["iss"]
    assert document["id_token_signing_alg_values_supported"] == [header["alg"]]


async def test_every_namespace_has_an_account_and_the_authority(
    client: HttpClient, namespace: str, eventually: Eventually
) -> None:
    async def there() -> bool:
        accounts = await client.list(ACCOUNTS, namespace)
        maps = await client.list(CONFIG_MAPS, namespace)
        names = [item["metadata"]["name"] for item in (*accounts.items, *maps.items)]
        return {"default", "kube-root-ca.crt"} <= set(names)

    await eventually(there)


async def test_a_pod_gets_the_token_of_its_account(
    client: HttpClient, namespace: str, user: str
) -> None:
    spec = {**POD["spec"], "serviceAccountName": "robot"}
    pod = await client.create(PODS, {**POD, "spec": spec}, namespace)
    assert pod["spec"]["serviceAccount"] == "robot"
    (volume,) = pod["spec"]["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    kinds = [next(iter(source)) for source in volume["projected"]["sources"]]
    assert kinds[:3] == ["serviceAccountToken", "configMap", "downwardAPI"]
    assert pod["spec"]["containers"][0]["volumeMounts"] == [
        {
            "name": volume["name"],
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
    ]


@pytest.mark.parametrize("silent", ["pod", "account"])
async def test_a_pod_can_do_without_a_token(
    client: HttpClient, namespace: str, user: str, silent: str
) -> None:
    spec = {**POD["spec"], "serviceAccountName": "robot"}
    if silent == "pod":
        spec["automountServiceAccountToken"] = False
    else:
        off = {"automountServiceAccountToken": False}
        await client.merge_patch(ACCOUNTS, "robot", off, namespace)
    pod = await client.create(PODS, {**POD, "spec": spec}, namespace)
    assert "volumes" not in pod["spec"]


async def test_a_pod_of_an_account_that_does_not_exist_is_refused(
    client: HttpClient, namespace: str
) -> None:
    spec = {**POD["spec"], "serviceAccountName": "nobody"}
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, {**POD, "spec": spec}, namespace)
    assert caught.value.status == 403
    assert caught.value.message == (
        f'pods "one" is forbidden: error looking up service account {namespace}/nobody: '
        'serviceaccount "nobody" not found'
    )


async def test_where_everything_is_allowed_nobody_anonymous_comes_in(
    client: HttpClient, embedded: bool, namespace: str, user: str
) -> None:
    if not embedded:
        pytest.skip("a real cluster is taken to have roles")
    async with speaking_as(client, "") as nobody:
        assert await _refused(nobody)
    async with speaking_as(client, await token_of(client, namespace, "robot")) as robot:
        await robot.list(PODS)
        asked = {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}
        assert (await review(robot, "SelfSubjectAccessReview", asked))["allowed"] is True


async def test_kubectl_makes_tokens_and_says_whose_they_are(
    kubectl: Callable[..., Awaitable[Any]], client: HttpClient, namespace: str, user: str
) -> None:
    made = await kubectl("create", "token", "robot", "--duration=20m")
    token = made.stdout.strip()
    claims = _parts(token)[1]
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (user, 1200)
    async with speaking_as(client, token) as robot:
        assert (await whoami(robot))["username"] == user
