"""Which Secret opens an origin, and what it says.

Secrets are not watched: that would keep every Secret of the cluster in memory and need the right to
list them. The one an origin names is read when the origin is looked at, and while it is missing or
wrong it is read again every few seconds. Only workspace integrations, found by their label, are
followed, so that adding one is noticed at once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from beamlit_operator.api import Reason, labels
from beamlit_operator.controllers.scope import Choice, Integration, choose, integration
from beamlit_operator.kube import (
    SECRETS,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
    Reflector,
)

HUB_KEY = "token"


@dataclass(frozen=True, slots=True)
class Keys:
    """What is read of a Secret.

    Attributes:
        needed: the keys that must be there, and how `origins` calls each.
        optional: those that may be there.
        either: sets of keys, of which one must be there whole.
    """

    needed: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    either: tuple[tuple[str, ...], ...] = ()

    def renamed(self, name: str, key: str) -> Keys:
        """The same, with what `origins` calls `name` under another key."""
        needed = {key if known == name else own: known for own, known in self.needed.items()}
        return replace(self, needed=needed)


S3_KEYS = Keys(
    {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    {"AWS_SESSION_TOKEN": "AWS_SESSION_TOKEN"},
)
HUB_KEYS = Keys({HUB_KEY: HUB_KEY})
HTTP_KEYS = Keys(
    optional={name: name for name in ("token", "username", "password")},
    either=(("token",), ("username", "password")),
)
PULL_KEYS = Keys({".dockerconfigjson": ".dockerconfigjson"})


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A Secret, and for the Hub the key that holds the token. Names only, never the contents."""

    name: str
    token_key: str = HUB_KEY
    integration: bool = False
    """Whether it is a workspace integration."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The contents of a Secret, as `origins` wants them; never logged, shown or stored."""

    version: str
    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Credentials(version={self.version!r})"


class SecretProblemError(Exception):
    """The Secret, or a key of it, is not there; the message says which and what to do."""

    reason: Reason = Reason.SECRET_NOT_FOUND


class OpeningProblemError(SecretProblemError):
    """Something else that opens the origin is not there; the message says what, and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Integrations:
    """The workspace integrations of all workspaces."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespaces: Iterable[str | None] = (None,),
        on_change: Callable[[str, str], None],
    ) -> None:
        """``on_change`` gets the workspace and the kind of integration."""
        self._on_change = on_change
        self._found: dict[tuple[str, str], dict[str, Integration]] = {}
        self._kinds: dict[ObjectKey, str] = {}
        self.reflectors = tuple(
            Reflector(
                client,
                SECRETS,
                namespace=namespace,
                label_selector=labels.INTEGRATION,
                on_change=self._changed,
                keep=_without_content,
            )
            for namespace in namespaces
        )

    def find(
        self,
        workspace: str,
        kind: str,
        subject: str,
        *,
        endpoint: str | None = None,
        usual: str | None = None,
    ) -> Choice:
        """The integration that may be used for ``subject``, a repository or bucket; see
        :func:`.scope.choose`."""
        known = self._found.get((workspace, kind), {}).values()
        return choose(known, subject, endpoint=endpoint, usual=usual)

    def named(self, workspace: str, name: str) -> tuple[str, Integration] | None:
        """The integration of that name, and its kind."""
        kind = self._kinds.get(ObjectKey(workspace, name))
        return None if kind is None else (kind, self._found[workspace, kind][name])

    def _changed(self, change: Change) -> None:
        for item in (change.old, change.new):
            if item is None:
                continue
            metadata = item["metadata"]
            place = (change.key.namespace, metadata["labels"][labels.INTEGRATION])
            names = self._found.setdefault(place, {})
            names.pop(change.key.name, None)
            self._kinds.pop(change.key, None)
            if item is change.new:
                names[change.key.name] = integration(item)
                self._kinds[change.key] = place[1]
            if not names:
                del self._found[place]
            self._on_change(*place)


def _without_content(secret: Json) -> Json:
    """What is kept of a Secret to tell what changed: nothing that opens anything."""
    names = ("namespace", "name", "uid", "resourceVersion", "labels")
    return {"metadata": {name: v for name in names if (v := secret["metadata"].get(name))}}


async def read_credentials(client: KubeClient, key: ObjectKey, keys: Keys) -> Credentials:
    """Reads a Secret.

    Raises:
        SecretProblemError: it, or a key, is missing or unreadable.
        ApiError: the API server did not answer.
    """
    try:
        secret = await client.get(SECRETS, key.name, key.namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        raise SecretProblemError(
            f"Secret {key.name} does not exist in {key.namespace}: create it"
        ) from None
    if secret.get("type") == "kubernetes.io/service-account-token":
        raise SecretProblemError(
            f"Secret {key.name} in {key.namespace} is the token of a ServiceAccount, which is for"
            " the cluster's API and sent to no store: name a Secret that was made for the origin"
        )
    data: Json = secret.get("data") or {}
    if keys.either and not any(all(name in data for name in each) for each in keys.either):
        sets = " nor ".join(" and ".join(each) for each in keys.either)
        raise SecretProblemError(
            f"Secret {key.name} in {key.namespace} has neither {sets}: add one or the other"
        )
    values = {known: _value(data, name, key) for name, known in keys.needed.items()}
    values |= {
        known: _value(data, name, key) for name, known in keys.optional.items() if name in data
    }
    return Credentials(str(secret["metadata"].get("resourceVersion", "")), values)


def _value(data: Json, name: str, secret: ObjectKey) -> str:
    if name not in data:
        raise SecretProblemError(
            f"Secret {secret.name} in {secret.namespace} has no key {name}: add it"
        )
    try:
        return base64.b64decode(data[name], validate=True).decode().strip()
    except (binascii.Error, ValueError):
        raise SecretProblemError(
            f"key {name} of Secret {secret.name} in {secret.namespace} is not base64 of a text"
        ) from None
