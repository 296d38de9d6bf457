"""Who asks: a user as authentication finds it and authorization judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from beamlit_operator.kube import Json

MASTERS: Final = "system:masters"
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
SERVICE_ACCOUNTS: Final = "system:serviceaccounts"
_ACCOUNT_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    """A user, as in ``authentication.k8s.io/v1`` UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_master(self) -> bool:
        """Whether every request of theirs is allowed, whatever the roles say."""
        return MASTERS in self.groups

    def info(self) -> Json:
        """UserInfo; what is empty is absent."""
        found: Json = {"username": self.name}
        if self.uid:
            found["uid"] = self.uid
        if self.groups:
            found["groups"] = list(self.groups)
        if self.extra:
            found["extra"] = {name: list(values) for name, values in self.extra.items()}
        return found


ADMIN: Final = User("devcluster:admin", (MASTERS, AUTHENTICATED))
"""The owner of the kubeconfig."""

ANONYMOUS: Final = User("system:anonymous", (UNAUTHENTICATED,))


def component(name: str) -> User:
    """A part of the cluster itself, which may do everything."""
    return User(f"system:{name}", (MASTERS, AUTHENTICATED))


def service_account(
    namespace: str,
    name: str,
    *,
    uid: str = "",
    extra: Mapping[str, tuple[str, ...]] | None = None,
) -> User:
    """The user a ServiceAccount is."""
    groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
    return User(f"{_ACCOUNT_PREFIX}{namespace}:{name}", groups, uid, extra or {})


def account_of(username: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount that has this user name; None if none has."""
    if not username.startswith(_ACCOUNT_PREFIX):
        return None
    namespace, _, name = username.removeprefix(_ACCOUNT_PREFIX).partition(":")
    return (namespace, name) if namespace and name and ":" not in name else None
