"""How many pods each ReplicaSet of a Deployment may have next: the arithmetic of a rollout.

The rules of kube-controller-manager's ``rolling.go`` and ``sync.go``, as pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

from beamlit_operator.kube import Json

DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"


@dataclass(frozen=True, slots=True)
class Sizes:
    """One ReplicaSet, as far as the arithmetic looks."""

    name: str
    wanted: int
    """``spec.replicas``."""
    running: int = 0
    """``status.replicas``."""
    available: int = 0
    created: str = ""
    """creationTimestamp: older ones are scaled first."""

    @staticmethod
    def of(replica_set: Json) -> Sizes:
        status = replica_set.get("status") or {}
        replicas = replica_set["spec"].get("replicas")
        return Sizes(
            replica_set["metadata"]["name"],
            1 if replicas is None else int(replicas),
            int(status.get("replicas") or 0),
            int(status.get("availableReplicas") or 0),
            str(replica_set["metadata"].get("creationTimestamp", "")),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rolling update may do, in pods."""

    surge: int
    unavailable: int


def bounds(deployment: Json) -> Bounds:
    """maxSurge rounded up, maxUnavailable rounded down; never both zero (``ResolveFenceposts``)."""
    spec = deployment["spec"]
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    replicas = replicas_of(deployment)
    surge = ceil(_share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = floor(_share(rolling.get("maxUnavailable", "25%"), replicas))
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, replicas))


def replicas_of(deployment: Json) -> int:
    """``spec.replicas``, 1 when it is not set."""
    replicas = deployment["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def is_recreate(deployment: Json) -> bool:
    """Whether the strategy is Recreate."""
    return bool((deployment["spec"].get("strategy") or {}).get("type") == "Recreate")


def _share(value: int | str, total: int) -> float:
    if isinstance(value, str) and value.endswith("%"):
        # Multiplied first: 25 % of 4 must be exactly 1.
        return int(value[:-1]) * total / 100
    return float(value)


def next_new(new: Sizes, old: Sequence[Sizes], *, replicas: int, limits: Bounds) -> int:
    """Pods the new ReplicaSet may have now: as many as the surge leaves room for."""
    if new.wanted >= replicas:
        return replicas
    total = new.wanted + sum(item.wanted for item in old)
    room = replicas + limits.surge - total
    return new.wanted + max(0, min(room, replicas - new.wanted))


def next_old(new: Sizes, old: Sequence[Sizes], *, replicas: int, limits: Bounds) -> dict[str, int]:
    """New sizes of the old ReplicaSets: first their broken pods go, then what is not needed.

    Returns only those that change.
    """
    least = replicas - limits.unavailable
    total = new.wanted + sum(item.wanted for item in old)
    missing_new = new.wanted - new.available
    budget = total - least - missing_new
    if budget <= 0:
        return {}
    sizes = {item.name: item.wanted for item in old}
    cleaned = 0
    for item in sorted(old, key=lambda item: item.created):
        broken = item.wanted - item.available
        drop = min(budget - cleaned, broken)
        if item.wanted and drop > 0:
            sizes[item.name] -= drop
            cleaned += drop
    available = new.available + sum(min(item.available, sizes[item.name]) for item in old)
    spare = available - least
    for item in sorted(old, key=lambda item: item.created):
        drop = min(sizes[item.name], max(0, spare))
        sizes[item.name] -= drop
        spare -= drop
    return {item.name: sizes[item.name] for item in old if sizes[item.name] != item.wanted}


def proportional(
    active: Sequence[Sizes], last_desired: Mapping[str, int], *, replicas: int, limits: Bounds
) -> dict[str, int]:
    """Sizes after the Deployment was scaled in the middle of a rollout.

    Every ReplicaSet grows or shrinks by its share; what rounding leaves goes to the largest.
    """
    total = sum(item.wanted for item in active)
    goal = replicas + limits.surge if replicas else 0
    to_add = goal - total
    order = sorted(active, key=lambda item: (-item.wanted, item.created))
    if to_add < 0:
        order = sorted(active, key=lambda item: (-item.wanted, item.created), reverse=False)
    sizes: dict[str, int] = {}
    added = 0
    for item in order:
        change = 0
        if item.wanted and to_add:
            before = last_desired.get(item.name) or total or 1
            share = round(item.wanted * goal / before) - item.wanted
            left = to_add - added
            change = min(share, left) if to_add > 0 else max(share, left)
            if (change > 0) != (to_add > 0):
                change = 0
        sizes[item.name] = max(0, item.wanted + change)
        added += change
    if order and added != to_add:
        largest = order[0].name
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return sizes
