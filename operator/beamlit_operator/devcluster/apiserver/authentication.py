"""Finds out who sends a request: the admin, a ServiceAccount, nobody; or somebody else's name.

Authorization header        with RBAC           allowing everything
none                        system:anonymous    401
the kubeconfig's token      the admin           the admin
a ServiceAccount's token    the account         the account
anything else               401                 401

Like Kubernetes, nobody anonymous may come in where everything is allowed.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from beamlit_operator.devcluster.apiserver.authorization import (
    Attributes,
    Authorizer,
    forbidden_request,
)
from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.devcluster.apiserver.tokens import (
    ISSUER,
    ServiceAccountTokens,
    TokenError,
)
from beamlit_operator.devcluster.apiserver.users import (
    ADMIN,
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    User,
    account_of,
    service_account,
)
from beamlit_operator.kube import ApiError, Json


class Authenticator:
    """Bearer tokens to users."""

    def __init__(self, token: str, accounts: ServiceAccountTokens, *, anonymous: bool) -> None:
        self._token = token.encode()
        self._accounts = accounts
        self._anonymous = anonymous

    def user_of(self, header: str) -> User:
        """The user behind an ``Authorization`` header.

        Raises:
            ApiError: 401.
        """
        kind, _, token = header.partition(" ")
        if not header and self._anonymous:
            return ANONYMOUS
        if kind.lower() == "bearer":
            try:
                return self._user(token.strip(), (ISSUER,))[0]
            except TokenError:
                pass
        raise ApiError(401, "Unauthorized", "Unauthorized")

    def _user(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]]:
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            # Like a token of a file: it is meant for the API server alone.
            meant = [name for name in audiences if name == ISSUER]
            if meant:
                return ADMIN, meant
        return self._accounts.user_of(token, audiences)

    def review(self, spec: Json) -> Json:
        """The status of a TokenReview.

        Raises:
            ApiError: 400, it asks about no token.
        """
        token = spec.get("token")
        if not isinstance(token, str) or not token:
            raise bad_request("token is required for TokenReview in authentication")
        audiences = spec.get("audiences") or [ISSUER]
        if not isinstance(audiences, list):
            raise bad_request("spec.audiences must be a list of strings")
        try:
            user, meant = self._user(token, [str(name) for name in audiences])
        except TokenError as error:
            text = str(error)
            if text != "invalid bearer token":
                text = f"[invalid bearer token, {text}]"
            return {"user": {}, "error": text}
        return {"authenticated": True, "user": user.info(), "audiences": meant}


def impersonated(
    user: User, headers: Mapping[str, str], groups: Sequence[str], authorizer: Authorizer
) -> User:
    """Who ``user`` wants to be taken for; ``user`` when no ``Impersonate-*`` header is sent.

    ``headers`` is case-insensitive, ``groups`` are all values of ``Impersonate-Group``.

    Raises:
        ApiError: 400, or 403 without the verb ``impersonate``.
    """
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    extra = {
        header.lower().removeprefix("impersonate-extra-"): (value,)
        for header, value in headers.items()
        if header.lower().startswith("impersonate-extra-")
    }
    if not name:
        if groups or uid or extra:
            listed = ", ".join(f'"{group}"' for group in groups)
            raise bad_request(
                f'requested &user.DefaultInfo{{Name:"", UID:"{uid}", Groups:[]string{{{listed}}}, '
                "Extra:map[string][]string(nil)} without impersonating a user name"
            )
        return user
    account = account_of(name)
    wanted: list[Attributes] = []
    if account is not None:
        wanted.append(_may("", "serviceaccounts", account[1], namespace=account[0]))
    else:
        wanted.append(_may("", "users", name))
    wanted += [_may("", "groups", group) for group in groups]
    if uid:
        wanted.append(_may("authentication.k8s.io", "uids", uid))
    for key, values in extra.items():
        for value in values:
            wanted.append(_may("authentication.k8s.io", "userextras", value, subresource=key))
    for attributes in wanted:
        decision = authorizer.decide(user, attributes)
        if not decision.allowed:
            raise forbidden_request(user, attributes, decision.reason)
    if account is not None and not groups:
        return service_account(*account, uid=uid, extra=extra)
    belongs = tuple(groups)
    if name == ANONYMOUS.name:
        return User(name, (*belongs, UNAUTHENTICATED), uid, extra)
    if AUTHENTICATED not in belongs and UNAUTHENTICATED not in belongs:
        belongs = (*belongs, AUTHENTICATED)
    return User(name, belongs, uid, extra)


def _may(
    group: str, resource: str, name: str, *, namespace: str = "", subresource: str = ""
) -> Attributes:
    return Attributes(
        "impersonate",
        group=group,
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )
