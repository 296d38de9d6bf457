"""The operator put together: what watches, what decides, what writes, and how it starts and ends.

    kopf, reflectors ──► indexes ──► queue ──► reconcile (snapshot, decide, carry out)

Only the leader reconciles; a follower watches too, so that it can take over at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from beamlit_operator.api import Reason
from beamlit_operator.autoscaling import GatewayLoad
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.audit import Audit
from beamlit_operator.controllers.caching import Caching
from beamlit_operator.controllers.cataloguing import Cataloguing
from beamlit_operator.controllers.children import CHILD_RESOURCES, Children, Nodes
from beamlit_operator.controllers.credentials import Integrations
from beamlit_operator.controllers.definitions import Definitions
from beamlit_operator.controllers.demand import Demand
from beamlit_operator.controllers.drive import drive
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.evidence import Witnesses
from beamlit_operator.controllers.fence import Fence
from beamlit_operator.controllers.health import Vitals, not_ready
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.leader import Elector
from beamlit_operator.controllers.listings import Listings
from beamlit_operator.controllers.observe import Metrics, application
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.originbook import Inspect, OriginBook, Resolve
from beamlit_operator.controllers.outcomes import Outcomes
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.promql import Queries
from beamlit_operator.controllers.queue import WorkQueue
from beamlit_operator.controllers.reconcile import Reconciler
from beamlit_operator.controllers.refusals import GatewayRefusals
from beamlit_operator.controllers.runtimetable import RuntimeTable
from beamlit_operator.controllers.scaling import Scaling
from beamlit_operator.controllers.starts import Starts
from beamlit_operator.controllers.surroundings import differs, fields_of, surroundings
from beamlit_operator.controllers.usage import Usage
from beamlit_operator.controllers.writer import Writer
from beamlit_operator.kube import (
    DEPLOYMENTS,
    PODS,
    HttpClient,
    Json,
    KubeClient,
    ObjectKey,
    Reflector,
    synced,
)
from beamlit_operator.origins import resolve
from beamlit_operator.origins.inspection import inspect
from beamlit_operator.policy import Catalogue, built_in
from beamlit_operator.workloads.presets import Table

if TYPE_CHECKING:
    from beamlit_operator.controllers.admission.guard import Guard
    from beamlit_operator.controllers.admission.server import Webhook

log = logging.getLogger(__name__)

LAST_WRITES = 3.0
"""Seconds that writes under way have to end before the Lease is given up."""

DEFINITIONS_WITHIN = 5.0
"""Seconds to wait for the definitions of our kinds; roles of an older version do not let them be
read."""

CACHES_WITHIN = 5.0
"""Seconds to wait for what is known of caches: without the rights for it models run, too."""

Drive = Callable[..., Coroutine[Any, Any, None]]


def utc_now() -> datetime:
    """The wall clock, for statuses and events."""
    return datetime.now(UTC)


class Operator:
    """One operator on one cluster. Use :meth:`run`; it ends only by cancellation or failure."""

    def __init__(
        self,
        client: KubeClient,
        options: Options,
        *,
        clock: Callable[[], datetime] = utc_now,
        drive_events: Drive = drive,
        own_signals: Callable[[], None] | None = None,
        look: Resolve = resolve,
        inspect: Inspect | None = inspect,
    ) -> None:
        """``own_signals`` installs the process's signal handlers; ``look`` looks at an origin, and
        ``inspect`` reads what its files say, None for never."""
        self.options = options
        self._elector = Elector(
            client, namespace=options.operator_namespace, identity=options.identity
        )
        self._unfenced = client
        self._fence = Fence(client, may_write=self._may_write)
        # Everything but the election and the webhook, which followers have too, writes through it.
        client = self._fence
        self.client: KubeClient = client
        self._drive = drive_events
        self._own_signals = own_signals
        self._scopes: tuple[str | None, ...] = options.namespaces or (None,)
        self.metrics = Metrics()
        self.queue: WorkQueue[Key] = WorkQueue(
            self._work,
            workers=options.workers,
            on_done=self.metrics.done,
            urgent=self._is_urgent,
            fields=lambda key: fields_of(key, self.indexes),
        )
        announcer = Announcer(client, identity=options.identity, clock=clock)
        self.audit = Audit(
            held_by=lambda kind, key: self.indexes.held_by(kind, key),
            announce=announcer.announce,
        )
        self.indexes = Indexes(
            self._enqueue,
            later=lambda key: self.queue.add(key, later=True),
            on_seen=self._seen,
        )
        changed = {PODS: self._pod_changed, DEPLOYMENTS: self._workload_changed}
        self.children = {
            resource: Children(
                client,
                resource,
                namespaces=self._scopes,
                on_change=changed.get(resource, self.indexes.child_changed),
            )
            for resource in CHILD_RESOURCES
        }
        self.nodes = Nodes(
            client,
            catalogue=built_in(),
            on_change=self.indexes.nodes_changed,
            on_node=self._node_changed,
        )
        self.integrations = Integrations(
            client, namespaces=self._scopes, on_change=self._integration_changed
        )
        self.book = OriginBook(
            client,
            on_answer=self.queue.add,
            resync=options.origin_resync,
            look=look,
            inspect=inspect,
        )
        self.starts = Starts(self.queue.add)
        self.caching = Caching(
            client,
            options=options,
            namespaces=self._scopes,
            indexes=self.indexes,
            starts=self.starts,
            announcer=announcer,
            enqueue=self.queue.add,
            later=lambda key: self.queue.add(key, later=True),
            on_end=self._errand_ended,
            clock=clock,
        )
        self.writer = Writer(
            client,
            indexes=self.indexes,
            children=self.children,
            announcer=announcer,
            lacking=lambda kind: self.definitions.lacking(kind),
            on_made=self.caching.errands.wrote,
            on_gone=self.caching.errands.gone,
        )
        self.cataloguing = Cataloguing(
            client,
            namespace=options.operator_namespace,
            name=options.catalogue,
            on_change=self._catalogue_changed,
            announcer=announcer,
        )
        self.runtimes = RuntimeTable(
            client,
            namespace=options.operator_namespace,
            on_change=self._runtimes_changed,
            announcer=announcer,
        )
        self.children[PODS].when_gone(self.audit.pod_gone)
        self.usage = Usage(
            self.metrics.registry,
            node_labels=self.nodes.labels_of,
            catalogue=lambda: self._reconciler.settings.catalogue,
            exists=lambda place: place in self.indexes.deployments,
            leading=self._leads,
            now=clock,
        )
        self.children[PODS].when_gone(self.usage.gone)
        self._announcer = announcer
        self._telling: set[asyncio.Task[None]] = set()
        self.refusals = GatewayRefusals(
            asked=bool(options.gateway_load),
            on_change=self._look_again,
            on_gateway=self._gateway_refused,
            written=self.indexes.refused,
        )
        self.demand = Demand(self._look_again)
        self.outcomes = Outcomes(on_news=self._look_again)
        self.queries = Queries(
            options.prometheus_url,
            token_file=options.prometheus_token_file,
            ca_file=options.prometheus_ca_file,
        )
        self._reconciler = Reconciler(
            options=options,
            indexes=self.indexes,
            children=self.children,
            nodes=self.nodes,
            integrations=self.integrations,
            book=self.book,
            writer=self.writer,
            starts=self.starts,
            clock=clock,
            hurried=lambda: self.queue.hurried,
            on_decided=self._decided,
            refused=self.refusals.of,
            demand=self.demand,
            evidence=Witnesses(self.outcomes, self.queries).evidence,
            claims=self.caching.claims,
            ahead=self.caching.ahead,
        )
        self.scaling = Scaling(
            client,
            options=options,
            indexes=self.indexes,
            children=self.children,
            demand=self.demand,
            on_reports=self._reported,
        )
        self.listings = Listings(
            client,
            indexes=self.indexes,
            children=self.children.values(),
            namespaces=self._scopes,
            resync=options.resync,
            look=lambda key: self.queue.add(key, later=True),
            clock_difference=self._clock_difference,
        )
        self.definitions = Definitions(
            client, tell=self._tell_operators, on_change=self._definition_changed
        )
        self.webhook = self._make_webhook(clock) if options.webhook_listen else None
        self.guard = self._make_guard() if options.placement_guard else None
        self.metrics.watch(
            self.queue,
            writes=lambda: self.writer.writes,
            leading=self._leads,
        )
        self.metrics.watch_surroundings(lambda: surroundings(self))

    @property
    def missing(self) -> str:
        """What is not read yet, for readiness; empty when all is."""
        return not_ready(self.vitals())

    @property
    def listed(self) -> bool:
        """Whether our kinds were read."""
        return self.listings.done

    @property
    def connection(self) -> KubeClient:
        """The client itself, for what is known of the connection."""
        return self._unfenced

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self._leads()

    def vitals(self) -> Vitals:
        """How this process is."""
        reflectors = self.reflectors()
        return Vitals(
            working=self._leads(),
            oldest=self.queue.oldest,
            idle=self.queue.still,
            listed=self.listings.done,
            unsynced=sum(not each.synced for each in reflectors),
            webhook=self.webhook is None or self.webhook.serving,
            silent={each.resource.plural: each.silent for each in reflectors},
        )

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            ExceptionGroup: a part ended; the process should end too and be started again.
        """
        server = await self._serve()
        try:
            async with asyncio.TaskGroup() as group:
                optional = self.caching.reflectors
                for reflector in (*self.reflectors(), *self.definitions.reflectors, *optional):
                    group.create_task(reflector.run())
                if self.webhook is not None:
                    # On followers too: a review needs no leader.
                    group.create_task(self.webhook.run())
                await self.listings.first()
                group.create_task(
                    self._drive(
                        self._on_event,
                        kubeconfig=self.options.kubeconfig,
                        namespaces=self.options.namespaces,
                        own_signals=self._own_signals,
                    )
                )
                group.create_task(self.listings.run())
                for reflector in self.reflectors():
                    await reflector.wait_synced()
                await self.definitions.wait(DEFINITIONS_WITHIN)
                await synced(optional, within=CACHES_WITHIN)
                if self.options.leader_election:
                    await self._elector.acquire()
                    group.create_task(self._elector.hold())
                self.audit.lead()
                self.definitions.lead()
                if self.guard is not None:
                    await self.guard.load()
                    group.create_task(self.guard.run())
                group.create_task(self.queue.run())
                group.create_task(self.scaling.run())
                group.create_task(self.starts.run())
                group.create_task(self.cataloguing.tell())
                group.create_task(self.caching.tidying.run())
                group.create_task(self.runtimes.tell())
        finally:
            await self.audit.close()
            await self.book.close()
            await self.queries.close()
            await self._fence.settle(LAST_WRITES)
            await self._elector.release()
            if server is not None:
                await server.cleanup()

    def _gateway_refused(self, message: str) -> None:
        """What concerns no single deployment is told on the gateways' own namespace."""
        if message:
            self._tell_operators(Announcement("Warning", Reason.GATEWAY_REFUSED, message))

    def _tell_operators(self, event: Announcement) -> None:
        """An Event for those who run the platform, on the operator's own namespace."""
        space = self.options.operator_namespace
        about = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
        told = asyncio.create_task(
            self._announcer.announce(ObjectKey(space, space), about, event), name="tell operators"
        )
        self._telling.add(told)
        told.add_done_callback(self._telling.discard)

    # Events in.

    def _seen(self, kind: Kind, key: ObjectKey, old: Json | None, new: Json | None) -> None:
        self.audit.seen(kind, key, old, new)
        if kind is Kind.MODEL:
            self.caching.model_changed(key.namespace, old, new)
        if kind is Kind.MODEL_DEPLOYMENT:
            self.scaling.touched(key)
        if self.listings.done and differs(old, new):
            self.metrics.changes.labels(str(kind)).inc()

    def _on_event(self, kind: Kind, key: ObjectKey, item: Json, gone: bool) -> None:
        if gone:
            self.indexes.remove(kind, key, uid=item["metadata"].get("uid", ""))
        else:
            self.indexes.put(kind, item)

    def _enqueue(self, key: Key, after: float) -> None:
        if after > 0:
            self.queue.add_after(key, after)
        else:
            self.queue.add(key)

    def _reported(self, reports: Mapping[str, GatewayLoad]) -> None:
        self.refusals.note(reports)
        self.outcomes.record(reports)

    def _look_again(self, place: ObjectKey) -> None:
        self.queue.add(Key(Kind.MODEL_DEPLOYMENT, Workspace(place.namespace), place.name))

    def _leads(self) -> bool:
        return not self.options.leader_election or self._elector.leading

    def _may_write(self) -> bool:
        return not self.options.leader_election or self._elector.may_write()

    def _pod_changed(self, pod: Json) -> None:
        metadata = pod["metadata"]
        key = ObjectKey(metadata.get("namespace", ""), metadata["name"])
        if key in self.children[PODS]:
            self.usage.seen(pod)
        self.indexes.child_changed(pod)

    def _workload_changed(self, workload: Json) -> None:
        metadata = workload["metadata"]
        key = ObjectKey(metadata.get("namespace", ""), metadata["name"])
        self.caching.workload_changed(workload, there=key in self.children[DEPLOYMENTS])
        self.indexes.child_changed(workload)

    def _errand_ended(self, errand: str, result: str) -> None:
        if self._leads():
            self.metrics.errand(errand, result)

    def _node_changed(self, node: str) -> None:
        for pod in self.children[PODS].on(node):
            self.indexes.child_changed(pod)

    def _integration_changed(self, workspace: str, integration: str) -> None:
        self.indexes.integration_changed(workspace, integration)

    def _catalogue_changed(self, catalogue: Catalogue) -> None:
        """Countries contain other places, flavors show by other labels: all is judged anew."""
        self.nodes.use(catalogue)
        self._reconciler.use(catalogue)
        if self.guard is not None:
            self.guard.use(self._reconciler.settings)
        self._settings_changed(Kind.MODEL_DEPLOYMENT, Kind.POLICY)

    def _runtimes_changed(self, table: Table) -> None:
        """Which deployments have a preset that is another one now, only their files may tell."""
        self._reconciler.use_presets(table.presets)
        self._settings_changed(Kind.MODEL_DEPLOYMENT)

    def _settings_changed(self, *kinds: Kind) -> None:
        if self.webhook is not None:
            self.webhook.use(self._reconciler.settings)
        for key in self.indexes.all_keys():
            if key.kind in kinds:
                self.queue.add(key, later=True)

    def _definition_changed(self, kind: str) -> None:
        """Objects are stored with other fields from now on: all of the kind are looked at again."""
        for key in self.indexes.all_keys():
            if key.kind == kind:
                self.queue.add(key)

    def _is_urgent(self, key: Key) -> bool:
        """Deployments with pods go first: one of them may run where it must not any more."""
        place = ObjectKey(key.workspace, key.name)
        return key.kind is Kind.MODEL_DEPLOYMENT and self.children[PODS].has(place)

    async def _work(self, key: Key) -> float | None:
        after = await self._reconciler.reconcile(key)
        if after is None and not self._reconciler.exists(key):
            self.queue.forget(key)
        return after

    def _clock_difference(self) -> float | None:
        client = self._unfenced
        return client.clock_difference if isinstance(client, HttpClient) else None

    def _make_webhook(self, clock: Callable[[], datetime]) -> Webhook:
        # Here, because most of what it needs is not needed without it.
        from beamlit_operator.controllers.admission.starting import webhook

        return webhook(
            self._unfenced,
            self.options,
            picture=self._picture(),
            synced=lambda: self.listings.done and all(r.synced for r in self.reflectors()),
            registry=self.metrics.registry,
            clock=clock,
        )

    def _make_guard(self) -> Guard:
        from beamlit_operator.controllers.admission.guard import Guard

        return Guard(
            self.client, namespace=self.options.operator_namespace, picture=self._picture()
        )

    def _picture(self) -> Picture:
        return Picture(
            indexes=self.indexes,
            settings=self._reconciler.settings,
            pods_of=self.children[PODS].of,
            node_labels=self.nodes.labels_of,
            node_kinds=lambda: [labels for labels, _ in self.nodes.kinds()],
            prometheus=bool(self.options.prometheus_url),
            namespaces=self.options.namespaces,
        )

    def _decided(self, key: ObjectKey, before: Json | None, plan: Plan) -> None:
        self.audit.decided(key, before, plan)
        if self.guard is not None:
            self.guard.note(key, plan)

    def reflectors(self) -> list[Reflector]:
        """All that has to be read before anything is decided."""
        return [
            *(r for each in self.children.values() for r in each.reflectors),
            self.nodes.reflector,
            self.cataloguing.reflector,
            self.runtimes.reflector,
            *self.integrations.reflectors,
        ]

    async def _serve(self) -> web.AppRunner | None:
        if not self.options.listen:
            return None
        host, _, port = self.options.listen.rpartition(":")
        app = application(
            self.metrics,
            vitals=self.vitals,
            role=lambda: "leads" if self._leads() else "stands by",
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host or None, int(port)).start()
        return runner
