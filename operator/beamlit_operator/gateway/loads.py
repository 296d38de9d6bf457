"""How busy each deployment is, from Envoy's load reports.

Envoy counts by cluster, locality and priority: requests at pods (priority 0) apart from requests at
the cold listener (priority 1), of which those held are not yet anybody's work. "In progress" is a
sample at the instant of the report; "issued" is an exact count since the last one. How long
requests took is in no load report, and asking Envoy's statistics for it every second would cost
more than it tells: :meth:`_Revision.mean` gets it from the two by Little's law.

Where pods have a limit, the cluster of the pods is reported instead: what is held is not in it and
is added, what waits for a place at a pod is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from beamlit_operator.gateway.cold import ColdStarts
from beamlit_operator.gateway.listeners import duration
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.protos import LoadReportingServicer, LoadStatsResponse, Message

log = logging.getLogger(__name__)

RECENT = 120.0
"""Seconds after its last request for which a deployment is listed."""

REMEMBERED = 10
"""Reports from which the time that a request takes is learned."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What one report said of one revision. ``interval`` is in seconds."""

    in_progress: int
    issued: int
    interval: float


@dataclass(slots=True)
class _Revision:
    last_request: float
    reports: deque[_Report] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def in_progress(self) -> int:
        """At the instant of the last report."""
        return self.reports[-1].in_progress if self.reports else 0

    def mean(self) -> float:
        """Requests in progress during the last report, on average.

        =====================================  =================================================
        no request lately                      the sample
        requests last longer than an interval  the sample: it misses none of them
        more in progress than chance explains  the sample: the load grows right now
        else                                   issued per second times seconds per request
        =====================================  =================================================

        A request that is over in 20 ms is seen by one sample in fifty: samples alone would swing
        between nothing and too much. Little's law has no such noise: the seconds per request are
        the samples of the last reports over what was issued in them. The half keeps a deployment
        that no sample ever caught at work from looking idle.
        """
        if not self.reports:
            return 0.0
        last = self.reports[-1]
        issued = sum(report.issued for report in self.reports)
        if not issued or last.interval <= 0:
            return float(last.in_progress)
        busy = sum(report.in_progress * report.interval for report in self.reports)
        seconds = (busy + 0.5 * last.interval) / issued
        if seconds > last.interval:
            return float(last.in_progress)
        expected = last.issued / last.interval * seconds
        # Arrivals by chance (Poisson): three deviations above the mean are no chance any more.
        surprise = expected + 3 * math.sqrt(expected) + 1
        return float(last.in_progress) if last.in_progress > surprise else expected


@dataclass(slots=True)
class _Load:
    """What is known of one deployment. ``total`` outlives everything but the deployment."""

    revisions: dict[RevisionKey, _Revision] = field(default_factory=dict)
    total: int = 0
    last_request: float = -math.inf


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """The load of one deployment as others see it; ``concurrency`` is without ``held``."""

    concurrency: float
    requests_total: int
    held: int


