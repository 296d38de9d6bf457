"""Which deployments' routes Envoy refuses, and a route table of all the others. Pure.

The route table is one resource: one route that Envoy does not take and no later change of anybody's
gets through. So when a table is refused, the deployments that changed since the last one it took
are tried in halves on top of that one, until the culprits stand alone:

An agent that was started again does not know the last table Envoy took, and every table it offers
replaces that one. So it first tries everything but a sixteenth, for each sixteenth: while that is
refused the old table stays, and once it is taken only the last part is searched. With culprits in
several parts that finds none, and there are the halves again.

================================  ==============================================================
Envoy's answer to a table         what follows
================================  ==============================================================
taken                             it is the last good one; the next group is tried, if any waits
refused, several changed in it    the group is halved; the first half is tried
refused, one changed in it        that one is the culprit; it keeps its last good routes
refused, nothing changed in it    nobody's in particular; nothing is tried
================================  ==============================================================

A culprit is tried again when it changes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from beamlit_operator.gateway.catalog import Deployment
from beamlit_operator.gateway.names import DeploymentKey

Views = Mapping[DeploymentKey, Deployment]

PARTS = 16
"""Parts that are left out in turn while no table was taken yet."""

REMEMBERED = 16
"""Tables whose answer may still come."""


@dataclass(frozen=True, slots=True)
class _Culprit:
    view: Deployment
    message: str


class RouteTrial:
    """What Envoy took of the deployments' routes, and what to offer it next."""

    def __init__(self) -> None:
        self._accepted: dict[DeploymentKey, Deployment] = {}
        self._culprits: dict[DeploymentKey, _Culprit] = {}
        self._groups: deque[frozenset[DeploymentKey]] = deque()
        self._offered: OrderedDict[str, dict[DeploymentKey, Deployment]] = OrderedDict()
        self._latest = ""
        self._answer: str | None = None
        """Envoy's words on the latest table, empty if it took it; None until it answered."""
        self._left_out: deque[frozenset[DeploymentKey]] = deque()

    @property
    def culprits(self) -> dict[DeploymentKey, str]:
        """Envoy's words on the deployments whose routes it does not take."""
        return {key: culprit.message for key, culprit in self._culprits.items()}

    def last_good(self, key: DeploymentKey) -> Deployment | None:
        """What the routes of a culprit still say, if it is one and had any."""
        return self._accepted.get(key) if key in self._culprits else None

    def propose(self, wanted: Views) -> dict[DeploymentKey, Deployment]:
        """The deployments, each in the state, that the next table is to be built of."""
        for key, culprit in list(self._culprits.items()):
            if wanted.get(key) != culprit.view:
                del self._culprits[key]
        while self._groups and all(
            key in self._culprits or wanted.get(key) == self._accepted.get(key)
            for key in self._groups[0]
        ):
            self._groups.popleft()
        trying = self._groups[0] if self._groups else wanted.keys()
        found = {}
        for key, view in wanted.items():
            if key in trying and key not in self._culprits:
                found[key] = view
            elif key in self._accepted:
                found[key] = self._accepted[key]
        return found

    def offered(self, version: str, views: dict[DeploymentKey, Deployment]) -> bool:
        """A table of this version was built of these; returns whether another one is to be offered
        in its place: Envoy, which has it already, is not asked again.

        Tables are equal where deployments differ in what routes do not say (a limit, say).
        """
        answer = self._answer if version == self._latest else None
        self._answer = answer
        self._latest = version
        self._offered[version] = views
        self._offered.move_to_end(version)
        while len(self._offered) > REMEMBERED:
            self._offered.popitem(last=False)
        if answer is None or (answer and not self._groups):
            return False
        return self.settled(version, answer)

    def settled(self, version: str, refused: str) -> bool:
        """Envoy answered; returns whether another table is to be offered."""
        views = self._offered.get(version)
        if views is None:
            return False
        if not refused:
            self._accepted = views
        if version != self._latest:
            # The answer to a newer one is on its way, and says all there is to know.
            return False
        self._answer = refused
        if not refused:
            if self._left_out:
                self._groups = _halves(self._left_out.popleft())
                self._left_out.clear()
                return True
            if self._groups:
                self._groups.popleft()
                return True
            return False
        changed = [
            key
            for key, view in views.items()
            if (known := self._accepted.get(key)) is not view and known != view
        ]
        if not changed:
            return False
        if self._leave_out(changed):
            return True
        if self._groups:
            self._groups.popleft()
        if len(changed) == 1:
            self._culprits[changed[0]] = _Culprit(views[changed[0]], refused)
        else:
            self._groups.extendleft(reversed(_halves(changed)))
        return True

    def _leave_out(self, changed: Sequence[DeploymentKey]) -> bool:
        """While no table was taken: tries all but the next part; false when there is none."""
        if self._left_out:
            everything = frozenset(changed) | self._left_out.popleft()
        elif self._accepted or self._groups or len(changed) < 3:
            return False
        else:
            everything = frozenset(changed)
            size = -(-len(changed) // PARTS)
            self._left_out.extend(
                frozenset(changed[at : at + size]) for at in range(0, len(changed), size)
            )
        if not self._left_out:
            self._groups = _halves(sorted(everything))
            return True
        self._groups = deque((everything - self._left_out[0],))
        return True


def _halves(keys: Iterable[DeploymentKey]) -> deque[frozenset[DeploymentKey]]:
    ordered = sorted(keys)
    half = len(ordered) // 2
    return deque(part for part in (frozenset(ordered[:half]), frozenset(ordered[half:])) if part)
