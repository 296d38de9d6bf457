"""What a request wants to do, in the terms roles are written in, and who decides about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from beamlit_operator.devcluster.apiserver.errors import qualified
from beamlit_operator.devcluster.apiserver.paths import Target
from beamlit_operator.devcluster.apiserver.users import User
from beamlit_operator.kube import ApiError, Json

Mode = Literal["AlwaysAllow", "RBAC"]
MODES: Final[tuple[Mode, ...]] = ("AlwaysAllow", "RBAC")

_EXACT_NAME: Final = "metadata.name="


@dataclass(frozen=True, slots=True)
class Attributes:
    """A request on a resource, or with ``path`` on something else."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def kind(self) -> str:
        """``pods``, or ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Decision:
    """``reason`` says by which binding it is allowed, or what went wrong when it is not."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Those who decide."""

    def decide(self, user: User, attributes: Attributes) -> Decision:
        """Whether ``user`` may."""
        ...

    def rules(self, user: User, namespace: str) -> Iterator[Json]:
        """Every PolicyRule that ``user`` has in ``namespace`` (empty: in all of them)."""
        ...


_EVERYTHING: Final[tuple[Json, ...]] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class AlwaysAllow:
    """Whoever is known may do everything."""

    def decide(self, user: User, attributes: Attributes) -> Decision:
        """Yes."""
        return Decision(True)

    def rules(self, user: User, namespace: str) -> Iterator[Json]:
        """Everything."""
        yield from _EVERYTHING


_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def on_resource(method: str, target: Target, query: Mapping[str, str]) -> Attributes:
    """The attributes of a request on a resource path."""
    name, namespace = target.name, target.namespace
    verb = _VERBS.get(method, "get")
    if verb == "get" and not name:
        verb = "watch" if query.get("watch") in ("true", "1") else "list"
        # A role may allow one object by name, and to list or watch just that one.
        fields = query.get("fieldSelector", "")
        if fields.startswith(_EXACT_NAME) and "," not in fields:
            name = fields.removeprefix(_EXACT_NAME).removeprefix("=")
    elif verb == "delete" and not name:
        verb = "deletecollection"
    if target.group == "" and target.plural == "namespaces" and target.name:
        # A namespace is taken to be in itself, so that a Role in it can speak about it.
        namespace = target.name
    return Attributes(
        verb,
        group=target.group,
        resource=target.plural,
        subresource=target.subresource,
        namespace=namespace,
        name=name,
    )


def on_path(method: str, path: str) -> Attributes:
    """The attributes of a request on anything that is no resource."""
    verb = {**_VERBS, "HEAD": "head"}.get(method, "get").replace("create", "post")
    return Attributes("put" if verb == "update" else verb, path=path)


def forbidden_request(user: User, attributes: Attributes, reason: str = "") -> ApiError:
    """403, in Kubernetes' words."""
    tail = f": {reason}" if reason else ""
    if attributes.path:
        text = f'User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
        return ApiError(403, "Forbidden", f"forbidden: {text}{tail}", details={})
    where = (
        f'in the namespace "{attributes.namespace}"'
        if attributes.namespace
        else "at the cluster scope"
    )
    what = qualified(attributes.group, attributes.resource)
    named = f'{what} "{attributes.name}"' if attributes.name else what
    details = {
        "name": attributes.name,
        "group": attributes.group,
        "kind": attributes.resource,
    }
    return ApiError(
        403,
        "Forbidden",
        f'{named} is forbidden: User "{user.name}" cannot {attributes.verb} resource '
        f'"{attributes.kind}" in API group "{attributes.group}" {where}{tail}',
        details={key: value for key, value in details.items() if value},
    )
