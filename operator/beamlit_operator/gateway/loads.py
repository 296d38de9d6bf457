"""How busy each deployment is, from Envoy's load reports.

Envoy counts by cluster, locality and priority: requests at pods (priority 0) apart from requests at
the cold listener (priority 1), of which those held are not yet anybody's work. "In progress" is a
sample at the instant of the report; "issued" is an exact count since the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from beamlit_operator.gateway.cold import ColdStarts
from beamlit_operator.gateway.listeners import duration
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.protos import LoadReportingServicer, LoadStatsResponse, Message

log = logging.getLogger(__name__)

RECENT = 120.0
"""Seconds after its last request for which a deployment is listed."""

SHORT_REQUEST = 0.01
"""Seconds a request is taken to last when it fell between two samples. The sample is right on
average; this only keeps a deployment that is used from looking idle."""


@dataclass(slots=True)
class _Revision:
    in_progress: int = 0
    issued: int = 0
    interval: float = 0.0


@dataclass(slots=True)
class _Load:
    """What is known of one deployment."""

    revisions: dict[RevisionKey, _Revision] = field(default_factory=dict)
    total: int = 0
    last_request: float = 0.0


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """The load of one deployment as others see it; ``concurrency`` is without ``held``."""

    concurrency: float
    requests_total: int
    held: int


class LoadBook:
    """Adds up load reports by deployment."""

    def __init__(
        self,
        cold: ColdStarts,
        *,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cold = cold
        self._metrics = metrics
        self._clock = clock
        self._loads: dict[DeploymentKey, _Load] = {}
        self._counted: set[RevisionKey] = set()

    def counted_by_envoy(self, revisions: set[RevisionKey]) -> None:
        """Envoy counts for these from now on."""
        self._counted = revisions

    def cold_request(self, revision: RevisionKey) -> None:
        """A request for a sleeping revision came to the agent, which is not counted by Envoy."""
        if revision not in self._counted:
            self._count(self._loads.setdefault(revision.deployment_key, _Load()), revision, 1)

    def _count(self, load: _Load, revision: RevisionKey, issued: int) -> None:
        load.total += issued
        load.last_request = self._clock()
        self._metrics.requests.labels(*revision.deployment_key).inc(issued)

    def record(self, revision: RevisionKey, cluster_stats: Message) -> None:
        """Takes one cluster's report in."""
        localities = cluster_stats.upstream_locality_stats
        interval = cluster_stats.load_report_interval
        seen = _Revision(
            in_progress=sum(s.total_requests_in_progress for s in localities),
            issued=sum(s.total_issued_requests for s in localities),
            interval=interval.seconds + interval.nanos / 1e9,
        )
        load = self._loads.setdefault(revision.deployment_key, _Load())
        load.revisions[revision] = seen
        if seen.issued or seen.in_progress:
            self._count(load, revision, seen.issued)

    def quiet(self, reported: set[RevisionKey]) -> None:
        """A report came that did not name the other revisions: nothing happens there."""
        for load in self._loads.values():
            for revision in load.revisions.keys() - reported:
                load.revisions[revision] = _Revision()

    def forget(self, revisions: Iterable[RevisionKey]) -> None:
        """These revisions are gone, with their clusters."""
        for revision in revisions:
            load = self._loads.get(revision.deployment_key)
            if load is not None:
                load.revisions.pop(revision, None)
                if not load.revisions:
                    del self._loads[revision.deployment_key]

    def clear(self) -> None:
        """Envoy went away, and its requests with it."""
        self._counted = set()
        self.quiet(set())

    def current(self) -> dict[DeploymentKey, DeploymentLoad]:
        """The load of every deployment that was used lately or has requests held."""
        held, now = self._cold.held(), self._clock()
        for key in [k for k, v in self._loads.items() if now - v.last_request > RECENT]:
            if key not in held:
                del self._loads[key]
        found = {}
        for key in self._loads.keys() | held.keys():
            load = self._loads.get(key) or _Load()
            found[key] = DeploymentLoad(
                _concurrency(load, held.get(key, 0)), load.total, held.get(key, 0)
            )
        return found

    def revisions(self) -> Iterable[RevisionKey]:
        """The revisions that had load lately."""
        return [revision for load in self._loads.values() for revision in load.revisions]


def _concurrency(load: _Load, held: int) -> float:
    in_progress = sum(revision.in_progress for revision in load.revisions.values())
    # A sample and the queue are read at different instants: never below nothing.
    busy = max(0, in_progress - held)
    if busy:
        return float(busy)
    return sum(
        min(1.0, revision.issued * SHORT_REQUEST / revision.interval)
        for revision in load.revisions.values()
        if revision.interval and not held
    )


class LoadReporting(LoadReportingServicer):  # type: ignore[misc]
    """Envoy's load reporting service. Only awake revisions are asked for: a report of thousands of
    sleeping ones costs more than serving does."""

    def __init__(
        self, book: LoadBook, *, awake: Callable[[], Iterable[RevisionKey]], interval: float
    ) -> None:
        self._book = book
        self._awake = awake
        self._interval = interval

    async def StreamLoadStats(  # noqa: N802 (the name in the .proto)
        self, _requests: Any, context: Any
    ) -> None:
        """One Envoy's reports, until it goes away."""
        reported = asyncio.Event()
        asking = asyncio.create_task(self._keep_asking(context, reported))
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
            self._book.clear()

    async def _keep_asking(self, context: Any, reported: asyncio.Event) -> None:
        """Names the awake revisions, again whenever they changed.

        Only after a report: each question restarts Envoy's timer, so asking more often than it
        reports would keep it silent.
        """
        asked: set[RevisionKey] | None = None
        while True:
            wanted = set(self._awake())
            if wanted != asked:
                asked = wanted
                self._book.counted_by_envoy(asked)
                await context.write(
                    LoadStatsResponse(
                        clusters=sorted(revision.cluster for revision in asked),
                        load_reporting_interval=duration(self._interval),
                    )
                )
            reported.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reported.wait(), 3 * self._interval)
