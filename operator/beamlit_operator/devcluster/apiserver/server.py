"""The embedded API server: state, verbs, HTTPS and the background work that belongs to them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from aiohttp import web

from beamlit_operator.devcluster.apiserver import metrics
from beamlit_operator.devcluster.apiserver.access import Access
from beamlit_operator.devcluster.apiserver.accesslog import AccessLog
from beamlit_operator.devcluster.apiserver.accounts import PodAccounts
from beamlit_operator.devcluster.apiserver.admission import Steps
from beamlit_operator.devcluster.apiserver.admission_policies import AdmissionPolicies
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.auditlog import AuditLog
from beamlit_operator.devcluster.apiserver.authorization import Mode
from beamlit_operator.devcluster.apiserver.builtin_types import builtin_types
from beamlit_operator.devcluster.apiserver.definitions import Definitions
from beamlit_operator.devcluster.apiserver.gc import GarbageCollector
from beamlit_operator.devcluster.apiserver.http import Frontend
from beamlit_operator.devcluster.apiserver.journal import FileJournal
from beamlit_operator.devcluster.apiserver.limitranges import LimitRanges
from beamlit_operator.devcluster.apiserver.local import LocalClient
from beamlit_operator.devcluster.apiserver.logs import LogProvider
from beamlit_operator.devcluster.apiserver.metadata import now_text
from beamlit_operator.devcluster.apiserver.metrics import MetricsApi
from beamlit_operator.devcluster.apiserver.namespaces import NamespaceLifecycle
from beamlit_operator.devcluster.apiserver.podsecurity import PodSecurity
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.quota import Quotas
from beamlit_operator.devcluster.apiserver.rbac_escalation import Escalation
from beamlit_operator.devcluster.apiserver.rbac_roles import Aggregation, write_first_roles
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.devcluster.apiserver.storage_admission import Storage
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.devcluster.apiserver.tls import Identity, load_or_make
from beamlit_operator.devcluster.apiserver.webhooks import Webhooks
from beamlit_operator.devcluster.usage import UsageProvider
from beamlit_operator.kube import Json

FIRST_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer:
    """A Kubernetes API server on the loopback interface.

    State is kept under ``data_dir`` and survives a restart in the same directory. With
    ``authorization`` RBAC, roles say who may do what; otherwise whoever has a token may do all.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        authorization: Mode = "AlwaysAllow",
        access_log: Path | None = None,
        audit_log: Path | None = None,
    ) -> None:
        self._access_log = access_log
        self._audit_log = audit_log
        self._data_dir = data_dir
        self._authorization: Mode = authorization
        self._journal = FileJournal(data_dir / "journal")
        self._store = Store(self._journal)
        self._registry = Registry()
        self._webhooks = Webhooks(self._store, self._registry)
        self._policies = AdmissionPolicies(self._store, self._registry)
        self._admissions = Steps()
        self._api = Api(self._store, self._registry, self._admissions)
        self._quotas = Quotas(self._api)
        self._aggregation = Aggregation(self._api)
        self._definitions = Definitions(self._store, self._registry)
        self._collector = GarbageCollector(self._api)
        self._lifecycle = NamespaceLifecycle(self._api)
        self._identity: Identity | None = None
        self._frontend: Frontend | None = None
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._log_provider: LogProvider | None = None
        self._metrics: MetricsApi | None = None
        self.url = ""
        """Where the server listens, once started."""
        self.client = LocalClient(self._api)
        """The in-process client; usable once started."""

    def set_log_provider(self, provider: LogProvider) -> None:
        """``provider(namespace, pod, container, follow, tail_lines, previous, timestamps)`` gives
        the bytes of a container's log, as an async iterator or an awaitable of one."""
        self._log_provider = provider
        if self._frontend is not None:
            self._frontend.log_provider = provider

    def set_usage_provider(self, provider: UsageProvider) -> None:
        """From now on ``metrics.k8s.io`` is served, with what ``provider`` measures."""
        self._registry.measured[metrics.GROUP_VERSION] = metrics.RESOURCES
        self._registry.generation += 1
        self._metrics = MetricsApi(self._api, provider)
        if self._frontend is not None:
            self._frontend.metrics = self._metrics

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Loads the state and listens; port 0 takes a free one.

        Raises:
            ValueError: ``host`` is not a loopback address: the server is for this machine only.
        """
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(f"{host}: the embedded cluster listens on the loopback interface only")
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identity = load_or_make(self._data_dir / "pki")
        self._registry.add(*builtin_types())
        self._journal.open(self._store)
        self._definitions.load()
        access = Access(
            self._store,
            token=self._identity.token,
            key=self._data_dir / "pki" / "sa.key",
            mode=self._authorization,
            log=AccessLog(self._access_log) if self._access_log is not None else None,
        )
        self._api.issue_token = access.tokens.issue
        self._admissions.set(
            PodAccounts(self._api),
            LimitRanges(self._store),
            Storage(self._store),
            PodSecurity(self._store),
            self._policies,
            self._webhooks,
            *([Escalation(access.rbac)] if self._authorization == "RBAC" else []),
            self._quotas,
        )
        self._lifecycle.publish_authority(self._identity.authority.decode())
        self._store.observers += [
            self._collector.observe,
            self._lifecycle.observe,
            self._webhooks.observe,
            self._policies.observe,
            access.rbac.observe,
            self._aggregation.observe,
            self._quotas.observe,
            # Last, because it commits: the others must see what happened in order.
            self._definitions.observe,
        ]
        self._collector.load()
        access.rbac.load()
        self._aggregation.load()
        self._quotas.load()
        await self._first_objects()
        self._webhooks.load()
        self._policies.load()
        audit = AuditLog(self._audit_log) if self._audit_log is not None else None
        self._frontend = Frontend(self._api, access, audit=audit)
        self._frontend.log_provider = self._log_provider
        self._frontend.metrics = self._metrics
        self._runner = web.AppRunner(
            self._frontend.application(), access_log=None, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._identity.server_context())
        await site.start()
        bound = self._runner.addresses[0][1]
        self.url = f"https://{'[::1]' if host == '::1' else host}:{bound}"
        self._tasks = [
            asyncio.create_task(self._collector.run(), name="garbage-collector"),
            asyncio.create_task(self._lifecycle.run(), name="namespace-lifecycle"),
            asyncio.create_task(self._aggregation.run(), name="role-aggregation"),
            asyncio.create_task(self._quotas.run(), name="quota-status"),
        ]

    async def _first_objects(self) -> None:
        served = self._registry.find("", "v1", "namespaces")
        for name in FIRST_NAMESPACES:
            if Key("", name) not in self._api.collection(served).objects:
                body: Json = {"metadata": {"name": name, "creationTimestamp": now_text()}}
                await self._api.create(served, "", body, Options(manager="kube-apiserver"))
            await self._lifecycle.give(name)
        if self._authorization == "RBAC":
            await write_first_roles(self._api)
            await self._aggregation.settle()
        self._lifecycle.load()

    async def stop(self) -> None:
        """Ends the background work, closes connections and the state file."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        if self._frontend is not None:
            self._frontend.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._webhooks.close()
        self._journal.close()

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig for this server to ``path`` (mode 0600), and returns ``path``."""
        if self._identity is None or not self.url:
            raise RuntimeError("the server is not started")
        self._identity.write_kubeconfig(path, self.url)
        return path
