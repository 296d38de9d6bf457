"""Does a pod fit on a node: kube-scheduler's filters, each a small function with its reasons.

The order and the wording are kube-scheduler's, because people search for these sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from beamlit_operator.devcluster.quantities import parse
from beamlit_operator.devcluster.selectors import node_matches
from beamlit_operator.kube import Json

Amounts = dict[str, Fraction]

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"


def reasons_against(pod: Json, node: Json, used: Mapping[str, Fraction]) -> tuple[str, ...]:
    """Why the pod cannot run on the node; empty when it can. The first failing filter speaks.

    ``used`` is what the pods that are on the node have requested (with ``pods`` as their count).
    """
    return (
        _unschedulable(pod, node)
        or _node_name(pod, node)
        or _taints(pod, node)
        or _affinity(pod, node)
        or _resources(pod, node, used)
    )


def requests(pod: Json) -> Amounts:
    """What a pod asks for: the larger of its containers' sum and each init container.

    Sidecars (init containers that restart always) run beside what starts after them. Limits stand
    in for missing requests. ``pods`` is 1.
    """
    spec = pod["spec"]
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, _requests_of(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _requests_of(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            own = {}
        _raise_to(peak, _sum(own, sidecars))
    _add(total, sidecars)
    _raise_to(total, peak)
    _add(total, {name: parse(value) for name, value in (spec.get("overhead") or {}).items()})
    total["pods"] = Fraction(1)
    return total


def _requests_of(container: Json) -> Amounts:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: parse(value) for name, value in merged.items()}


def _add(total: Amounts, more: Mapping[str, Fraction]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Fraction(0)) + amount


def _sum(one: Mapping[str, Fraction], other: Mapping[str, Fraction]) -> Amounts:
    result = dict(one)
    _add(result, other)
    return result


def _raise_to(total: Amounts, least: Mapping[str, Fraction]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, Fraction(0)), amount)


def sum_of(pods: Iterable[Json]) -> Amounts:
    """What all these pods ask for together."""
    total: Amounts = {}
    for pod in pods:
        _add(total, requests(pod))
    return total


def allocatable(node: Json) -> Amounts:
    """What a node has to give."""
    status = node.get("status") or {}
    amounts = status.get("allocatable") or status.get("capacity") or {}
    return {name: parse(value) for name, value in amounts.items()}


def _unschedulable(pod: Json, node: Json) -> tuple[str, ...]:
    if not (node.get("spec") or {}).get("unschedulable"):
        return ()
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return () if _tolerated(pod, taint) else ("node(s) were unschedulable",)


def _node_name(pod: Json, node: Json) -> tuple[str, ...]:
    wanted = pod["spec"].get("nodeName")
    if wanted and wanted != node["metadata"]["name"]:
        return ("node(s) didn't match the requested node name",)
    return ()


def _taints(pod: Json, node: Json) -> tuple[str, ...]:
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(pod, taint):
            return ("node(s) had untolerated taint(s)",)
    return ()


def _tolerated(pod: Json, taint: Json) -> bool:
    for toleration in pod["spec"].get("tolerations") or ():
        effect = toleration.get("effect")
        if effect and effect != taint.get("effect"):
            continue
        key = toleration.get("key")
        exists = toleration.get("operator", "Equal") == "Exists"
        if not key:
            if exists:
                return True
            continue
        if key == taint["key"] and (
            exists or toleration.get("value", "") == taint.get("value", "")
        ):
            return True
    return False


def _affinity(pod: Json, node: Json) -> tuple[str, ...]:
    """``nodeSelector`` and required node affinity, of which any one term is enough."""
    spec = pod["spec"]
    labels = node["metadata"].get("labels") or {}
    selected = all(labels.get(k) == v for k, v in (spec.get("nodeSelector") or {}).items())
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if selected and (
        required is None
        or any(node_matches(term, node) for term in required.get("nodeSelectorTerms") or ())
    ):
        return ()
    return ("node(s) didn't match Pod's node affinity/selector",)


def _resources(pod: Json, node: Json, used: Mapping[str, Fraction]) -> tuple[str, ...]:
    have = allocatable(node)
    missing = []
    for name, amount in sorted(requests(pod).items()):
        if amount <= 0:
            continue
        free = have.get(name, Fraction(0)) - used.get(name, Fraction(0))
        if name == "pods" and "pods" not in have:
            continue
        if amount > free:
            missing.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return tuple(missing)
