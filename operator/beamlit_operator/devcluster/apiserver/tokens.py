"""ServiceAccount tokens: issued on request, signed with a key of the data directory, checked.

A token names its ServiceAccount (and the Pod, Secret or Node it is bound to) by uid, so it ends
with the first of them that is deleted. Format as in Kubernetes (KEP-1205).
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_request,
    bad_value,
    conflict,
    invalid,
    not_found,
)
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.devcluster.apiserver.tls import write_private
from beamlit_operator.devcluster.apiserver.users import User, service_account
from beamlit_operator.kube import Json

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
ALGORITHM: Final = "ES256"

DEFAULT_LIFETIME: Final = 3600
SHORTEST_LIFETIME: Final = 600
LONGEST_LIFETIME: Final = 1 << 32

GROUP: Final = "authentication.k8s.io"
_EXTRA: Final = "authentication.kubernetes.io/"
_CLAIM: Final = "kubernetes.io"
_BOUND_TO: Final = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


class TokenError(Exception):
    """The token is not valid; the text says why, without any part of the token."""


def load_key(path: Path) -> ECKey:
    """The signing key at ``path``, made when there is none."""
    if not path.exists():
        write_private(path, ECKey.generate_key("P-256").as_pem(private=True))
    key = ECKey.import_key(path.read_bytes(), {"use": "sig", "alg": ALGORITHM})
    key.ensure_kid()
    return key


class ServiceAccountTokens:
    """Issues and checks tokens of the ServiceAccounts in ``store``."""

    def __init__(self, store: Store, key: ECKey, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        # A client sends the same token with every request.
        self._claims = functools.lru_cache(1024)(self._verified)

    def issue(self, namespace: str, name: str, body: Any) -> Json:
        """The answer to a TokenRequest.

        Raises:
            ApiError: 400, 404, 409 or 422.
        """
        account = self._object("serviceaccounts", Key(namespace, name))
        if account is None:
            raise not_found("", "serviceaccounts", name)
        spec = _spec_of(body, namespace)
        audiences = spec.get("audiences") or [ISSUER]
        seconds = spec.get("expirationSeconds")
        seconds = DEFAULT_LIFETIME if seconds is None else seconds
        now = int(self._clock())
        uid = account["metadata"]["uid"]
        known: Json = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        reference = spec.get("boundObjectRef")
        if reference is not None:
            known.update(self._bound(namespace, name, reference))
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            _CLAIM: known,
            "nbf": now,
            "sub": service_account(namespace, name).name,
        }
        token = jwt.encode({"alg": ALGORITHM, "kid": self._key.kid}, claims, self._key)
        until = datetime.fromtimestamp(now + seconds, UTC)
        created = datetime.fromtimestamp(now, UTC)
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid,
                "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": reference,
            },
            "status": {
                "token": token,
                "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }

    def _bound(self, namespace: str, account: str, reference: Json) -> Json:
        kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
        plural = _BOUND_TO.get(kind)
        if plural is None or reference.get("apiVersion") not in ("v1", "", None):
            raise bad_request(f"cannot bind token to object of type {kind}")
        found = self._object(plural, Key("" if kind == "Node" else namespace, name))
        if found is None:
            raise not_found("", plural, name)
        uid = found["metadata"]["uid"]
        if reference.get("uid") not in (None, "", uid):
            raise conflict(
                "",
                plural,
                name,
                f"the UID in the bound object reference ({reference['uid']}) does not match the "
                f"UID in record. The object might have been deleted and then recreated",
            )
        known: Json = {kind.lower(): {"name": name, "uid": uid}}
        if kind == "Pod":
            if found["spec"].get("serviceAccountName", "default") != account:
                raise bad_request(
                    f'cannot bind token for serviceaccount "{account}" to pod running with '
                    "different serviceaccount name."
                )
            node = self._object("nodes", Key("", found["spec"].get("nodeName", "")))
            if node is not None:
                known["node"] = {"name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
        return known

    def user_of(self, token: str, audiences: Sequence[str] = (ISSUER,)) -> tuple[User, list[str]]:
        """Who the token stands for, and which of ``audiences`` it is meant for.

        Raises:
            TokenError: it is not one of ours, too old, not for these audiences, or its
                ServiceAccount or what it is bound to is gone.
        """
        claims = self._claims(token)
        now = self._clock()
        if not claims["nbf"] <= now + 1 or now >= claims["exp"]:
            raise TokenError("service account token has expired")
        meant = [name for name in audiences if name in claims["aud"]]
        if not meant:
            raise TokenError(
                f"token audiences {_quoted(claims['aud'])} is invalid for the target audiences "
                f"{_quoted(audiences)}"
            )
        known = claims[_CLAIM]
        namespace, account = known["namespace"], known["serviceaccount"]
        if not self._lives("serviceaccounts", Key(namespace, account["name"]), account["uid"]):
            raise TokenError("service account token has been invalidated")
        extra = {f"{_EXTRA}credential-id": (f"JTI={claims['jti']}",)}
        for kind, plural in _BOUND_TO.items():
            bound = known.get(kind.lower())
            if bound is None:
                continue
            home = "" if kind == "Node" else namespace
            if not self._lives(plural, Key(home, bound["name"]), bound["uid"]):
                raise TokenError("service account token has been invalidated")
            if kind != "Secret":
                extra[f"{_EXTRA}{kind.lower()}-name"] = (bound["name"],)
                extra[f"{_EXTRA}{kind.lower()}-uid"] = (bound["uid"],)
        user = service_account(namespace, account["name"], uid=account["uid"], extra=extra)
        return user, meant

    def _verified(self, token: str) -> Json:
        """The claims under a good signature."""
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError) as error:
            raise TokenError("invalid bearer token") from error
        if claims.get("iss") != ISSUER or _CLAIM not in claims:
            raise TokenError("invalid bearer token")
        return dict(claims)

    def _object(self, resource: str, key: Key) -> Json | None:
        entry = self._store.collection(resource).objects.get(key)
        return None if entry is None else entry.obj

    def _lives(self, resource: str, key: Key, uid: str) -> bool:
        found = self._object(resource, key)
        return found is not None and found["metadata"]["uid"] == uid

    def key_set(self) -> Json:
        """``/openid/v1/jwks``."""
        return {"keys": [self._key.as_dict(private=False)]}

    def discovery(self, url: str) -> Json:
        """``/.well-known/openid-configuration`` of a server at ``url``."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }


