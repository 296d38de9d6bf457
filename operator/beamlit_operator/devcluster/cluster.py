"""The embedded cluster as one object: API server, controllers, scheduler and kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.devcluster.apiserver.authorization import Mode
from beamlit_operator.devcluster.controllers import Controllers, provisioner
from beamlit_operator.devcluster.controllers.horizontal_loop import SYNC_SECONDS
from beamlit_operator.devcluster.images import ImageStore, ImageTable
from beamlit_operator.devcluster.images.store import cache_directory
from beamlit_operator.devcluster.informers import Informers
from beamlit_operator.devcluster.kubelet import Kubelet, Settings, nodes
from beamlit_operator.devcluster.scheduler import Scheduler
from beamlit_operator.kube import KubeClient

log = logging.getLogger(__name__)

READY_TIMEOUT = 30.0
"""Seconds the reflectors may take for their first lists of a store on this machine."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to start a cluster."""

    data_dir: Path
    """Holds state, pods, logs and the kubeconfig; a second start continues from it."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 picks a free one."""
    nodes: Path = nodes.DEFAULT
    images: tuple[Path, ...] = ()
    """Image tables that come before the built-in one."""
    image_cache: Path = field(default_factory=cache_directory)
    kubelet: Settings = field(default_factory=Settings)
    autoscaler_sync: float = SYNC_SECONDS
    """Seconds between two looks of a HorizontalPodAutoscaler."""
    authorization: Mode = "AlwaysAllow"
    """RBAC: roles say who may do what, also to those without a token."""
    access_log: Path | None = None
    """A file that tells which kinds of requests every user has made."""
    audit_log: Path | None = None
    """A file that tells of every request that could change something."""

    @property
    def kubeconfig(self) -> Path:
        """Written when the cluster is ready."""
        return self.data_dir / "kubeconfig"


class Workloads:
    """Everything but the API server, on any client: controllers, scheduler, kubelet."""

    def __init__(self, client: KubeClient, options: Options) -> None:
        """Raises for a nodes file or image table that cannot be used."""
        self._client = client
        self._nodes = nodes.load(options.nodes)
        self._informers = Informers(client)
        self._scheduler = Scheduler(self._informers)
        self.kubelet = Kubelet(
            self._informers,
            options.data_dir / "pods",
            table=ImageTable(*options.images),
            store=ImageStore(options.image_cache),
            settings=options.kubelet,
        )
        self._controllers = Controllers(
            self._informers,
            usage=self.kubelet.usage,
            volumes=options.data_dir / "volumes",
            autoscaler_sync=options.autoscaler_sync,
        )

    async def register(self) -> None:
        """Writes the pretend nodes and the class of storage to the API."""
        await nodes.register(self._client, self._nodes)
        await provisioner.register(self._client)

    async def wait_ready(self) -> None:
        """Returns once everything knows the state of the API."""
        await self._informers.wait_synced()

    async def run(self) -> None:
        """Works until cancelled, and leaves no process."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informers.run())
            group.create_task(self._controllers.run())
            group.create_task(self._scheduler.run())
            group.create_task(self.kubelet.run())


class DevCluster:
    """A Kubernetes for laptops. ``async with`` starts and stops it."""

    def __init__(self, options: Options) -> None:
        """Raises for a nodes file or image table that cannot be used."""
        self.options = options
        self._api = ApiServer(
            data_dir=options.data_dir,
            authorization=options.authorization,
            access_log=options.access_log,
            audit_log=options.audit_log,
        )
        self.workloads = Workloads(self._api.client, options)
        self._running: asyncio.Task[None] | None = None

    @property
    def client(self) -> KubeClient:
        """A client in this process, for as long as the cluster runs."""
        return self._api.client

    async def __aenter__(self) -> DevCluster:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the cluster can be used; the kubeconfig is there then."""
        await self._api.start(self.options.host, self.options.port)
        try:
            workloads = self.workloads
            self._api.set_log_provider(workloads.kubelet.logs)
            self._api.set_usage_provider(workloads.kubelet.usage)
            server = urlsplit(self._api.url)
            workloads.kubelet.announce(server.hostname or "", server.port or 0)
            await workloads.register()
            running = self._running = asyncio.create_task(workloads.run())
            ready = asyncio.create_task(workloads.wait_ready())
            await asyncio.wait(
                {running, ready}, timeout=READY_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                ready.cancel()
                await running
            if not ready.done():
                ready.cancel()
                raise TimeoutError("the embedded cluster did not become ready in time")
            self._api.kubeconfig(self.options.kubeconfig)
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> None:
        """Until something in it fails; it does not end by itself."""
        if self._running is not None:
            await self._running

    async def stop(self) -> None:
        """Ends every pod process, then the API server. The state stays in the data directory."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        await self._api.stop()
        self.options.kubeconfig.unlink(missing_ok=True)
