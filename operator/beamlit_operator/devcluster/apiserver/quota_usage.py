"""How much of which quota an object uses. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from beamlit_operator.devcluster.apiserver.amounts import ONE, Amount
from beamlit_operator.devcluster.apiserver.pod_resources import (
    Amounts,
    Kind,
    of_container,
    of_pod,
)
from beamlit_operator.kube import Json

_PLAIN: Final = frozenset(("cpu", "memory", "ephemeral-storage"))
"""Requests of these may be limited under their own name, as ``cpu`` for ``requests.cpu``."""

_MUST_SAY: Final = frozenset(
    ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
)
"""A quota of these wants every container of a pod to say how much it is."""

_COUNTED: Final = frozenset(
    ["pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas"]
)

_KINDS: Final[tuple[Kind, ...]] = ("requests", "limits")

SCOPES: Final = (
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
)


def tracks(resource: str, hard: Container[str]) -> bool:
    """Whether objects of ``resource`` can matter to a quota with these names."""
    if resource in ("pods", "services", "persistentvolumeclaims"):
        return True
    return f"count/{resource}" in hard or (resource in _COUNTED and resource in hard)


def usage(resource: str, item: Json) -> Amounts:
    """What ``item`` uses, under every name a quota may have for it."""
    if resource == "pods" and (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {f"count/{resource}": ONE}
    found: Amounts = {f"count/{resource}": ONE}
    if resource in _COUNTED:
        found[resource] = ONE
    if resource == "pods":
        spec = item["spec"]
        for name, amount in of_pod(spec, "requests").items():
            found[f"requests.{name}"] = amount
            if name in _PLAIN:
                found[name] = amount
        for name, amount in of_pod(spec, "limits").items():
            found[f"limits.{name}"] = amount
    elif resource == "services":
        spec = item.get("spec") or {}
        kind, ports = spec.get("type"), spec.get("ports") or ()
        if kind == "LoadBalancer":
            found["services.loadbalancers"] = ONE
        if kind in ("NodePort", "LoadBalancer"):
            found["services.nodeports"] = Amount(ONE.value * len(ports))
    elif resource == "persistentvolumeclaims":
        spec = item.get("spec") or {}
        for name, amount in of_container(spec, "requests").items():
            found[f"requests.{name}"] = amount
            if spec.get("storageClassName"):
                home = f"{spec['storageClassName']}.storageclass.storage.k8s.io"
                found[f"{home}/requests.{name}"] = amount
                found[f"{home}/persistentvolumeclaims"] = ONE
    return found


def unspecified(spec: Json, hard: Mapping[str, Amount]) -> dict[str, list[str]]:
    """What containers of a pod must say for a quota of ``hard``, and the names of those silent."""
    found: dict[str, list[str]] = {}
    for name in sorted(_MUST_SAY & set(hard)):
        kind, _, resource = name.rpartition(".")
        for field in ("containers", "initContainers"):
            for container in spec.get(field) or ():
                said = of_container(container, "limits" if kind == "limits" else "requests")
                if resource not in said:
                    found.setdefault(name, []).append(container["name"])
    return {name: sorted(names) for name, names in found.items()}


def in_scope(quota: Json, resource: str, item: Json) -> bool:
    """Whether the quota with this spec counts ``item``; a scope is about pods only."""
    scopes: list[Json] = [{"scopeName": name} for name in quota.get("scopes") or ()]
    scopes += (quota.get("scopeSelector") or {}).get("matchExpressions") or []
    if not scopes:
        return True
    return resource == "pods" and all(_matches(scope, item) for scope in scopes)


def _matches(scope: Json, pod: Json) -> bool:
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    best_effort = not any(
        of_container(container, kind).keys() & {"cpu", "memory"}
        for container in containers
        for kind in _KINDS
    )
    terminating = spec.get("activeDeadlineSeconds") is not None
    match scope.get("scopeName"):
        case "BestEffort":
            return best_effort
        case "NotBestEffort":
            return not best_effort
        case "Terminating":
            return terminating
        case "NotTerminating":
            return not terminating
        case "PriorityClass":
            return _matches_name(scope, spec.get("priorityClassName") or "")
        case _:
            return False


def _matches_name(scope: Json, name: str) -> bool:
    values = scope.get("values") or ()
    match scope.get("operator", "Exists"):
        case "In":
            return name in values
        case "NotIn":
            return name not in values
        case "DoesNotExist":
            return not name
        case _:
            return bool(name)
