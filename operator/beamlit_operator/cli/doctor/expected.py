"""The rights that operator and gateway of this version use, as manifests/rbac has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from beamlit_operator.cli.shipped import read_roles
from beamlit_operator.kube import Json


@dataclass(frozen=True, slots=True)
class Expected:
    """One right; ``namespace`` is empty for one in every namespace."""

    component: str
    verb: str
    group: str
    resource: str
    subresource: str
    name: str
    namespace: str

    @property
    def shown(self) -> str:
        """For people."""
        plural = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        named = f" {self.name}" if self.name else ""
        return (f"{plural}.{self.group}" if self.group else plural) + named


def expected(system: str) -> list[Expected]:
    """All of them, for an installation in that namespace."""
    return [
        right
        for component in ("operator", "gateway")
        for role in read_roles(component)
        if role["kind"] in ("Role", "ClusterRole")
        for right in _of(role, component, system)
    ]


def _of(role: Json, component: str, system: str) -> Iterator[Expected]:
    namespace = system if role["kind"] == "Role" else ""
    for rule in role.get("rules") or ():
        for group, resource, verb, name in product(
            rule.get("apiGroups") or (),
            rule.get("resources") or (),
            rule.get("verbs") or (),
            rule.get("resourceNames") or ("",),
        ):
            plural, _, subresource = resource.partition("/")
            yield Expected(component, verb, group, plural, subresource, name, namespace)
