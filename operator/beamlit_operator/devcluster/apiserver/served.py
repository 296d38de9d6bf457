"""What is served: one :class:`Served` per resource and version, found by path or kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from beamlit_operator.devcluster.apiserver.errors import (
    bad_request,
    bad_value,
    invalid,
    no_such_path,
    qualified,
)
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.devcluster.apiserver.validating import Checker
from beamlit_operator.kube import ApiError, Json, Resource

ALL_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


_CONDITIONAL = frozenset(
    (
        "customresourcedefinitions.apiextensions.k8s.io",
        "leases.coordination.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "poddisruptionbudgets.policy",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
    )
)
"""Built-in types whose PUT must name the version that it replaces."""


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where the scale subresource finds its numbers in the object."""

    spec_replicas: tuple[str, ...] = ("spec", "replicas")
    status_replicas: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the server-side table: a JSONPath, or a function of the object."""

    name: str
    type: str
    value: str | Callable[[Json], object]
    priority: int = 0
    description: str = ""
    format: str = ""


@dataclass(slots=True, eq=False, kw_only=True)
class Served:
    """One resource in one version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: ScalePaths | None = None
    logs: bool = False
    generation: bool = False
    storage_version: str = ""
    columns: tuple[Column, ...] = ()
    selectable: frozenset[str] = frozenset()
    definition: str = ""
    collection: str = ""
    """The collection of another group that the objects are in; empty: their own."""
    schema: Json | None = None
    """A custom resource's ``openAPIV3Schema``."""
    custom: bool = False
    priority: int = 0
    make_root: Callable[[], Node]
    make_checker: Callable[[], Checker | None]
    _root: Node | None = field(default=None, repr=False)
    _checker: Checker | None = field(default=None, repr=False)
    _checked: bool = field(default=False, repr=False)

    @property
    def root(self) -> Node:
        """The schema, for pruning, defaulting and merging."""
        if self._root is None:
            self._root = self.make_root()
        return self._root

    @property
    def checker(self) -> Checker | None:
        """The compiled schema, for validation."""
        if not self._checked:
            self._checker = self.make_checker()
            self._checked = True
        return self._checker

    @property
    def api_version(self) -> str:
        """``apps/v1`` or ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_api_version(self) -> str:
        """The ``apiVersion`` objects are stored under."""
        version = self.storage_version or self.version
        return f"{self.group}/{version}" if self.group else version

    @property
    def unconditional(self) -> bool:
        """Whether a PUT may leave the version out, and so overwrite whatever is there."""
        return not self.custom and self.resource not in _CONDITIONAL

    @property
    def resource(self) -> str:
        """``deployments.apps``: names the collection, for all versions and groups."""
        return self.collection or qualified(self.group, self.plural)

    @property
    def subresources(self) -> tuple[str, ...]:
        """The subresources that exist."""
        named = (("log", self.logs), ("scale", self.scale is not None), ("status", self.status))
        return tuple(name for name, there in named if there)


class Registry:
    """Everything that is served now."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Served] = {}
        self._by_kind: dict[tuple[str, str], Served] = {}
        self.measured: dict[tuple[str, str], Mapping[str, tuple[str, bool]]] = {}
        """What is only read and never stored: group and version → plural → (kind, namespaced)."""
        self.generation = 0
        """Moves with every change; for caches of discovery documents."""

    def add(self, *served: Served) -> None:
        """Serves each of ``served``, replacing what was under the same path."""
        for item in served:
            self._by_path[(item.group, item.version, item.plural)] = item
            self._by_kind[(item.api_version, item.kind)] = item
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """Serves the resource in no version any more."""
        for path in [p for p in self._by_path if p[0] == group and p[2] == plural]:
            gone = self._by_path.pop(path)
            self._by_kind.pop((gone.api_version, gone.kind), None)
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Served:
        """The resource at this path.

        Raises:
            ApiError: 404, it is not served.
        """
        found = self._by_path.get((group, version, plural))
        if found is None:
            known = self.has_group_version(group, version)
            raise no_such_path(group if known else None)
        return found

    def of(self, resource: Resource) -> Served:
        """The served resource that the client's table entry names."""
        return self.find(resource.group, resource.version, resource.plural)

    def of_kind(self, api_version: str, kind: str) -> Served | None:
        """The resource whose objects have this ``apiVersion`` and ``kind``."""
        return self._by_kind.get((api_version, kind))

    def versions_of(self, group: str, plural: str) -> list[Served]:
        """The resource in all its versions."""
        return [s for s in self._by_path.values() if s.group == group and s.plural == plural]

    def by_resource(self, resource: str) -> Served | None:
        """Some version of ``plural.group``."""
        plural, _, group = resource.partition(".")
        found = self.versions_of(group, plural)
        return found[0] if found else None

    def __iter__(self) -> Iterator[Served]:
        return iter(tuple(self._by_path.values()))

    def has_group_version(self, group: str, version: str) -> bool:
        """Whether anything is served there."""
        return any(s.group == group and s.version == version for s in self._by_path.values())


def wrong_kind(served: Served, body: Json) -> ApiError | None:
    """What refuses ``body`` when it says that it is something else than ``served``."""
    api_version, kind = body.get("apiVersion"), body.get("kind")
    if api_version not in (None, "", served.api_version):
        return bad_request(
            f"the API version in the data ({api_version}) does not match the expected API "
            f"version ({served.api_version})"
        )
    if kind not in (None, "", served.kind):
        if served.custom:
            name = (body.get("metadata") or {}).get("name", "")
            return invalid(
                served.group, served.kind, name, [bad_value("kind", kind, f"must be {served.kind}")]
            )
        return bad_request(
            f"the kind in the data ({kind}) does not match the expected kind ({served.kind})"
        )
    return None
