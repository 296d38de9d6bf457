"""Where the nodes of pods are: their labels, also when the node itself is not there (any more).

| the node                               | its labels                       |
|----------------------------------------|----------------------------------|
| is known                               | as they are                      |
| is not known, and was just heard of    | not told yet: the watch may lag  |
| is not known for :data:`NODE_GRACE`    | none: it is nowhere              |

A node is deleted while its kubelet lives, or its machine goes on without the control plane: a pod
on it is then at no place that a policy allows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

NODE_GRACE = 1.0
"""Seconds by which the watch of nodes may lag behind that of pods."""

REMEMBERED = 4096
"""How many nodes that are not there are remembered."""

LabelsOf = Callable[[str], Mapping[str, str] | None]


class Whereabouts:
    """The labels of nodes by name."""

    def __init__(self, labels_of: LabelsOf, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``labels_of`` gives a node's labels, None when it is not known."""
        self._labels_of = labels_of
        self._clock = clock
        self._missing_since: OrderedDict[str, float] = OrderedDict()

    def of(self, nodes: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """The labels of those nodes of which it can be told where they are."""
        found: dict[str, Mapping[str, str]] = {}
        now = self._clock()
        for name in nodes:
            labels = self._labels_of(name)
            if labels is not None:
                self._missing_since.pop(name, None)
                found[name] = labels
            elif now - self._missing_since.setdefault(name, now) >= NODE_GRACE:
                found[name] = {}
        while len(self._missing_since) > REMEMBERED:
            self._missing_since.popitem(last=False)
        return found
