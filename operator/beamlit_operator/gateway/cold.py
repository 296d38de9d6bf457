"""Holds requests for deployments that sleep, wakes each once, and lets them go.

What becomes of a request at the cold listener:

=========================================  ====================================================
the deployment                             the request
=========================================  ====================================================
is unknown, deactivated, has no revision   the same error the route table gives
has a ready pod                            goes to it at once
failed to start a moment ago (back-off)    503 with the reason, ``Retry-After`` the rest of it
is held to what cannot be resolved         503 with the reason; nothing is started
fits on no node                            503 with the reason; one pod is left to wait for a node
has too many held already, or the gateway  429, ``Retry-After``
holds too many requests or bytes           429, ``Retry-After``
else                                       held; the first one wakes the deployment
... while a rollout without surge gives    held; the operator starts that one when the place is
the only place to another revision         free, and after :data:`FREE_WITHIN` this does
... and a pod becomes ready                goes to it, the holders spread over the ready pods
... and its revision loses its traffic     goes on waiting for the one that gets most; if its caller
                                           asked for that revision, for that one
... and the one asked for is not listed    404 ``UnknownRevision``
... and the start fails                    503 with the reason from the pod; back-off grows
... and the API server refuses the scale   503 ``WakeRefused`` with what it said; back-off grows
... and the start deadline passes          504, ``Retry-After``
... and the caller hangs up                forgotten
... and the gateway ends                   503 ``Draining``, ``Retry-After``
=========================================  ====================================================

Needs the API server to wake, nothing else: the operator may be down.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from beamlit_operator.api.reasons import Reason
from beamlit_operator.gateway import names
from beamlit_operator.gateway.catalog import Catalog, Deployment, Pod, Problem
from beamlit_operator.gateway.clusters import way_to_pods
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.room import HELD_BASE, TOO_MANY_RETRY, Room
from beamlit_operator.gateway.routes import refusal_of
from beamlit_operator.gateway.setbacks import Setbacks
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.waking import Waker
from beamlit_operator.kube import ApiError

log = logging.getLogger(__name__)

STALE_FAILURE = 10.0
"""Seconds after a wake for which a failure that was there before does not count: the operator has
not looked at the new start yet."""

FREE_WITHIN = 60.0
"""Seconds that the operator has to start a revision in the place of another one: it may be down."""

LOOK_EVERY = 0.2
"""Seconds between looks at whether it has."""


@dataclass(frozen=True, slots=True)
class Released:
    """Go on, to this pod, by way of this cluster of Envoy's. Where the pods have a limit the
    cluster chooses among them itself."""

    pod: Pod
    way: str = names.POD_CLUSTER
    revision: RevisionKey | None = field(default=None, compare=False)


Outcome = Released | Reply


def _unlisted(asked: RevisionKey) -> Reply:
    message = f"{str(asked.deployment_key)!r} has no revision {asked.revision!r} any more"
    return Reply(404, ErrorReason.UNKNOWN_REVISION, message)


_ENDS = Reply(
    503, ErrorReason.DRAINING, "this gateway ends; the model still starts, try again", 1.0
)


@dataclass(slots=True, eq=False)
class _Start:
    """One start of one revision, and who waits for it."""

    revision: RevisionKey
    began: float
    known_problem: Problem | None
    settled: float = 0.0
    """When it was decided what becomes of the holders, by the clock."""
    holders: set[_Holder] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Holder:
    """One request that waits, and for what: that may change when traffic moves."""

    start: _Start
    outcome: asyncio.Future[Outcome]
    pinned: bool = False
    """Whether its caller asked for this revision."""


class ColdStarts:
    """The queue of held requests, by revision."""

    def __init__(
        self,
        catalog: Catalog,
        waker: Waker,
        *,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
        taken: Callable[[RevisionKey], bool] = lambda _: True,
    ) -> None:
        """``taken`` says whether Envoy has the pods of a revision as the catalog has them: what
        goes through the revision's own cluster waits for that."""
        self._catalog = catalog
        self._taken = taken
        self._waker = waker
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._starts: dict[RevisionKey, _Start] = {}
        # The same by deployment: a change must not look at all of them.
        self._of: dict[DeploymentKey, set[_Start]] = {}
        self._setbacks = Setbacks(first=settings.first_backoff, last=settings.last_backoff)
        self._asking: dict[RevisionKey, asyncio.Task[None]] = {}
        self._room = Room(settings)
        self._draining = False
        self._turn = itertools.count()

    def held(self) -> dict[DeploymentKey, int]:
        """Requests held now, by deployment."""
        found: dict[DeploymentKey, int] = {}
        for key, start in self._starts.items():
            deployment = key.deployment_key
            found[deployment] = found.get(deployment, 0) + len(start.holders)
        return found

    def waiting(self) -> dict[RevisionKey, int]:
        """Requests held now, by the revision they wait for."""
        return {key: len(start.holders) for key, start in self._starts.items()}

    def drain(self) -> None:
        """Answers what is held, and what would be: this gateway ends, another one can wait."""
        self._draining = True
        for start in list(self._starts.values()):
            self._settle(start, [_ENDS], "abandoned")

    def close(self) -> None:
        """Ends every start; what is held is Envoy's to end."""
        for start in list(self._starts.values()):
            self._end(start, "abandoned")
        for task in self._asking.values():
            task.cancel()

    def starting(self) -> Iterable[RevisionKey]:
        """The revisions that requests wait for."""
        return self._starts.keys()

    async def admit(
        self, asked: RevisionKey, *, size: int = HELD_BASE, pinned: bool = False
    ) -> Outcome:
        """Answers where a request goes, however long that takes up to the start deadline.

        ``size`` is what holding it costs (`held_bytes`); ``pinned``, whether its caller asked for
        this revision, so that no other one will do. Cancelling this is how a caller hangs up.
        """
        outcome = self._at_once(asked, size, pinned=pinned)
        if outcome is None:
            outcome = _ENDS if self._draining else await self._hold(asked, size, pinned=pinned)
        if isinstance(outcome, Reply):
            self._metrics.refused(outcome)
        return outcome

    def _at_once(
        self, asked: RevisionKey, size: int = HELD_BASE, *, pinned: bool = False
    ) -> Outcome | None:
        deployment = self._catalog.get(asked.deployment_key)
        if deployment is None:
            message = f"deployment {str(asked.deployment_key)!r} is gone"
            return Reply(404, ErrorReason.UNKNOWN_MODEL, message)
        refusal = refusal_of(deployment)
        if refusal is not None:
            return refusal
        if pinned and deployment.revision(asked) is None:
            return _unlisted(asked)
        wanted = self._wanted(asked, deployment, pinned=pinned)
        ways = self._ways(wanted, deployment)
        if ways:
            return ways[next(self._turn) % len(ways)]
        start = self._starts.get(wanted)
        failure = self._failing(wanted, deployment) if start is None else None
        if failure is not None:
            return failure
        in_line = len(start.holders) if start is not None else 0
        return self._room.refusal(asked.deployment_key, in_line=in_line, size=size)

    def _failing(self, wanted: RevisionKey, deployment: Deployment) -> Reply | None:
        """Why no start is tried now: the last one failed a moment ago, or one fails right now."""
        pausing = self._setbacks.pausing(wanted, self._clock())
        if pausing is not None:
            return pausing
        problem, revision = deployment.problem, deployment.revision(wanted)
        if problem is None or not problem.ends_start or revision is None:
            return None
        if problem.reason == Reason.NO_PLACEMENT and not revision.replicas:
            self._ask_for_nodes(wanted, deployment)
        elif not revision.replicas and not problem.forbids_start:
            return None
        return Reply(503, problem.reason, problem.message, self._settings.first_backoff)

    def _ask_for_nodes(self, wanted: RevisionKey, deployment: Deployment) -> None:
        """Starts a replica although no node can take it: a pending pod is what makes a cluster's
        autoscaler add one. Nobody waits for it, and callers that come again do not hammer."""
        if wanted in self._asking:
            return

        async def ask() -> None:
            try:
                await self._waker.wake(wanted, deployment.wake_replicas)
            except ApiError as error:
                text = "cannot ask for a node for %s: %s"
                log.warning(text, wanted.cluster, error, extra=wanted.fields)
            await asyncio.sleep(self._settings.first_backoff)

        def asked(_: object) -> None:
            del self._asking[wanted]

        task = asyncio.create_task(ask(), name=f"ask for {wanted.cluster}")
        self._asking[wanted] = task
        task.add_done_callback(asked)

    def _wanted(
        self, asked: RevisionKey, deployment: Deployment, *, pinned: bool = False
    ) -> RevisionKey:
        """The revision to start: the one a request came for, or, if that gets no traffic any more
        and its caller did not ask for it, the one that gets most."""
        revision = deployment.revision(asked)
        stays = revision is not None and (pinned or revision.traffic)
        return asked if stays else deployment.serving.key

    def _ways(self, revision: RevisionKey, deployment: Deployment) -> list[Released]:
        """Where a request for this revision can go now."""
        if deployment.balancing.limited and not self._taken(revision):
            return []
        way = way_to_pods(deployment, revision)
        return [Released(pod, way, revision) for pod in self._catalog.pods(revision)]

    async def _hold(self, asked: RevisionKey, size: int, *, pinned: bool) -> Outcome:
        deployment = self._catalog.get(asked.deployment_key)
        assert deployment is not None
        start = self._start_of(self._wanted(asked, deployment, pinned=pinned), deployment)
        holder = _Holder(start, asyncio.get_running_loop().create_future(), pinned)
        start.holders.add(holder)
        try:
            with self._room.taken(size):
                outcome = await asyncio.wait_for(holder.outcome, self._settings.start_deadline)
        except TimeoutError:
            return self._too_late(asked)
        else:
            if isinstance(outcome, Released):
                seconds = self._clock() - holder.start.settled
                self._metrics.cold_start_phase(holder.start.revision, "release", seconds=seconds)
            return outcome
        finally:
            holder.start.holders.discard(holder)
            if not holder.start.holders:
                self._end(holder.start, "abandoned")

    def _too_late(self, asked: RevisionKey) -> Reply:
        deployment = self._catalog.get(asked.deployment_key)
        problem = deployment.problem if deployment is not None else None
        why = self._waker.trouble(asked) or (problem.message if problem is not None else "")
        return Reply(
            504,
            ErrorReason.START_TIMEOUT,
            f"{str(asked.deployment_key)!r} was not ready within "
            f"{self._settings.start_deadline:g} seconds" + (f": {why}" if why else ""),
            TOO_MANY_RETRY,
        )

    def _start_of(self, revision: RevisionKey, deployment: Deployment) -> _Start:
        start = self._starts.get(revision)
        if start is None:
            start = _Start(revision, self._clock(), deployment.problem)
            self._starts[revision] = start
            self._of.setdefault(revision.deployment_key, set()).add(start)
            start.task = asyncio.create_task(
                self._wake(start, deployment.wake_replicas), name=f"wake {revision.cluster}"
            )
        return start

    async def _wake(self, start: _Start, replicas: int) -> None:
        try:
            await self._left_to_the_operator(start)
            await self._waker.keep_awake(
                start.revision, replicas, asked_at=start.began, checked=self._recheck
            )
        except ApiError as error:
            name = str(start.revision.deployment_key)
            message = f"{name!r} cannot be started: the API server refused to scale it: {error}"
        except Exception:
            revision = start.revision
            log.exception("waking %s failed", revision.cluster, extra=revision.fields)
            message = f"{str(start.revision.deployment_key)!r} cannot be started: internal error"
        else:
            return
        problem = Problem(ErrorReason.WAKE_REFUSED, message, "")
        self._settle(start, [self._note_failure(start, problem)], "failed")

    async def _left_to_the_operator(self, start: _Start) -> None:
        while self._clock() - start.began < FREE_WITHIN:
            deployment = self._catalog.get(start.revision.deployment_key)
            if deployment is None or not deployment.changing_sides:
                return
            await asyncio.sleep(LOOK_EVERY)

    def changed(self, key: DeploymentKey) -> None:
        """The deployment, or its pods, changed: let go whom that concerns."""
        deployment = self._catalog.get(key)
        problem = deployment.problem if deployment is not None else None
        if problem is None or problem.reason != Reason.NO_PLACEMENT:
            self._setbacks.placed(key)
        for start in tuple(self._of.get(key, ())):
            self._evaluate(start)

    def limited(self, revision: RevisionKey) -> bool:
        """Whether the pods of this revision take only so many requests at a time."""
        deployment = self._catalog.get(revision.deployment_key)
        return deployment is not None and deployment.balancing.limited

    def recheck(self) -> None:
        """Envoy has other pods now: let go who waited for that."""
        for start in list(self._starts.values()):
            if self._starts.get(start.revision) is start and self.limited(start.revision):
                self._evaluate(start)

    def _recheck(self, revision: RevisionKey) -> None:
        start = self._starts.get(revision)
        if start is not None:
            self._evaluate(start)

    def _evaluate(self, start: _Start) -> None:
        deployment = self._catalog.get(start.revision.deployment_key)
        if deployment is None or refusal_of(deployment) is not None:
            outcome = self._at_once(start.revision)
            assert isinstance(outcome, Reply)
            self._settle(start, [outcome], "refused")
            return
        if self._wanted(start.revision, deployment) != start.revision:
            self._part(start, deployment)
            if self._starts.get(start.revision) is not start:
                return
        ways = self._ways(start.revision, deployment)
        if ways:
            self._setbacks.started(start.revision)
            self._settle(start, ways, "ready")
        elif self._failed(start, deployment):
            assert deployment.problem is not None
            self._settle(start, [self._note_failure(start, deployment.problem)], "failed")

    def _failed(self, start: _Start, deployment: Deployment) -> bool:
        """Whether this start failed, as the operator says on the deployment's status.

        The status may still tell of an earlier start: a problem that was there when this one began
        counts only once the operator had the time to look again.
        """
        problem = deployment.problem
        if problem is None or not problem.ends_start:
            return False
        return problem != start.known_problem or self._clock() - start.began >= STALE_FAILURE

    def _note_failure(self, start: _Start, problem: Problem) -> Reply:
        reply = self._setbacks.note(
            start.revision, problem.reason, problem.message, now=self._clock()
        )
        log.warning(
            "start of %s failed: %s: %s; next attempt in %gs",
            start.revision.cluster,
            problem.reason,
            problem.message,
            reply.retry_after,
            extra=start.revision.fields,
        )
        return reply

    def _settle(self, start: _Start, outcomes: Sequence[Outcome], how: str) -> None:
        """Ends a start; its holders take the outcomes in turn."""
        self._end(start, how)
        start.settled = self._clock()
        turns = itertools.cycle(outcomes)
        for holder in start.holders:
            if not holder.outcome.done():
                holder.outcome.set_result(next(turns))

    def _part(self, start: _Start, deployment: Deployment) -> None:
        """The revision of this start lost its traffic: only who asked for it waits on, as long as
        it is listed."""
        pinned = {holder for holder in start.holders if holder.pinned}
        others = start.holders - pinned
        if deployment.revision(start.revision) is None:
            for holder in pinned:
                if not holder.outcome.done():
                    holder.outcome.set_result(_unlisted(start.revision))
            start.holders = others
        elif pinned:
            start.holders = pinned
            if others:
                self._join(others, deployment, began=start.began)
            return
        ways = self._ways(deployment.serving.key, deployment)
        if ways:
            self._setbacks.started(start.revision)
            self._settle(start, ways, "ready")
            return
        # Traffic moved to another revision that sleeps too: wait for that one.
        self._end(start, "superseded")
        if others:
            self._join(others, deployment, began=start.began)

    def _join(self, holders: set[_Holder], deployment: Deployment, *, began: float) -> None:
        """These wait for the revision that gets most of the traffic from now on."""
        fresh = self._start_of(deployment.serving.key, deployment)
        fresh.began = min(fresh.began, began)
        for holder in holders:
            holder.start = fresh
        fresh.holders |= holders
        self._evaluate(fresh)

    def _end(self, start: _Start, how: str) -> None:
        if self._starts.get(start.revision) is not start:
            return
        del self._starts[start.revision]
        others = self._of[start.revision.deployment_key]
        others.discard(start)
        if not others:
            del self._of[start.revision.deployment_key]
        if start.task is not None:
            start.task.cancel()
        now = self._clock()
        self._metrics.cold_start_ended(start.revision, how, seconds=now - start.began)
        scaled = self._waker.scaled_at(start.revision)
        if how == "ready" and scaled is not None:
            self._metrics.cold_start_phase(start.revision, "start", seconds=now - scaled)

    def forget(self, key: DeploymentKey) -> None:
        """A deployment is gone, or was changed by its owner: its failures say nothing any more."""
        self._setbacks.forget(key)
