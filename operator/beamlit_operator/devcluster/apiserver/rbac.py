"""RBAC: which role, through which binding, lets a user do what they ask.

Bindings are indexed by subject: a request looks at the bindings of its user and groups only,
however many there are of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from beamlit_operator.devcluster.apiserver.authorization import Attributes, Decision
from beamlit_operator.devcluster.apiserver.store import Entry, Event, Key, Store
from beamlit_operator.devcluster.apiserver.users import User, service_account
from beamlit_operator.kube import Json

GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = f"roles.{GROUP}"
CLUSTER_ROLES: Final = f"clusterroles.{GROUP}"
ROLE_BINDINGS: Final = f"rolebindings.{GROUP}"
CLUSTER_ROLE_BINDINGS: Final = f"clusterrolebindings.{GROUP}"

Subject = tuple[str, str]
"""``User`` or ``Group``, and the name; a ServiceAccount is the user it acts as."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding that concerns a user: whom it names, and the rules it gives (None: no role)."""

    binding: Entry
    subject: str
    rules: list[Json] | None

    @property
    def role(self) -> tuple[str, str]:
        """Kind and name of the role."""
        reference = self.binding.obj["roleRef"]
        return reference["kind"], reference["name"]

    def reason(self) -> str:
        """The ``reason`` of a review that this grant allows."""
        kind, name = self.role
        key = self.binding.key
        bound = f"{key.name}/{key.namespace}" if key.namespace else key.name
        return f'RBAC: allowed by {self.binding.obj["kind"]} "{bound}" of {kind} "{name}" to ' + (
            self.subject
        )


class Rbac:
    """The :class:`~beamlit_operator.devcluster.apiserver.authorization.Authorizer` by roles."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bindings: dict[str, dict[Subject, dict[str, tuple[Entry, str]]]] = {}

    def load(self) -> None:
        """Reads the bindings in the store."""
        for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            for entry in self._store.collection(resource).objects.values():
                self._add(entry)

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit."""
        if resource not in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            return
        if event.before is not None:
            self._remove(event.before)
        if event.type != "DELETED":
            self._add(event.entry)

    def _add(self, entry: Entry) -> None:
        here = self._bindings.setdefault(entry.key.namespace, {})
        for subject, text in _subjects(entry):
            here.setdefault(subject, {})[entry.key.name] = (entry, text)

    def _remove(self, entry: Entry) -> None:
        here = self._bindings.get(entry.key.namespace, {})
        for subject, _ in _subjects(entry):
            named = here.get(subject, {})
            named.pop(entry.key.name, None)
            if not named:
                here.pop(subject, None)
        if not here:
            self._bindings.pop(entry.key.namespace, None)

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """The bindings that concern ``user``: cluster-wide ones first, then the namespace's."""
        mine: list[Subject] = [("User", user.name), *(("Group", name) for name in user.groups)]
        for home in ("", namespace) if namespace else ("",):
            here = self._bindings.get(home)
            if here is None:
                continue
            for subject in mine:
                for entry, text in here.get(subject, {}).values():
                    yield Grant(entry, text, self.role_rules(entry.obj["roleRef"], home))

    def role_rules(self, reference: Json, namespace: str) -> list[Json] | None:
        """The rules of the role that a binding in ``namespace`` refers to; None without it."""
        cluster = reference.get("kind") == "ClusterRole"
        key = Key("" if cluster else namespace, str(reference.get("name", "")))
        entry = self._store.collection(CLUSTER_ROLES if cluster else ROLES).objects.get(key)
        return None if entry is None else entry.obj.get("rules") or []

    def decide(self, user: User, attributes: Attributes) -> Decision:
        """Whether one of the user's roles allows it; ``system:masters`` may do everything."""
        if user.is_master:
            return Decision(True)
        missing: list[str] = []
        for grant in self.grants(user, attributes.namespace):
            if grant.rules is None:
                kind, name = grant.role
                missing.append(f'{kind.lower()}.{GROUP} "{name}" not found')
            elif any(allows(rule, attributes) for rule in grant.rules):
                return Decision(True, grant.reason())
        return Decision(False, f"RBAC: {aggregated(missing)}" if missing else "")

    def rules(self, user: User, namespace: str) -> Iterator[Json]:
        """Every rule ``user`` has in ``namespace``, as often as it is granted."""
        if user.is_master:
            yield {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            yield {"verbs": ["*"], "nonResourceURLs": ["*"]}
        for grant in self.grants(user, namespace):
            for rule in grant.rules or ():
                # Paths are nowhere in particular: a RoleBinding cannot grant them.
                if not grant.binding.key.namespace or "nonResourceURLs" not in rule:
                    yield rule


def aggregated(messages: list[str]) -> str:
    """Several errors as Kubernetes prints them."""
    once = list(dict.fromkeys(messages))
    return once[0] if len(once) == 1 else "[" + ", ".join(once) + "]"


def _subjects(binding: Entry) -> Iterator[tuple[Subject, str]]:
    for subject in binding.obj.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "ServiceAccount":
            namespace = subject.get("namespace") or binding.key.namespace
            text = f'ServiceAccount "{name}/{namespace}"'
            yield ("User", service_account(namespace, name).name), text
        elif kind in ("User", "Group"):
            yield (kind, name), f'{kind} "{name}"'


def allows(rule: Json, attributes: Attributes) -> bool:
    """Whether one PolicyRule covers the request.

    verbs, apiGroups and resources match by name or ``*``; ``*/scale`` is that subresource of
    every resource; resourceNames, when given, must hold the name; a path may end in ``*``.
    """
    if not _has(rule, "verbs", attributes.verb):
        return False
    if attributes.path:
        return any(
            url in ("*", attributes.path)
            or (url.endswith("*") and attributes.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames")
    return (
        _has(rule, "apiGroups", attributes.group)
        and (
            _has(rule, "resources", attributes.kind)
            or (
                bool(attributes.subresource)
                and f"*/{attributes.subresource}" in (rule.get("resources") or ())
            )
        )
        and (not names or attributes.name in names)
    )


def _has(rule: Json, field: str, value: str) -> bool:
    listed = rule.get(field) or ()
    return value in listed or "*" in listed
