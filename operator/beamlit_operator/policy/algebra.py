"""Sets of allowed values: what a policy allows, and how such sets are joined and met.

A value is a kind and a name, written `country:us`. Values can contain one another (a continent its
countries, a country its locations), so a set stands for everything below its values. A set is kept
*reduced*: no value lies within another of the same set. Then two sets allow the same things exactly
when they are equal, as long as a value is never spelled out as all of its parts.

Containment is a forest: a value has at most one parent. So two values are either apart or one lies
within the other, and the meeting of two sets needs no other values than theirs.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple


class Value(NamedTuple):
    """One allowed value in its normal form: lower case, the catalogue's own spelling."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


ValueSet = frozenset[Value]
"""A reduced set of values. Empty means that nothing is allowed; *anything* is None, not a set."""

Parent = Callable[[Value], Value | None]
"""The smallest value that contains another, if any."""

REMEMBERED = 16384
"""Results an algebra keeps of each operation: more than a large cluster has pairs of policies."""


def within(value: Value, allowed: ValueSet | None, parent: Parent) -> bool:
    """Whether everything the value stands for is allowed."""
    if allowed is None:
        return True
    at: Value | None = value
    while at is not None:
        if at in allowed:
            return True
        at = parent(at)
    return False


def reduced(values: Iterable[Value], parent: Parent) -> ValueSet:
    """The same set without the values that lie within another of it."""
    everything = frozenset(values)
    if len(everything) < 2:
        return everything
    return frozenset(
        value
        for value in everything
        if (above := parent(value)) is None or not within(above, everything, parent)
    )


def union(sets: Iterable[ValueSet], parent: Parent) -> ValueSet:
    """What any of the sets allows."""
    return reduced((value for each in sets for value in each), parent)


def intersection(left: ValueSet, right: ValueSet, parent: Parent) -> ValueSet:
    """What both sets allow: of each pair of which one lies within the other, the smaller."""
    if left == right:
        return left
    return reduced(
        [value for value in left if within(value, right, parent)]
        + [value for value in right if within(value, left, parent)],
        parent,
    )


def subset(left: ValueSet, right: ValueSet | None, parent: Parent) -> bool:
    """Whether `right` (None: anything) allows everything that `left` allows."""
    return all(within(value, right, parent) for value in left)


class Algebra:
    """The operations under one containment, each remembering its latest results.

    The deployments of an environment put the same few sets together again and again.
    """

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        remember = lru_cache(maxsize=REMEMBERED)

        def join(*sets: ValueSet) -> ValueSet:
            return union(sets, parent)

        def meet(left: ValueSet, right: ValueSet) -> ValueSet:
            return intersection(left, right, parent)

        def covers(right: ValueSet, left: ValueSet) -> bool:
            return subset(left, right, parent)

        self.union: Callable[..., ValueSet] = remember(join)
        """What any of the sets allows."""
        self.intersection: Callable[[ValueSet, ValueSet], ValueSet] = remember(meet)
        """What both sets allow."""
        self.covers: Callable[[ValueSet, ValueSet], bool] = remember(covers)
        """Whether the first set allows everything that the second allows."""


def written(values: Iterable[Value]) -> list[str]:
    """The values as text, in one fixed order: for statuses, messages and JSON."""
    return [f"{kind}:{name}" for kind, name in sorted(values)]
