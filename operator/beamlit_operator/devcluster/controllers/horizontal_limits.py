"""How fast a HorizontalPodAutoscaler may go: ``spec.behavior``.

Pure. First the recommendations are stabilised, then the rate is limited by the policies, then by
minimum and maximum, as ``pkg/controller/podautoscaler/horizontal.go`` does. Where nothing is said,
Kubernetes' defaults hold: up by 4 pods or 100 % in 15 seconds, down by 100 % in 15 seconds after
five minutes of lower recommendations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from beamlit_operator.kube import Json

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": (
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ),
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": ({"type": "Percent", "value": 100, "periodSeconds": 15},),
    },
}

Past = tuple[tuple[datetime, int], ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision hands to the next: recommendations, and changes that were made."""

    recommendations: Past = ()
    added: Past = ()
    removed: Past = ()


@dataclass(frozen=True, slots=True)
class Told:
    """Status, reason and message of a condition."""

    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Limited:
    """The replicas that may be set, and what ``AbleToScale`` and ``ScalingLimited`` say."""

    replicas: int
    able: Told
    limited: Told
    memory: Memory


READY = Told(True, "ReadyForNewScale", "recommended size matches current size")
WITHIN = Told(False, "DesiredWithinRange", "the desired count is within the acceptable range")


def rules_of(hpa: Json, direction: str) -> dict[str, Any]:
    """``spec.behavior.scaleUp`` or ``scaleDown`` with its defaults."""
    given = ((hpa["spec"].get("behavior") or {}).get(direction)) or {}
    return {
        **_DEFAULTS[direction],
        **{name: value for name, value in given.items() if value not in (None, [])},
    }


def limited(hpa: Json, *, current: int, desired: int, memory: Memory, now: datetime) -> Limited:
    """What becomes of the recommendation ``desired``."""
    up, down = rules_of(hpa, "scaleUp"), rules_of(hpa, "scaleDown")
    stable = _stabilized(current, desired, up=up, down=down, memory=memory, now=now)
    able = READY
    if stable > desired:
        able = Told(
            True,
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent "
            "recommendation",
        )
    elif stable < desired:
        able = Told(
            True,
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent "
            "recommendation",
        )
    longest = max(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
    kept = _since(memory.recommendations, now - timedelta(seconds=longest))
    least = hpa["spec"].get("minReplicas")
    replicas, limit = _within(
        current,
        stable,
        least=1 if least is None else least,
        most=hpa["spec"]["maxReplicas"],
        highest=_highest(current, up, memory.added, now),
        lowest=_lowest(current, down, memory.removed, now),
    )
    return Limited(
        replicas,
        able,
        limit,
        Memory((*kept, (now, desired)), memory.added, memory.removed),
    )


def changed(hpa: Json, memory: Memory, *, before: int, after: int, now: datetime) -> Memory:
    """The memory, with a change that was made."""
    up, down = (_longest_period(rules_of(hpa, name)) for name in ("scaleUp", "scaleDown"))
    added = _since(memory.added, now - timedelta(seconds=up))
    removed = _since(memory.removed, now - timedelta(seconds=down))
    if after > before:
        added = (*added, (now, after - before))
    else:
        removed = (*removed, (now, before - after))
    return Memory(memory.recommendations, added, removed)


def _stabilized(
    current: int,
    desired: int,
    *,
    up: Mapping[str, Any],
    down: Mapping[str, Any],
    memory: Memory,
    now: datetime,
) -> int:
    growing = desired >= current
    window = timedelta(seconds=(up if growing else down)["stabilizationWindowSeconds"])
    recent = [wish for at, wish in memory.recommendations if at > now - window]
    return min([desired, *recent]) if growing else max([desired, *recent])


def _within(
    current: int, wanted: int, *, least: int, most: int, highest: int, lowest: int
) -> tuple[int, Told]:
    """
    | wanted        | beyond                          | ScalingLimited                        |
    |---------------|---------------------------------|---------------------------------------|
    | more          | the policies' limit             | True, ScaleUpLimit                    |
    | more          | maxReplicas                     | True, TooManyReplicas                 |
    | fewer         | the policies' limit             | True, ScaleDownLimit                  |
    | fewer         | minReplicas                     | True, TooFewReplicas                  |
    | anything else |                                 | False, DesiredWithinRange             |
    """
    if wanted > current and wanted > min(most, highest):
        if most > highest:
            text = "the desired replica count is increasing faster than the maximum scale rate"
            return highest, Told(True, "ScaleUpLimit", text)
        text = "the desired replica count is more than the maximum replica count"
        return most, Told(True, "TooManyReplicas", text)
    if wanted < current and wanted < max(least, lowest):
        if least < lowest:
            text = "the desired replica count is decreasing faster than the maximum scale rate"
            return lowest, Told(True, "ScaleDownLimit", text)
        text = "the desired replica count is less than the minimum replica count"
        return least, Told(True, "TooFewReplicas", text)
    return wanted, WITHIN


def _highest(current: int, rules: Mapping[str, Any], added: Past, now: datetime) -> int:
    """The most that the policies allow."""
    if rules["selectPolicy"] == "Disabled":
        return current

    def allowed(policy: Mapping[str, Any]) -> int:
        start = current - _total(added, policy, now)
        if policy["type"] == "Pods":
            return int(start + policy["value"])
        # Rounded up: a small target must be able to grow at all.
        return math.ceil(start * (100 + int(policy["value"])) / 100)

    choose: Callable[..., int] = min if rules["selectPolicy"] == "Min" else max
    return max(choose(map(allowed, rules["policies"])), current)


def _lowest(current: int, rules: Mapping[str, Any], removed: Past, now: datetime) -> int:
    """The fewest that the policies allow."""
    if rules["selectPolicy"] == "Disabled":
        return current

    def allowed(policy: Mapping[str, Any]) -> int:
        start = current + _total(removed, policy, now)
        if policy["type"] == "Pods":
            return int(start - policy["value"])
        return int(start * (100 - policy["value"]) / 100)

    choose: Callable[..., int] = max if rules["selectPolicy"] == "Min" else min
    return min(choose(map(allowed, rules["policies"])), current)


def _total(past: Past, policy: Mapping[str, Any], now: datetime) -> int:
    cutoff = now - timedelta(seconds=policy["periodSeconds"])
    return sum(change for at, change in past if at > cutoff)


def _since(past: Past, moment: datetime) -> Past:
    return tuple(each for each in past if each[0] >= moment)


def _longest_period(rules: Mapping[str, Any]) -> int:
    return max(int(policy["periodSeconds"]) for policy in rules["policies"])