def _spec_of(body: Any, namespace: str) -> Json:
    if not isinstance(body, dict) or body.get("kind") not in (None, "", "TokenRequest"):
        raise bad_request("the body must be a TokenRequest object")
    metadata, spec = body.get("metadata") or {}, body.get("spec") or {}
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise bad_request("metadata and spec of a TokenRequest must be objects")
    if metadata.get("namespace") not in (None, "", namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    audiences, seconds = spec.get("audiences"), spec.get("expirationSeconds")
    reference = spec.get("boundObjectRef")
    sound = (
        (audiences is None or isinstance(audiences, list))
        and all(isinstance(name, str) for name in audiences or ())
        and (seconds is None or (isinstance(seconds, int) and not isinstance(seconds, bool)))
        and (reference is None or isinstance(reference, dict))
    )
    if not sound:
        raise bad_request(
            "TokenRequest: spec.audiences must be strings, spec.expirationSeconds an integer and "
            "spec.boundObjectRef an object"
        )
    causes: list[Cause] = []
    where = "spec.expirationSeconds"
    if seconds is not None and seconds < SHORTEST_LIFETIME:
        causes.append(bad_value(where, seconds, "may not specify a duration less than 10 minutes"))
    if seconds is not None and seconds > LONGEST_LIFETIME:
        causes.append(
            bad_value(where, seconds, "may not specify a duration larger than 2^32 seconds")
        )
    if causes:
        raise invalid(GROUP, "TokenRequest", "", causes)
    return spec


def _quoted(names: Sequence[str]) -> str:
    return "[" + " ".join(f'"{name}"' for name in names) + "]"
