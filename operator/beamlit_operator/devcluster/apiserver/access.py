"""Who may come in: authentication, impersonation and authorization of one request."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import web

from beamlit_operator.devcluster.apiserver.access_reviews import Reviews
from beamlit_operator.devcluster.apiserver.accesslog import AccessLog
from beamlit_operator.devcluster.apiserver.authentication import Authenticator, impersonated
from beamlit_operator.devcluster.apiserver.authorization import (
    AlwaysAllow,
    Attributes,
    Authorizer,
    Mode,
    forbidden_request,
    on_path,
    on_resource,
)
from beamlit_operator.devcluster.apiserver.paths import target_of
from beamlit_operator.devcluster.apiserver.rbac import Rbac
from beamlit_operator.devcluster.apiserver.store import Store
from beamlit_operator.devcluster.apiserver.tokens import ServiceAccountTokens, load_key
from beamlit_operator.devcluster.apiserver.users import User
from beamlit_operator.kube import ApiError

USER: Final = web.RequestKey("user", User)
"""Where a request carries who sent it."""


class Access:
    """The door of the API server."""

    def __init__(
        self, store: Store, *, token: str, key: Path, mode: Mode, log: AccessLog | None = None
    ) -> None:
        """``token`` is the admin's, ``key`` the file that signs ServiceAccount tokens."""
        self._log = log
        self.rbac = Rbac(store)
        authorizer: Authorizer = self.rbac if mode == "RBAC" else AlwaysAllow()
        self._authorizer = authorizer
        self._open = mode != "RBAC"
        self.tokens = ServiceAccountTokens(store, load_key(key))
        self._authenticator = Authenticator(token, self.tokens, anonymous=mode == "RBAC")
        self.reviews = Reviews(self._authenticator, authorizer)

    def admit(self, request: web.Request, segments: list[str]) -> User:
        """The user whose name the request is done in.

        Raises:
            ApiError: 400, 401 or 403.
        """
        headers = request.headers
        user = self._authenticator.user_of(headers.get("Authorization", ""))
        groups = headers.getall("Impersonate-Group", [])
        user = impersonated(user, headers, groups, self._authorizer)
        if self._open and self._log is None:
            return user
        attributes = _attributes(request, segments)
        decision = self._authorizer.decide(user, attributes)
        if self._log is not None:
            self._log.note(user, attributes, allowed=decision.allowed)
        if not decision.allowed:
            raise forbidden_request(user, attributes, decision.reason)
        return user


def is_resource(segments: list[str]) -> bool:
    """Whether a path is below a group and version."""
    return bool(segments) and len(segments) > {"api": 2, "apis": 3}.get(segments[0], 99)


def _attributes(request: web.Request, segments: list[str]) -> Attributes:
    if is_resource(segments):
        try:
            return on_resource(request.method, target_of(segments), request.query)
        except ApiError:
            # No such resource can exist; as a path it is told so, or that it is forbidden.
            pass
    return on_path(request.method, "/" + "/".join(segments))
