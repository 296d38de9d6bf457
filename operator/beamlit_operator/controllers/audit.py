"""The audit trail: who changed which Policy or Environment, and what moved because of it.

For every change two lines in the log and, in the end, one Event on the object:

| line              | when                              | tells                                   |
|-------------------|-----------------------------------|-----------------------------------------|
| ``audit=changed`` | as soon as the change is seen     | who, what was, what is, how many        |
|                   |                                   | deployments it may touch                |
| ``audit=settled`` | every deployment was looked at    | how many are held to something else,    |
|                   | and every evicted pod is gone, or | which, how many pods were evicted, and  |
|                   | :data:`LIMIT` has passed          | how long it took                        |

What counts as a change when the operator starts, or begins to lead:

| generation | the object's ``observedGeneration`` | told as                        |
|------------|-------------------------------------|--------------------------------|
| the same   | is there                            | nothing: it was told before    |
| later      | is there                            | changed, what was is not known |
| any        | is not there                        | created                        |

The API says which field manager wrote, but not for whom. The admission webhook is told that and
passes it on (:func:`note_actor`); nothing of it is written on anybody's objects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from beamlit_operator.api import Reason
from beamlit_operator.controllers.changes import difference, last_manager
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.kube import PODS, Json, ObjectKey

log = logging.getLogger(__name__)

LIMIT = 60.0
"""Seconds after which a change is reported as it is: a pod may hang, a node be gone."""

MOST_NAMES = 20
"""Deployments that are named; the others are counted."""

REMEMBERED = 4096
"""Changes whose author is remembered until the watch tells of them."""

AUDITED = (Kind.POLICY, Kind.ENVIRONMENT)

_actors: OrderedDict[tuple[str, int], str] = OrderedDict()


def note_actor(uid: str, generation: int, user: str) -> None:
    """Who made this generation of an object; generation 0: who deleted it.

    To be called on admission, before it is stored.
    """
    _actors.pop((uid, generation), None)
    _actors[(uid, generation)] = user
    while len(_actors) > REMEMBERED:
        _actors.popitem(last=False)


@dataclass(slots=True)
class _Change:
    """One change, until it is settled."""

    kind: Kind
    key: ObjectKey
    about: Json
    sentence: str
    fields: dict[str, object]
    began: float
    affected: frozenset[ObjectKey]
    pending: set[ObjectKey]
    touched: set[str] = field(default_factory=set)
    evicted: int = 0
    leaving: set[str] = field(default_factory=set)
    last_gone: float | None = None
    timer: asyncio.TimerHandle | None = None


class Audit:
    """Follows changes of Policies and Environments to their end. Use on one event loop."""

    def __init__(
        self,
        *,
        held_by: Callable[[Kind, ObjectKey], Iterable[ObjectKey]],
        announce: Callable[[Key, Json, Announcement], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``held_by`` gives the deployments that a Policy or Environment may concern."""
        self._held_by = held_by
        self._announce = announce
        self._clock = clock
        self._leading = False
        self._untold: dict[tuple[Kind, ObjectKey], tuple[Json | None, Json]] = {}
        self._open: list[_Change] = []
        self._announcing: set[asyncio.Future[None]] = set()

    @property
    def under_way(self) -> int:
        """Changes that are not settled."""
        return len(self._open)

    def lead(self) -> None:
        """From now on changes are told, and those that nobody told while nobody led."""
        self._leading = True
        untold, self._untold = self._untold, {}
        for (kind, key), (before, after) in untold.items():
            self._changed(kind, key, before, after)

    def seen(self, kind: Kind, key: ObjectKey, before: Json | None, after: Json | None) -> None:
        """An object is there, changed or went; ``after`` with its ``managedFields``."""
        if kind not in AUDITED:
            return
        if self._leading:
            if before is not None and after is not None:
                if _spec(before) != _spec(after):
                    self._changed(kind, key, before, after)
            elif after is None or _untold(after):
                self._changed(kind, key, before, after)
        elif after is not None and _untold(after):
            known = self._untold.get((kind, key))
            self._untold[(kind, key)] = (known[0] if known else before, after)
        else:
            self._untold.pop((kind, key), None)

    def decided(self, deployment: ObjectKey, live: Json | None, plan: Plan) -> None:
        """A deployment was brought to its plan; ``live`` is how it was before."""
        if not self._open:
            return
        leaving = {each.uid for each in plan.delete if each.resource is PODS}
        moved = live is not None and plan.status is not None and _moved(live, plan.status)
        for change in [each for each in self._open if deployment in each.affected]:
            change.pending.discard(deployment)
            fresh = leaving - change.leaving
            change.evicted += len(fresh)
            change.leaving |= fresh
            if moved:
                change.touched.add(deployment.name)
            self._settle_if_done(change)

    def pod_gone(self, uid: str) -> None:
        """A pod is gone, whoever deleted it."""
        for change in [each for each in self._open if uid in each.leaving]:
            change.leaving.discard(uid)
            change.last_gone = self._clock()
            self._settle_if_done(change)

    async def close(self) -> None:
        """Reports what is under way as it is; nothing is told afterwards."""
        for change in [*self._open]:
            self._settle(change)
        for task in self._announcing:
            task.cancel()
        await asyncio.gather(*self._announcing, return_exceptions=True)

    def _changed(self, kind: Kind, key: ObjectKey, before: Json | None, after: Json | None) -> None:
        about = after or before
        assert about is not None
        metadata = about["metadata"]
        generation = int(metadata.get("generation") or 0)
        observed = (about.get("status") or {}).get("observedGeneration")
        action = "deleted" if after is None else "changed" if before or observed else "created"
        actor = _actors.pop((str(metadata.get("uid")), generation if after else 0), "")
        manager = last_manager(about) if after else ""
        what = difference(_spec(before), _spec(after))
        who = f" by {actor}" if actor else f" with {manager}" if manager else ""
        affected = frozenset(self._held_by(kind, key))
        change = _Change(
            kind=kind,
            key=key,
            about=about,
            sentence=f"{action}{who}{f': {what}' if what else ''}",
            fields={
                "kind": str(kind),
                "workspace": key.namespace,
                "object": key.name,
                "generation": generation,
                "action": action,
                "actor": actor,
                "manager": manager,
            },
            began=self._clock(),
            affected=affected,
            pending=set(affected),
        )
        log.info(
            "%s %s/%s was %s",
            kind,
            *(key.namespace, key.name, change.sentence),
            extra={
                **change.fields,
                "audit": "changed",
                "before": _spec(before) if before is not None else None,
                "after": _spec(after) if after is not None else None,
                "deployments": len(affected),
            },
        )
        self._open.append(change)
        change.timer = asyncio.get_running_loop().call_later(LIMIT, self._settle, change)
        self._settle_if_done(change)

    def _settle_if_done(self, change: _Change) -> None:
        if not change.pending and not change.leaving:
            self._settle(change)

    def _settle(self, change: _Change) -> None:
        if change not in self._open:
            return
        self._open.remove(change)
        if change.timer is not None:
            change.timer.cancel()
        seconds = round((change.last_gone or self._clock()) - change.began, 3)
        left = len(change.pending) + len(change.leaving)
        told = _told(change, seconds=seconds)
        log.info(
            "%s %s/%s: %s",
            change.kind,
            *(change.key.namespace, change.key.name, told),
            extra={
                **change.fields,
                "audit": "settled",
                "deployments": len(change.affected),
                "touched": len(change.touched),
                "names": sorted(change.touched)[:MOST_NAMES],
                "evicted": change.evicted,
                "seconds": seconds,
                "complete": left == 0,
            },
        )
        key = Key(change.kind, Workspace(change.key.namespace), change.key.name)
        event = Announcement("Normal", str(Reason.EDITED), f"{change.sentence}; {told}")
        task = asyncio.ensure_future(self._announce(key, change.about, event))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)


