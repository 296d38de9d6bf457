"""Whether a user's pod template has the shape that ours can be laid under.

`spec.podTemplate` is free form in the CRD. The API server checks the pod that results; what is
checked here is only what this room itself looks into.
"""

from collections.abc import Mapping
from typing import Any

from beamlit_operator.workloads.merge import directive_problem
from beamlit_operator.workloads.pods import FETCHING, SERVING

_FIELD = "spec.podTemplate"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

_NAMED_LISTS = ("containers", "initContainers", "volumes")
_PROTECTED = (("containers", SERVING), ("initContainers", FETCHING))


def template_problem(template: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a pod template, with the field; None if it can be used."""
    for name, part in (template or {}).items():
        if name not in ("metadata", "spec"):
            return f"{_FIELD}.{name} is not a field of a pod template: remove it"
        if not isinstance(part, Mapping):
            return _not_an_object(name)
    if ((template or {}).get("metadata") or {}).get("finalizers"):
        return f"{_FIELD}.metadata.finalizers would keep every pod that ends: remove them"
    spec = (template or {}).get("spec") or {}
    return (
        _removal_problem(spec)
        or _lists_problem(spec)
        or directive_problem(template or {}, _FIELD)
        or _affinity_problem(spec.get("affinity"))
    )


def _removal_problem(spec: Mapping[str, Any]) -> str | None:
    """The containers are the model's: nothing may take them away as a whole."""
    for directive in ("$patch", "$retainKeys"):
        if directive in spec and spec[directive] != "merge":
            return f"{_FIELD}.spec.{directive} would remove the model's containers: remove it"
    for kind, name in _PROTECTED:
        entries = spec.get(kind)
        for each in entries if isinstance(entries, list) else ():
            if isinstance(each, Mapping) and each.get("$patch") == "replace":
                where = f"{_FIELD}.spec.{kind}"
                return f"{where}: $patch: replace would remove {name}, which is the model's"
    return None


def _lists_problem(spec: Mapping[str, Any]) -> str | None:
    for kind in _NAMED_LISTS:
        entries = spec.get(kind, [])
        if not isinstance(entries, list) or not all(
            isinstance(each, Mapping)
            and (isinstance(each.get("name"), str) or each.get("$patch") == "replace")
            for each in entries
        ):
            return f"{_FIELD}.spec.{kind} must be a list of objects with a name"
    for kind, name in _PROTECTED:
        for each in spec.get(kind, ()):
            if each["name"] == name and each.get("$patch", "merge") != "merge":
                return f"{_FIELD}.spec.{kind}[{name}] cannot be removed: it is the model's"
    for each in spec.get("containers", ()):
        path = f"spec.containers[{each['name']}].resources"
        resources = each.get("resources") or {}
        if not isinstance(resources, Mapping):
            return _not_an_object(path)
        if not isinstance(resources.get("limits") or {}, Mapping):
            return _not_an_object(f"{path}.limits")
    if not _objects(spec.get("tolerations") or []):
        return f"{_FIELD}.spec.tolerations must be a list of objects"
    return None


def _affinity_problem(affinity: Any) -> str | None:
    """The way down to the node selector terms, which the policies' own are combined with."""
    path, at = "spec.affinity", affinity
    for name in ("nodeAffinity", _REQUIRED, None):
        if at is None:
            return None
        if not isinstance(at, Mapping):
            return _not_an_object(path)
        if name is not None:
            path, at = f"{path}.{name}", at.get(name)
    terms = at.get("nodeSelectorTerms") or []
    if not _objects(terms) or not all(_objects(t.get("matchExpressions") or []) for t in terms):
        return f"{_FIELD}.{path}.nodeSelectorTerms must be a list of node selector terms"
    return None


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)


def _not_an_object(path: str) -> str:
    return f"{_FIELD}.{path} must be an object"
