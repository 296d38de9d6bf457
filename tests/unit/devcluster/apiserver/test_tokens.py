"""ServiceAccount tokens: how long they live, what ends them, and forgeries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.devcluster.apiserver.tokens import (
    ISSUER,
    ServiceAccountTokens,
    TokenError,
    load_key,
)
from beamlit_operator.kube import ApiError


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def _put(store: Store, resource: str, namespace: str, name: str, **more: Any) -> None:
    item = {
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{resource}-{store.version}"},
        **more,
    }
    store.commit(resource, Key(namespace, name), item)


@pytest.fixture
def store() -> Store:
    found = Store()
    _put(found, "serviceaccounts", "n", "robot")
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key(tmp_path: Path) -> ECKey:
    return load_key(tmp_path / "sa.key")


@pytest.fixture
def tokens(store: Store, key: ECKey, clock: Clock) -> ServiceAccountTokens:
    return ServiceAccountTokens(store, key, clock=clock)


def _issue(tokens: ServiceAccountTokens, **spec: Any) -> str:
    return str(tokens.issue("n", "robot", {"spec": spec})["status"]["token"])


def test_a_token_lives_until_its_last_second_and_no_longer(
    tokens: ServiceAccountTokens, clock: Clock
) -> None:
    token = _issue(tokens, expirationSeconds=600)
    clock.now += 599
    assert tokens.user_of(token)[0].name == "system:serviceaccount:n:robot"
    clock.now += 1
    with pytest.raises(TokenError, match="expired"):
        tokens.user_of(token)


def test_an_account_made_anew_does_not_inherit_tokens(
    tokens: ServiceAccountTokens, store: Store
) -> None:
    token = _issue(tokens)
    store.remove("serviceaccounts", Key("n", "robot"))
    _put(store, "serviceaccounts", "n", "robot")
    with pytest.raises(TokenError, match="invalidated"):
        tokens.user_of(token)


def test_a_token_of_a_pod_names_the_pod_and_its_node(
    tokens: ServiceAccountTokens, store: Store
) -> None:
    _put(store, "nodes", "", "east")
    _put(store, "pods", "n", "p", spec={"serviceAccountName": "robot", "nodeName": "east"})
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p"}
    user, _ = tokens.user_of(_issue(tokens, boundObjectRef=bound))
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("east",)


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"expirationSeconds": 599}, 422),
        ({"expirationSeconds": (1 << 32) + 1}, 422),
        ({"expirationSeconds": "long"}, 400),
        ({"audiences": "x"}, 400),
        ({"audiences": [1]}, 400),
        ({"boundObjectRef": "x"}, 400),
        ({"boundObjectRef": {"kind": "ConfigMap", "name": "x"}}, 400),
        ({"boundObjectRef": {"kind": "Pod", "name": "other"}}, 400),
        ({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "wrong"}}, 409),
        ({"boundObjectRef": {"kind": "Secret", "name": "none"}}, 404),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    tokens: ServiceAccountTokens, store: Store, spec: Any, status: int
) -> None:
    _put(store, "pods", "n", "p", spec={"serviceAccountName": "robot"})
    _put(store, "pods", "n", "other", spec={"serviceAccountName": "default"})
    with pytest.raises(ApiError) as caught:
        tokens.issue("n", "robot", {"spec": spec})
    assert caught.value.status == status


def test_tokens_of_others_are_not_believed(tokens: ServiceAccountTokens, key: ECKey) -> None:
    good = _issue(tokens)
    claims = jwt.decode(good, key, algorithms=["ES256"]).claims
    stranger = ECKey.generate_key("P-256")
    # The public key taken for a shared secret: the classic confusion of algorithms.
    confused = OctKey.import_key(key.as_pem(private=False).hex())
    forgeries = [
        jwt.encode({"alg": "ES256", "kid": key.kid}, claims, stranger),
        jwt.encode({"alg": "HS256", "kid": key.kid}, claims, confused),
        jwt.encode({"alg": "ES256"}, {**claims, "iss": "https://example.com"}, key),
        "",
        ".",
        "..",
        good + "x",
        good.rpartition(".")[0] + ".",
        "é.é.é",
        "\ud800",
    ]
    for forgery in forgeries:
        with pytest.raises(TokenError):
            tokens.user_of(forgery)


def test_the_key_survives_a_restart_and_is_private(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    path = tmp_path / "sa.key"
    token = _issue(ServiceAccountTokens(store, load_key(path), clock=clock))
    assert path.stat().st_mode & 0o777 == 0o600
    again = ServiceAccountTokens(store, load_key(path), clock=clock)
    assert again.user_of(token)[1] == [ISSUER]
    (published,) = again.key_set()["keys"]
    assert "d" not in published