def _told(change: _Change, *, seconds: float) -> str:
    parts = [f"{len(change.touched)} of {len(change.affected)} deployments are held to other sets"]
    if change.touched:
        named = ", ".join(sorted(change.touched)[:MOST_NAMES])
        more = len(change.touched) - MOST_NAMES
        parts[0] += f": {named}{f' and {more} more' if more > 0 else ''}"
    if change.evicted:
        gone = change.evicted - len(change.leaving)
        parts.append(f"{change.evicted} pods were evicted, {gone} are gone after {seconds} s")
    if change.pending:
        parts.append(f"{len(change.pending)} deployments were not looked at yet")
    return "; ".join(parts)


def _untold(item: Json) -> bool:
    """Whether this generation was not told yet: nobody wrote a status for it."""
    observed = (item.get("status") or {}).get("observedGeneration")
    return observed is None or int(observed) < int(item["metadata"].get("generation") or 0)


def _spec(item: Json | None) -> Json:
    return dict((item or {}).get("spec") or {})


def _moved(live: Json, status: Json) -> bool:
    """Whether a deployment is held to other sets than its status said. A new one did not move."""
    old = (live.get("status") or {}).get("effectivePolicy")
    new = status.get("effectivePolicy")
    return old is not None and new is not None and _allowed(old) != _allowed(new)


def _allowed(effective: Json) -> list[object]:
    return [(effective.get(name) or {}).get("allowed") for name in ("location", "flavor")]
