"""Which node a pod goes to, or the sentence that says why none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from beamlit_operator.devcluster.scheduler import storage as volumes
from beamlit_operator.devcluster.scheduler.fit import (
    allocatable,
    reasons_against,
    requests,
    sum_of,
)
from beamlit_operator.devcluster.scheduler.storage import Storage, Wish
from beamlit_operator.kube import Json

SCHEDULER_NAME = "default-scheduler"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One pod without a node, all nodes, and the pods that are on each."""

    pod: Json
    nodes: Sequence[Json]
    pods_on: Mapping[str, Sequence[Json]]
    storage: Storage = field(default_factory=Storage)


@dataclass(frozen=True, slots=True)
class Decision:
    """Exactly one of the three is set; none when the pod is not ours to place."""

    node: str | None = None
    message: str | None = None
    wishes: tuple[Wish, ...] = ()
    """Claims that are bound first, for the node that was chosen."""
    chosen: str = ""
    """That node."""


def decide(snapshot: Snapshot) -> Decision:
    """The decision for one pod.

    | pod                                                   | decision                     |
    |-------------------------------------------------------|------------------------------|
    | has a node, has ended, is being deleted, or another   | nothing                      |
    | scheduler's, or held back by a scheduling gate        |                              |
    | asks for what this scheduler cannot do                | message that says so         |
    | names a claim that is missing, lost, going or unbound | kube-scheduler's sentence    |
    | fits on some nodes; claims wait for it                | the claims, and that node    |
    | fits on some nodes                                    | the least allocated of them  |
    | fits on none                                          | kube-scheduler's sentence    |
    """
    pod = snapshot.pod
    if not is_ours(pod):
        return Decision()
    refusal = unsupported(pod)
    if refusal is not None:
        return Decision(message=refusal)
    if not snapshot.nodes:
        return Decision(message="no nodes available to schedule pods")
    total = len(snapshot.nodes)
    missing = volumes.blocked(pod, snapshot.storage)
    if missing is not None:
        return Decision(message=f"0/{total} nodes are available: {missing}.")
    against: Counter[str] = Counter()
    best: tuple[Fraction, str] | None = None
    for node in snapshot.nodes:
        name = node["metadata"]["name"]
        used = sum_of(snapshot.pods_on.get(name, ()))
        reasons = reasons_against(pod, node, used) or volumes.reasons_against(
            pod, node, snapshot.storage
        )
        against.update(reasons)
        if not reasons:
            score = (_share_in_use(pod, node, used), name)
            best = score if best is None else min(best, score)
    if best is not None:
        node = next(item for item in snapshot.nodes if item["metadata"]["name"] == best[1])
        wishes = volumes.wishes(pod, node, snapshot.storage)
        return Decision(wishes=tuple(wishes), chosen=best[1]) if wishes else Decision(node=best[1])
    found = ", ".join(sorted(f"{count} {reason}" for reason, count in against.items()))
    return Decision(message=f"0/{total} nodes are available: {found}.")


def is_ours(pod: Json) -> bool:
    """Whether the pod waits for this scheduler."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not spec.get("schedulingGates")
        and spec.get("schedulerName", SCHEDULER_NAME) == SCHEDULER_NAME
        and "deletionTimestamp" not in pod["metadata"]
        and (pod.get("status") or {}).get("phase", "Pending") == "Pending"
    )


def unsupported(pod: Json) -> str | None:
    """What a pod requires that this scheduler would have to ignore. It refuses instead."""
    affinity = pod["spec"].get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution"):
            return (
                f"the embedded cluster does not support required {kind}; "
                "use preferredDuringSchedulingIgnoredDuringExecution, or a real cluster"
            )
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule":
            return (
                "the embedded cluster does not support topologySpreadConstraints that must hold; "
                "use whenUnsatisfiable: ScheduleAnyway, or a real cluster"
            )
    return None


def _share_in_use(pod: Json, node: Json, used: Mapping[str, Fraction]) -> Fraction:
    """Mean share of CPU, memory and pods in use with this pod: NodeResourcesFit LeastAllocated.

    The pods count is there because pods on a laptop often request nothing at all.
    """
    have, more = allocatable(node), requests(pod)
    shares = [
        (used.get(name, Fraction(0)) + more.get(name, Fraction(0))) / have[name]
        for name in ("cpu", "memory", "pods")
        if have.get(name)
    ]
    return sum(shares, Fraction(0)) / len(shares) if shares else Fraction(1)