class LoadBook:
    """Adds up load reports by deployment.

    What it keeps is bounded by the deployments that exist (one number each) and by the revisions
    that had requests within :data:`RECENT` seconds.
    """

    def __init__(
        self,
        cold: ColdStarts,
        *,
        exists: Callable[[DeploymentKey], bool] = lambda _: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``exists`` says whether a deployment is still there: of others nothing is kept."""
        self._cold = cold
        self._exists = exists
        self._clock = clock
        self._loads: dict[DeploymentKey, _Load] = {}
        self._counted: set[RevisionKey] = set()
        self._stream: object = None

    def opened(self, stream: object) -> None:
        """Envoy reports on this stream from now on, and counts for nothing yet."""
        self._stream = stream
        self._counted = set()
        self.quiet(set())

    def closed(self, stream: object) -> None:
        """A stream ended, and with it the requests it told of; an older one's end says nothing."""
        if stream is self._stream:
            self.opened(None)

    def counted_by_envoy(self, revisions: set[RevisionKey], *, stream: object) -> None:
        """Envoy counts for these from now on, on this stream."""
        if stream is self._stream:
            self._counted = revisions

    def cold_request(self, revision: RevisionKey) -> None:
        """A request for a sleeping revision came to the agent, which is not counted by Envoy."""
        if revision not in self._counted:
            self._count(revision, 1)

    def _count(self, revision: RevisionKey, issued: int) -> _Revision:
        now = self._clock()
        load = self._loads.setdefault(revision.deployment_key, _Load())
        load.total += issued
        load.last_request = now
        known = load.revisions.setdefault(revision, _Revision(now))
        known.last_request = now
        return known

    def record(self, revision: RevisionKey, cluster_stats: Message) -> None:
        """Takes one cluster's report in."""
        localities = cluster_stats.upstream_locality_stats
        interval = cluster_stats.load_report_interval
        at_pods = cluster_stats.cluster_name == revision.pods_cluster
        held = self._cold.waiting().get(revision, 0) if at_pods else 0
        report = _Report(
            in_progress=sum(s.total_requests_in_progress for s in localities) + held,
            issued=sum(s.total_issued_requests for s in localities),
            interval=interval.seconds + interval.nanos / 1e9,
        )
        if report.issued or report.in_progress:
            self._count(revision, report.issued).reports.append(report)
        else:
            self._no_request(revision, report.interval)

    def quiet(self, reported: set[RevisionKey]) -> None:
        """A report came that did not name the other revisions: nothing happens there."""
        for load in self._loads.values():
            for revision in load.revisions.keys() - reported:
                self._no_request(revision, 0.0)

    def _no_request(self, revision: RevisionKey, interval: float) -> None:
        load = self._loads.get(revision.deployment_key)
        known = load.revisions.get(revision) if load is not None else None
        if known is not None and known.reports:
            known.reports.append(_Report(0, 0, interval or known.reports[-1].interval))

    def forget(self, revisions: Iterable[RevisionKey]) -> None:
        """These revisions are gone, with their clusters."""
        for revision in revisions:
            load = self._loads.get(revision.deployment_key)
            if load is not None:
                load.revisions.pop(revision, None)

    def current(self) -> dict[DeploymentKey, DeploymentLoad]:
        """The load of every deployment that was used lately or has requests held."""
        self._prune()
        held = self._cold.held()
        recent = self._clock() - RECENT
        found = {}
        for key in {k for k, load in self._loads.items() if load.last_request >= recent} | {
            k for k, waiting in held.items() if waiting
        }:
            load, waiting = self._loads.get(key) or _Load(), held.get(key, 0)
            found[key] = DeploymentLoad(_concurrency(load, waiting), load.total, waiting)
        return found

    def in_progress(self) -> dict[RevisionKey, int]:
        """Requests in progress at each revision that was used lately, held ones included."""
        self._prune()
        return {
            revision: known.in_progress
            for load in self._loads.values()
            for revision, known in load.revisions.items()
        }

    def revisions(self) -> Iterable[RevisionKey]:
        """The revisions that had load lately."""
        self._prune()
        return [revision for load in self._loads.values() for revision in load.revisions]

    def _prune(self) -> None:
        recent = self._clock() - RECENT
        for key, load in list(self._loads.items()):
            for revision, known in list(load.revisions.items()):
                if known.last_request < recent:
                    del load.revisions[revision]
            if not load.revisions and not self._exists(key):
                del self._loads[key]


def _concurrency(load: _Load, held: int) -> float:
    if held:
        # What is held is in progress for Envoy. A sample and the queue are read at different
        # instants: never below nothing.
        in_progress = sum(revision.in_progress for revision in load.revisions.values())
        return float(max(0, in_progress - held))
    return sum(revision.mean() for revision in load.revisions.values())


class LoadReporting(LoadReportingServicer):  # type: ignore[misc]
    """Envoy's load reporting service. Only awake revisions are asked for: a report of thousands of
    sleeping ones costs more than serving does."""

    def __init__(
        self, book: LoadBook, *, awake: Callable[[], Iterable[str]], interval: float
    ) -> None:
        """``awake`` names the clusters to ask for."""
        self._book = book
        self._awake = awake
        self._interval = interval

    async def StreamLoadStats(  # noqa: N802 (the name in the .proto)
        self, _requests: Any, context: Any
    ) -> None:
        """One Envoy's reports, until it goes away."""
        reported, stream = asyncio.Event(), object()
        self._book.opened(stream)
        asking = asyncio.create_task(self._keep_asking(context, reported, stream))
        try:
            while (report := await context.read()) is not grpc.aio.EOF:
                seen: set[RevisionKey] = set()
                for stats in report.cluster_stats:
                    revision = RevisionKey.of_cluster(stats.cluster_name)
                    if revision is not None:
                        seen.add(revision)
                        self._book.record(revision, stats)
                self._book.quiet(seen)
                reported.set()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self._book.closed(stream)

    async def _keep_asking(self, context: Any, reported: asyncio.Event, stream: object) -> None:
        """Names the awake revisions, again whenever they changed.

        Only after a report: each question restarts Envoy's timer, so asking more often than it
        reports would keep it silent.
        """
        asked: set[str] | None = None
        while True:
            wanted = set(self._awake())
            if wanted != asked:
                asked = wanted
                revisions = {key for name in asked if (key := RevisionKey.of_cluster(name))}
                self._book.counted_by_envoy(revisions, stream=stream)
                await context.write(
                    LoadStatsResponse(
                        clusters=sorted(asked),
                        load_reporting_interval=duration(self._interval),
                    )
                )
            reported.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reported.wait(), 3 * self._interval)
