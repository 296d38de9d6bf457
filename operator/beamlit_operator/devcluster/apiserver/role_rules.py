"""Rules of roles and bindings themselves: what follows, and what makes no sense. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from beamlit_operator.devcluster.apiserver.errors import Cause, bad_value, not_supported, required
from beamlit_operator.kube import Json

_GROUP: Final = "rbac.authorization.k8s.io"
_KINDS: Final = ["ServiceAccount", "User", "Group"]


def role_causes(item: Json) -> Iterator[Cause]:
    """What is wrong with a Role (it has a namespace) or ClusterRole."""
    namespaced = bool(item["metadata"].get("namespace"))
    for index, given in enumerate(item.get("rules") or ()):
        # A null is an empty rule, as everything in a list of structs is in Go.
        rule, where = given or {}, f"rules[{index}]"
        if not rule.get("verbs"):
            yield required(f"{where}.verbs", "verbs must contain at least one value")
        paths = rule.get("nonResourceURLs")
        if paths:
            if namespaced:
                listed = ",".join(f'"{path}"' for path in paths)
                yield Cause(
                    "FieldValueInvalid",
                    f"Invalid value: [{listed}]: namespaced rules cannot apply to non-resource "
                    "URLs",
                    f"{where}.nonResourceURLs",
                )
            elif any(rule.get(field) for field in ("apiGroups", "resources", "resourceNames")):
                yield bad_value(
                    f"{where}.nonResourceURLs",
                    paths,
                    "rules cannot apply to both regular resources and non-resource URLs",
                )
            continue
        if not rule.get("apiGroups"):
            yield required(
                f"{where}.apiGroups", "resource rules must supply at least one api group"
            )
        if not rule.get("resources"):
            yield required(f"{where}.resources", "resource rules must supply at least one resource")


def default_binding(item: Json) -> None:
    """Fills in, in place, the API groups."""
    reference = item.get("roleRef")
    if isinstance(reference, dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = _GROUP
    for subject in filter(None, item.get("subjects") or ()):
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _GROUP


def binding_causes(item: Json) -> Iterator[Cause]:
    """What is wrong with a RoleBinding (it has a namespace) or ClusterRoleBinding."""
    reference = item.get("roleRef") or {}
    kinds = ["Role", "ClusterRole"] if item["metadata"].get("namespace") else ["ClusterRole"]
    if reference.get("apiGroup") != _GROUP:
        yield not_supported("roleRef.apiGroup", reference.get("apiGroup"), [_GROUP])
    if reference.get("kind") not in kinds:
        yield not_supported("roleRef.kind", reference.get("kind"), kinds)
    if not reference.get("name"):
        yield required("roleRef.name")
    for index, given in enumerate(item.get("subjects") or ()):
        subject, where = given or {}, f"subjects[{index}]"
        if not subject.get("name"):
            yield required(f"{where}.name")
        kind = subject.get("kind")
        if kind not in _KINDS:
            yield not_supported(f"{where}.kind", kind, _KINDS)
        elif kind == "ServiceAccount":
            if subject.get("apiGroup"):
                yield not_supported(f"{where}.apiGroup", subject["apiGroup"], [""])
            if len(kinds) == 1 and not subject.get("namespace"):
                yield required(f"{where}.namespace")
        elif subject.get("apiGroup") != _GROUP:
            yield not_supported(f"{where}.apiGroup", subject.get("apiGroup"), [_GROUP])
