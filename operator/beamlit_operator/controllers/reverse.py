"""A reverse lookup: from a value to the objects that mention it, kept up to date per object."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Set
from typing import Generic, TypeVar

O_ = TypeVar("O_", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class Reverse(Generic[O_, V]):
    """Who mentions what. Every operation costs what it touches, not what is held."""

    def __init__(self) -> None:
        self._mentions: dict[O_, tuple[V, ...]] = {}
        self._by_value: dict[V, set[O_]] = {}

    def set(self, owner: O_, values: Iterable[V]) -> None:
        """From now on ``owner`` mentions exactly ``values``; none at all forgets it."""
        fresh = tuple(dict.fromkeys(values))
        stale = self._mentions.get(owner, ())
        if fresh == stale:
            return
        for value in stale:
            if value in fresh:
                continue
            owners = self._by_value[value]
            owners.discard(owner)
            if not owners:
                del self._by_value[value]
        for value in fresh:
            self._by_value.setdefault(value, set()).add(owner)
        if fresh:
            self._mentions[owner] = fresh
        else:
            self._mentions.pop(owner, None)

    def values_of(self, owner: O_) -> tuple[V, ...]:
        """What ``owner`` mentions."""
        return self._mentions.get(owner, ())

    def of(self, value: V) -> Set[O_]:
        """Who mentions ``value``. Do not keep or change the answer."""
        return self._by_value.get(value, frozenset())
