"""The agent: everything the gateway does beside what Envoy does.

::

    ModelDeployments ─┐                ┌─► resources ─► ADS ─► Envoy
                      ├─► catalog ─────┤
    EndpointSlices ───┘                └─► cold starts ◄─ ext_authz ─ Envoy's cold listener
                                                │
                                                └─► scale subresource

It needs the API server, and not the operator. With the API server away, what runs is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import grpc
from aiohttp import web

from beamlit_operator.api import labels
from beamlit_operator.gateway import names, telemetry
from beamlit_operator.gateway.admin import admin_app
from beamlit_operator.gateway.ads import RETIREMENT, AdsServer, Settled
from beamlit_operator.gateway.authorization import Authorization
from beamlit_operator.gateway.catalog import Catalog
from beamlit_operator.gateway.cold import ColdStarts
from beamlit_operator.gateway.health import EnvoyPulse
from beamlit_operator.gateway.loads import LoadBook, LoadReporting
from beamlit_operator.gateway.metrics import AtScrape, GatewayMetrics, Vitals
from beamlit_operator.gateway.names import DeploymentKey, Endpoint, RevisionKey
from beamlit_operator.gateway.outcomes import Outcomes
from beamlit_operator.gateway.pace import Pace
from beamlit_operator.gateway.process import EnvoyAdmin
from beamlit_operator.gateway.protos import add_ads, add_authorization, add_load_reporting
from beamlit_operator.gateway.refusals import Refusals
from beamlit_operator.gateway.replicas import ReplicaSeconds
from beamlit_operator.gateway.resources import ResourceStore, ResourceType
from beamlit_operator.gateway.reviewserver import ReviewServer
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.signingkeys import Documents
from beamlit_operator.gateway.statistics import EnvoyStatistics, rendered
from beamlit_operator.gateway.translation import Translator
from beamlit_operator.gateway.waking import Waker
from beamlit_operator.kube import (
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    Change,
    KubeClient,
    Reflector,
    identity_of,
)

log = logging.getLogger(__name__)


class Agent:
    """One gateway's agent. Use :meth:`running`."""

    def __init__(
        self,
        client: KubeClient,
        settings: GatewaySettings,
        *,
        documents: Documents | None = None,
    ) -> None:
        """``documents`` fetches what the API server says of its tokens' signatures."""
        self._reviews: ReviewServer | None = None
        self.settings = settings
        self.catalog = Catalog()
        self.metrics = GatewayMetrics(self._describe)
        self.store = ResourceStore()
        self._translator = Translator(self.catalog, settings=settings)
        self._waker = Waker(client, metrics=self.metrics)
        self.cold = ColdStarts(
            self.catalog,
            self._waker,
            settings=settings,
            metrics=self.metrics,
            taken=self._taken,
        )
        self.book = LoadBook(self.cold, exists=lambda key: self.catalog.get(key) is not None)
        self.replicas = ReplicaSeconds()
        if settings.authentication:
            self._reviews = ReviewServer(
                client, settings, documents=documents, metrics=self.metrics
            )
        self._statistics = EnvoyStatistics(settings)
        self.outcomes = Outcomes(self.catalog, self._statistics)
        self._scraped = AtScrape({}, {}, {})
        self.metrics.watch(lambda: self._scraped)
        self._vital = Vitals(False, False, 0.0, {})
        self.metrics.watch_health(lambda: self._vital)
        # The catalog has what is looked at of both.
        self._deployments = Reflector(
            client, MODEL_DEPLOYMENTS, on_change=self._deployment_changed, keep=identity_of
        )
        self._slices = Reflector(
            client,
            ENDPOINT_SLICES,
            label_selector=labels.MODEL_DEPLOYMENT,
            on_change=self._slice_changed,
            keep=identity_of,
        )
        self._complete = asyncio.Event()
        self._ads = AdsServer(
            self.store,
            metrics=self.metrics,
            complete=self._complete,
            on_configured=self._on_configured,
            on_settled=self._on_settled,
        )
        self.draining = False
        self._pulse = EnvoyPulse(EnvoyAdmin(settings).answers, clock=time.monotonic)
        self._configured: set[object] = set()
        self._refusals = Refusals(self.store)
        self._dirty_deployments: set[DeploymentKey] = set()
        self._dirty_revisions: set[RevisionKey] = set()
        self._flush_at: asyncio.TimerHandle | None = None
        self._pace = Pace(self._reroute)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """Runs the agent for the length of the block."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._grpc())
            await stack.enter_async_context(self._http())
            if self._reviews is not None:
                await stack.enter_async_context(self._reviews.running())
            # Should one of them fail, the block ends with its error: nothing runs half.
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                group.create_task(self._deployments.run(), name="watch deployments"),
                group.create_task(self._slices.run(), name="watch endpoints"),
                group.create_task(self._start_serving(), name="first configuration"),
            ]
            try:
                yield self
            finally:
                if self._flush_at is not None:
                    self._flush_at.cancel()
                self._pace.close()
                self.cold.close()
                self.outcomes.close()
                for task in tasks:
                    task.cancel()

    def not_ready(self) -> str:
        """Why the gateway cannot serve, yet or any more; empty when it can."""
        if self.draining:
            return "the gateway drains before it ends"
        if not self._complete.is_set():
            return "the API server was not read yet"
        if not self._configured:
            return (
                self._refusals.listener() or "Envoy has not taken its first full configuration yet"
            )
        return ""

    async def not_ready_now(self) -> str:
        """The same, and whether Envoy answers: it may hang with its connections open."""
        return self.not_ready() or await self._pulse.hung()

    def _vitals(self) -> Vitals:
        watches = [self._deployments, self._slices]
        if self._reviews is not None:
            watches.append(self._reviews.watch)
        return Vitals(
            ready=not self.not_ready(),
            connected=self._ads.connected,
            unanswered=self._ads.unanswered,
            silent={each.resource.plural: each.silent for each in watches},
        )

    @contextlib.asynccontextmanager
    async def _grpc(self) -> AsyncIterator[None]:
        server = grpc.aio.server(
            options=[
                # A port that is taken is an error, not shared.
                ("grpc.so_reuseport", 0),
                # An Envoy that reconnects names all it has.
                ("grpc.max_receive_message_length", -1),
            ]
        )
        add_ads(self._ads, server)
        logged = self.settings.access_log != telemetry.OFF
        add_authorization(Authorization(self.cold, self.book, logged=logged), server)
        add_load_reporting(
            LoadReporting(self.book, awake=self._awake, interval=self.settings.load_interval),
            server,
        )
        server.add_insecure_port(str(self.settings.xds))
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=0)

    @contextlib.asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        app = admin_app(
            gateway_id=self.settings.gateway_id,
            book=self.book,
            refused=self.refused,
            outcomes=self.outcomes.report,
            exposition=self.exposition,
            not_ready=self.not_ready_now,
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self.settings.admin.host, self.settings.admin.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _start_serving(self) -> None:
        """Hands Envoy its first configuration once the whole cluster was read, never a part."""
        await self._deployments.wait_synced()
        await self._slices.wait_synced()
        if self._reviews is not None:
            await self._reviews.until_ready()
        self._dirty_deployments.clear()
        self._dirty_revisions.clear()
        self.store.apply(self._translator.start())
        self._complete.set()
        log.info("serving %d deployments", len(self._deployments))

    def refused(self) -> dict[str, str]:
        """What Envoy does not take of the configuration, by deployment."""
        return self._refusals.report(self._translator.trial.culprits)

    async def exposition(self) -> bytes:
        """The text for Prometheus: what the agent counted, then what Envoy did."""
        counted = await self._statistics.read()
        text = b"".join(
            [line async for line in rendered(counted, self.metrics, exists=self._exists)]
        )
        # What needs the event loop is read before.
        self._scraped, self._vital = self._at_scrape(), self._vitals()
        # Written in a thread: requests that are held must not wait for thousands of lines.
        return await asyncio.to_thread(self.metrics.exposition) + text

    def _exists(self, revision: RevisionKey) -> bool:
        return self.catalog.get(revision.deployment_key) is not None

    def _describe(self, key: DeploymentKey) -> Endpoint | None:
        deployment = self.catalog.get(key)
        return deployment.endpoint if deployment else None

    def _at_scrape(self) -> AtScrape:
        held = self.cold.waiting()
        in_flight = {
            revision: max(0, count - held.get(revision, 0))
            for revision, count in self.book.in_progress().items()
        }
        return AtScrape(in_flight, held, self.replicas.current())

    def _on_configured(self, stream: object, configured: bool) -> None:
        if not configured:
            # An older stream's end says nothing about the one that took its place.
            self._configured.discard(stream)
            return
        if not self._configured:
            log.info("envoy has taken the full configuration")
        self._configured.add(stream)

    def _on_settled(self, settled: Settled) -> None:
        self._refusals.settled(settled)
        if settled.type is ResourceType.ENDPOINTS:
            self.cold.recheck()
        if settled.type is ResourceType.ROUTES:
            trial = self._translator.trial
            version = settled.versions.get(names.ROUTES, "")
            if trial.settled(version, settled.refused):
                self.store.apply(self._translator.routes())

    def _taken(self, revision: RevisionKey) -> bool:
        """Whether Envoy has the pods of a revision with a limit as the catalog has them."""
        return revision not in self._dirty_revisions and self._ads.taken(revision.pods_cluster)

    def _awake(self) -> set[str]:
        """The clusters whose load is of interest."""
        return {
            key.pods_cluster if self.cold.limited(key) else key.cluster
            for key in {*self.catalog.awake(), *self.cold.starting(), *self.book.revisions()}
        }

    def _deployment_changed(self, change: Change) -> None:
        key = self.catalog.put_deployment(change.key.namespace, change.key.name, change.new)
        if key is None:
            return
        if (
            change.old is None
            or change.new is None
            or _generation(change.old) != _generation(change.new)
        ):
            self.cold.forget(key)
        self.cold.changed(key)
        self._dirty_deployments.add(key)
        self._flush_soon()
        if self.catalog.get(key) is None:
            # Not at once: Envoy still reports on its clusters for as long as they stay.
            asyncio.get_running_loop().call_later(2 * RETIREMENT, self._forget, key)

    def _slice_changed(self, change: Change) -> None:
        revisions = self.catalog.put_slice(change.key.namespace, change.key.name, change.new)
        for revision in revisions:
            self.replicas.changed(revision, len(self.catalog.pods(revision)))
        for key in {revision.deployment_key for revision in revisions}:
            self.cold.changed(key)
        if revisions:
            self._dirty_revisions |= revisions
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._complete.is_set() and self._flush_at is None:
            loop = asyncio.get_running_loop()
            self._flush_at = loop.call_later(self.settings.debounce, self._flush)

    def _flush(self) -> None:
        self._flush_at = None
        deployments, self._dirty_deployments = self._dirty_deployments, set()
        revisions, self._dirty_revisions = self._dirty_revisions, set()
        before = self._translator.retired
        self.store.apply(self._translator.update(deployments, revisions))
        if self._translator.rerouted:
            self._pace.soon()
        retired = self._translator.retired - before
        if retired:
            asyncio.get_running_loop().call_later(RETIREMENT, self._drop, retired)

    def _reroute(self) -> None:
        self.store.apply(self._translator.routes())

    def _drop(self, retired: frozenset[RevisionKey]) -> None:
        kept = self._translator.kept(retired)
        if kept:
            asyncio.get_running_loop().call_later(RETIREMENT, self._drop, kept)
        retired -= kept
        self.store.apply(self._translator.drop(retired))
        gone = retired - self._translator.routed(retired)
        self.book.forget(gone)
        self.replicas.forget(gone)
        for revision in gone:
            self.metrics.forget_revision(revision)

    def _forget(self, key: DeploymentKey) -> None:
        if self.catalog.get(key) is None:
            self.metrics.forget(key)
            self.replicas.forget_deployment(key)


def _generation(obj: dict[str, object]) -> object:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return metadata.get("generation")
