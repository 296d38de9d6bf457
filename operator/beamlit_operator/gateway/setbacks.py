"""How starts failed lately, and until when no new one is tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

from beamlit_operator.api.reasons import Reason
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.replies import Reply


@dataclass(slots=True)
class _Setback:
    """The failures of one revision since it last started."""

    reply: Reply
    count: int
    until: float


class Setbacks:
    """The failed starts of each deployment's revisions. Times: monotonic seconds."""

    def __init__(self, *, first: float, last: float) -> None:
        """``first``: seconds of pause after one failure; it doubles with each, up to ``last``."""
        self._first = first
        self._last = last
        self._known: dict[DeploymentKey, dict[RevisionKey, _Setback]] = {}

    def note(self, revision: RevisionKey, reason: str, message: str, *, now: float) -> Reply:
        """A start failed; returns what its callers are told."""
        of = self._known.setdefault(revision.deployment_key, {})
        count = of[revision].count + 1 if revision in of else 1
        pause = min(self._first * 2.0 ** (count - 1), self._last)
        reply = Reply(503, reason, message, pause)
        of[revision] = _Setback(reply, count, now + pause)
        return reply

    def pausing(self, revision: RevisionKey, now: float) -> Reply | None:
        """What callers are told while no start is tried; None when one may be."""
        found = self._known.get(revision.deployment_key, {}).get(revision)
        if found is None or found.until <= now:
            return None
        return replace(found.reply, retry_after=found.until - now)

    def started(self, revision: RevisionKey) -> None:
        """A start went well."""
        self._drop(revision.deployment_key, {revision})

    def forget(self, key: DeploymentKey) -> None:
        """The deployment is gone, or was changed by its owner: its failures say nothing now."""
        self._known.pop(key, None)

    def placed(self, key: DeploymentKey) -> None:
        """There is a place to run now: nothing was wrong with the deployment itself."""
        of = self._known.get(key, {})
        self._drop(key, {r for r, s in of.items() if s.reply.reason == Reason.NO_PLACEMENT})

    def _drop(self, key: DeploymentKey, revisions: set[RevisionKey]) -> None:
        of = self._known.get(key)
        if of is None:
            return
        for revision in revisions:
            of.pop(revision, None)
        if not of:
            del self._known[key]
