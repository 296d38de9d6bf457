"""Nobody may hand out more than they have.

A role may be written by whoever holds all of its rules, or the verb ``escalate`` on it; a binding
by whoever holds all the rules of its role, or the verb ``bind`` on that role.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.authorization import Attributes
from beamlit_operator.devcluster.apiserver.errors import forbidden, not_found
from beamlit_operator.devcluster.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    ROLE_BINDINGS,
    ROLES,
    Rbac,
)
from beamlit_operator.devcluster.apiserver.users import User
from beamlit_operator.kube import Json

_CONCERNED: Final = frozenset((ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS))


class Escalation:
    """The admission step that checks roles and bindings."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    def concerns(self, review: Review) -> bool:
        """Writes of roles and bindings by those who may not do everything anyway."""
        return (
            review.served.resource in _CONCERNED
            and review.verb != "DELETE"
            and not review.options.user.is_master
        )

    async def mutate(self, review: Review) -> Json:
        """Nothing changes."""
        assert review.new is not None
        return review.new

    async def validate(self, review: Review) -> None:
        """Refuses with 403 what goes beyond the user's own rules."""
        assert review.new is not None
        new, old = review.new, review.old
        if old is not None and _content(new) == _content(old):
            return
        if review.served.resource in (ROLES, CLUSTER_ROLES):
            if not self._may(review, "escalate", review.served.plural, review.key.name):
                self._compare(review, new.get("rules") or [])
            return
        reference = new["roleRef"]
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        if self._may(review, "bind", plural, str(reference.get("name", ""))):
            return
        rules = self._rbac.role_rules(reference, review.key.namespace)
        if rules is None:
            raise not_found(GROUP, review.served.plural, str(reference.get("name", "")))
        self._compare(review, rules)

    def _may(self, review: Review, verb: str, plural: str, name: str) -> bool:
        asked = Attributes(
            verb, group=GROUP, resource=plural, namespace=review.key.namespace, name=name
        )
        return self._rbac.decide(review.options.user, asked).allowed

    def _compare(self, review: Review, rules: Sequence[Json]) -> None:
        user = review.options.user
        own = list(self._rbac.rules(user, review.key.namespace))
        lacking = missing(rules, own)
        if lacking:
            raise forbidden(GROUP, review.served.plural, review.key.name, _sentence(user, lacking))


def _content(item: Json) -> Json:
    return {name: value for name, value in item.items() if name not in ("metadata", "apiVersion")}


def _sentence(user: User, lacking: Sequence[Json]) -> str:
    groups = " ".join(f'"{name}"' for name in user.groups)
    listed = "\n".join(sorted(shown(rule) for rule in lacking))
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not '
        f"currently held:\n{listed}"
    )


def missing(wanted: Sequence[Json], own: Sequence[Json]) -> list[Json]:
    """The parts of ``wanted`` that no rule of ``own`` covers; verbs of one resource together."""
    together: dict[tuple[str, ...], Json] = {}
    for rule in wanted:
        for part in _parts(rule):
            if not any(_covers(mine, part) for mine in own):
                _collect(together, part)
    return list(together.values())


def _parts(rule: Json) -> Iterator[Json]:
    """The rule as rules of one verb, group, resource and name (or path) each."""
    verbs = rule.get("verbs") or ()
    for url, verb in itertools.product(rule.get("nonResourceURLs") or (), verbs):
        yield {"nonResourceURLs": [url], "verbs": [verb]}
    names = [[name] for name in rule.get("resourceNames") or ()] or [[]]
    for group, resource, name, verb in itertools.product(
        rule.get("apiGroups") or (), rule.get("resources") or (), names, verbs
    ):
        part = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        yield {**part, "resourceNames": name} if name else part


def _collect(together: dict[tuple[str, ...], Json], part: Json) -> None:
    if "nonResourceURLs" in part:
        key: tuple[str, ...] = ("path", part["nonResourceURLs"][0], part["verbs"][0])
    else:
        key = (part["apiGroups"][0], part["resources"][0], *part.get("resourceNames", ()))
    known = together.setdefault(key, {**part, "verbs": []})
    known["verbs"] += [verb for verb in part["verbs"] if verb not in known["verbs"]]


def _covers(mine: Json, part: Json) -> bool:
    verbs = mine.get("verbs") or ()
    if "*" not in verbs and part["verbs"][0] not in verbs:
        return False
    if "nonResourceURLs" in part:
        wanted = part["nonResourceURLs"][0]
        return any(
            url in ("*", wanted) or (url.endswith("*") and wanted.startswith(url[:-1]))
            for url in mine.get("nonResourceURLs") or ()
        )
    groups, resources = mine.get("apiGroups") or (), mine.get("resources") or ()
    resource = part["resources"][0]
    _, _, subresource = resource.partition("/")
    named = mine.get("resourceNames")
    return (
        ("*" in groups or part["apiGroups"][0] in groups)
        and (
            "*" in resources
            or resource in resources
            or (bool(subresource) and f"*/{subresource}" in resources)
        )
        and (not named or (part.get("resourceNames") or [None])[0] in named)
    )


_FIELDS: Final = (
    ("apiGroups", "APIGroups"),
    ("resources", "Resources"),
    ("nonResourceURLs", "NonResourceURLs"),
    ("resourceNames", "ResourceNames"),
    ("verbs", "Verbs"),
)


def shown(rule: Json) -> str:
    """``{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}``."""
    parts = []
    for field, title in _FIELDS:
        values = rule.get(field)
        if values:
            parts.append(f"{title}:[" + " ".join(f'"{value}"' for value in values) + "]")
    return "{" + ", ".join(parts) + "}"
