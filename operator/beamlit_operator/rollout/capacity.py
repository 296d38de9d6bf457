"""How many replicas each of two revisions has, and what weight that lets the new one have. Pure.

*Total* is what the load needs. A revision with weight *w* needs ``share(total, w)``: the part of
the total, rounded up, and at least one. Both together may have ``limit`` = total + surge; two
revisions that both serve need a total of two, where the maximum allows it.

Towards the weight *T* of a step (*want* = share(T), *hold* = what the stable one needs for the
weight it has):

| new ones ready | hold + want | room beyond the ready ones | stable        | new   | weight      |
|----------------|-------------|----------------------------|---------------|-------|-------------|
| want           |             |                            | share(100-T)  | want  | T           |
| fewer          | in limit    |                            | hold          | want  | as it is    |
| fewer          | over it     | some                       | hold          | room  | ready/total |
| fewer          | over it     | none                       | gives a tenth | those | ready/total |
| some, T=100    | over it     | stable has its last one    | gives it      | those | 100         |
| none, T=100    | over it     | stable has its only one    | gives it      | one   | 100, *cold* |

So with surge 0 the stable revision gives replicas before the new one gets them, the weight follows
what is ready and is never more than that carries, and with a single replica callers are held by the
gateways while the new one starts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two revisions: replicas wanted, those that are ready, and pods that exist, also
    those that are ending."""

    replicas: int = 0
    ready: int = 0
    pods: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Replicas of both, and the weight of the new one.

    Attributes:
        stable: replicas of the stable revision.
        canary: replicas of the new one.
        weight: percent that the new one may have now.
        reached: whether that is the weight of the step.
        cold: the only replica changes sides: the new one gets the requests before it is ready.
        blocked: why the step cannot be reached at all, for people.
    """

    stable: int
    canary: int
    weight: int
    reached: bool = False
    cold: bool = False
    blocked: str = ""


def share(total: int, weight: int) -> int:
    """The replicas that ``weight`` percent of the load need."""
    if weight <= 0 or total <= 0:
        return 0
    return max(1, -(-total * weight // 100))


def surge_of(text: str, total: int) -> int:
    """The replicas that ``rollout.surge`` allows beyond ``total``; percent are rounded up, as
    Kubernetes does with maxSurge."""
    if text.endswith("%"):
        return -(-total * int(text[:-1]) // 100)
    return int(text)


def limit_of(total: int, *, surge: int, target: int = 100, maximum: int = 0) -> int:
    """The most replicas of both revisions together. ``maximum`` 0 means no limit."""
    least = 2 if target < 100 and (maximum == 0 or maximum >= 2) else 1
    return max(total, least) + surge


def has_room(*, target: int, surge: int, maximum: int = 0) -> bool:
    """Whether both revisions can serve at once, where the step asks for that."""
    return target == 100 or limit_of(1, surge=surge, target=target, maximum=maximum) > 1


def settled(total: int, *, target: int, limit: int) -> tuple[int, int]:
    """Replicas of the stable and of the new revision at a step that is reached.

    Where the limit has no room for the rounding, the stable one has one less. At weight 100 it
    keeps one if there is room, so that all can go back to it.
    """
    canary = max(1, share(total, target)) if total else 0
    stable = share(total, 100 - target)
    if not total:
        return 0, 0
    if target == 100:
        return min(1, max(limit - canary, 0)), canary
    canary = min(canary, max(limit - 1, 1))
    return max(1, min(stable, limit - canary)), canary


def move(
    total: int,
    *,
    target: int,
    weight: int,
    stable: Side,
    canary: Side,
    surge: int,
    maximum: int = 0,
) -> Move:
    """The next move towards the weight of a step; the table above.

    Args:
        total: replicas that the load needs; 0 only where there is no room.
        target: the weight of the step.
        weight: what the new revision has reached so far.
        stable: the revision that gives.
        canary: the one that gets.
        surge: replicas beyond the total.
        maximum: of the deployment; 0 means no limit.
    """
    limit = limit_of(total, surge=surge, target=target, maximum=maximum)
    if not has_room(target=target, surge=surge, maximum=maximum):
        return Move(
            stable=total,
            canary=0,
            weight=0,
            blocked="surge 0 and maxNumReplicas 1 leave no room for two revisions: raise one of "
            "the two, or use strategy BlueGreen",
        )
    kept, want = settled(total, target=target, limit=limit)
    if canary.ready >= want:
        return Move(kept, want, target, reached=True)
    weight = min(weight, target)
    hold = share(total, 100 - weight)
    if hold + want <= limit:
        return Move(hold, want, weight)
    return _squeezed(
        total, target=target, weight=weight, want=want, limit=limit, stable=stable, canary=canary
    )


def _squeezed(
    total: int,
    *,
    target: int,
    weight: int,
    want: int,
    limit: int,
    stable: Side,
    canary: Side,
) -> Move:
    """There is no room for what both need: capacity moves step by step."""
    carried = min(target, max(weight, 100 * canary.ready // total))
    # Whole replicas: 1 of 3 carries 33 %, and the other 2 are enough for 67 %.
    hold = min(share(total, 100 - carried), max(total - canary.ready, 1 if carried < 100 else 0))
    if limit - hold <= canary.ready:
        given = max(hold - max(1, total // 10), 0 if target == 100 else 1)
        if given == 0 and canary.ready > 0:
            carried = 100
        elif given == 0:
            return Move(0, _alone(stable), 100, cold=True)
        hold = given
    # Pods that are ending have their place still.
    room = limit - max(hold, stable.pods)
    return Move(hold, min(want, limit - hold, max(canary.replicas, room)), carried)


def _alone(stable: Side) -> int:
    """The only place, once nothing of the stable revision is in it."""
    return 1 if stable.pods == 0 and stable.replicas == 0 else 0


def changing_sides(stable: Side, canary: Side) -> Move:
    """The only replica is on its way from one side to the other."""
    return Move(0, max(_alone(stable), canary.replicas), 100, cold=True)
