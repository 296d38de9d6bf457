"""Label and field selectors: text in, a predicate over objects out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.kube import Json

Matcher = Callable[[Json], bool]
"""Decides whether an object is selected."""

_SET = re.compile(r"^\s*([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s!=,()]+)\s*$")
_ORDER = re.compile(r"^\s*([^\s!=,()<>]+)\s*([<>])\s*(-?\d+)\s*$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector; ``operator`` is in, notin, exists, absent, gt or lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` satisfy this term (``notin`` holds when the label is absent)."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:
                return value is not None and self._ordered(value)

    def _ordered(self, value: str) -> bool:
        if not re.fullmatch(r"-?\d+", value):
            return False
        bound = int(next(iter(self.values)))
        return int(value) > bound if self.operator == "gt" else int(value) < bound


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of ``labelSelector=text``, all of which must hold.

    Raises:
        ApiError: 400 when the text is no selector.
    """
    return tuple(_term(term) for term in _split(text) if term.strip())


def _split(text: str) -> list[str]:
    terms, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            terms.append(text[start:index])
            start = index + 1
    terms.append(text[start:])
    return terms


def _term(term: str) -> Requirement:
    if found := _SET.match(term):
        values = frozenset(value.strip() for value in found[3].split(","))
        return Requirement(found[1], found[2], values)
    if found := _EQUAL.match(term):
        operator = "notin" if found[2] == "!=" else "in"
        return Requirement(found[1], operator, frozenset((found[3],)))
    if found := _ORDER.match(term):
        return Requirement(found[1], "gt" if found[2] == ">" else "lt", frozenset((found[3],)))
    if found := _EXISTS.match(term):
        return Requirement(found[2], "absent" if found[1] else "exists")
    raise bad_request(f"unable to parse requirement: {term.strip()!r} is not a label selector term")


def label_matcher(text: str) -> Matcher | None:
    """The predicate of a label selector, None when everything is selected."""
    terms = parse_labels(text)
    if not terms:
        return None

    def matches(item: Json) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(term.holds(labels) for term in terms)

    return matches


def matches_selector(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Whether a ``LabelSelector`` object (matchLabels, matchExpressions) selects ``labels``.

    An empty selector selects everything, None nothing.
    """
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    return all(
        Requirement(
            term["key"], operators[term["operator"]], frozenset(term.get("values") or ())
        ).holds(labels)
        for term in selector.get("matchExpressions") or ()
    )


_COMMON_FIELDS = frozenset(("metadata.name", "metadata.namespace"))

_INVOLVED = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]

_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        (
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        )
    ),
    "events": frozenset(
        (
            *(f"involvedObject.{field}" for field in _INVOLVED),
            *(f"regarding.{field}" for field in _INVOLVED),
            "reason",
            "reportingComponent",
            "source",
            "type",
        )
    ),
    "events.events.k8s.io": frozenset(
        (*(f"regarding.{field}" for field in _INVOLVED), "reason", "reportingController", "type")
    ),
    "secrets": frozenset(("type",)),
    "namespaces": frozenset(("status.phase", "name")),
    "nodes": frozenset(("spec.unschedulable",)),
    "replicasets.apps": frozenset(("status.replicas",)),
    "services": frozenset(("spec.clusterIP", "spec.type")),
}


def field_matcher(
    text: str, resource: str, selectable: frozenset[str] = frozenset()
) -> Matcher | None:
    """The predicate of a field selector on ``resource`` (``plural.group``), None for everything.

    ``selectable`` are the further paths a custom resource definition names.

    Raises:
        ApiError: 400 for a field that cannot be selected on.
    """
    allowed = _COMMON_FIELDS | _FIELDS.get(resource, frozenset()) | selectable
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    for term in text.split(","):
        if not term.strip():
            continue
        found = re.fullmatch(r"\s*([^\s!=]+)\s*(==|=|!=)(.*)", term)
        if found is None:
            raise bad_request(f"invalid field selector: {term!r} is not of the form path=value")
        if found[1] not in allowed:
            raise bad_request(f'"{found[1]}" is not a known field selector for {resource}')
        terms.append((tuple(found[1].split(".")), found[2] != "!=", found[3].strip()))
    if not terms:
        return None

    def matches(item: Json) -> bool:
        return all((field_text(item, path) == value) is wanted for path, wanted, value in terms)

    return matches


def field_text(item: Json, path: tuple[str, ...]) -> str:
    """The value at ``path`` as selectors compare it: absent is the empty string."""
    if path == ("name",):
        path = ("metadata", "name")
    if path == ("source",):
        path = ("source", "component")
    value: Any = item
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def both(first: Matcher | None, second: Matcher | None) -> Matcher | None:
    """A matcher for what both select; None stands for everything."""
    if first is None or second is None:
        return first or second
    return lambda item: first(item) and second(item)
