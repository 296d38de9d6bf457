"""Runs the pods of all pretend nodes in this process."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.images import ImageStore, ImageTable
from beamlit_operator.devcluster.informers import Informers
from beamlit_operator.devcluster.kubelet import logs, scratch
from beamlit_operator.devcluster.kubelet.addresses import Addresses
from beamlit_operator.devcluster.kubelet.guard import Guard
from beamlit_operator.devcluster.kubelet.guard_program import MARK
from beamlit_operator.devcluster.kubelet.machine import Machine, Settings
from beamlit_operator.devcluster.kubelet.nodes import fill_in, is_pretend
from beamlit_operator.devcluster.kubelet.podworker import PodWorker
from beamlit_operator.devcluster.kubelet.usage import Pids, UsageMeter
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.kube import NODES, PODS, ApiError, Change, Json, KubeClient, ObjectKey

log = logging.getLogger(__name__)


ORPHAN_AFTER = 1.0
"""Seconds a pod outlives its node. Kubernetes waits 40 s for a node that may come back; here
nothing but a user deletes one."""


class Kubelet:
    """A kubelet for every node with the label ``beamlit.dev/pretend-node``."""

    def __init__(
        self,
        informers: Informers,
        folder: Path,
        *,
        table: ImageTable,
        store: ImageStore,
        settings: Settings | None = None,
    ) -> None:
        self._client: KubeClient = informers.client
        self._pods = informers.of(PODS)
        self._nodes = informers.of(NODES)
        self._folder = folder
        self._table = table
        self._store = store
        self._settings = settings or Settings()
        self._cluster: dict[str, str] = {}
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._machine: Machine | None = None
        self.usage = UsageMeter(self._pids)
        self._events = EventRecorder(informers.client, "kubelet")
        self._orphans = KeyLoop("pod-gc", self._remove_orphan)
        self._fresh_nodes = KeyLoop("node-status", self._complete_node)
        informers.subscribe(PODS, self._pod_changed)
        informers.subscribe(NODES, self._node_changed)

    async def run(self) -> None:
        """Works until cancelled; then ends every process it started before it returns."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._store.close)
            addresses = Addresses()
            stack.callback(addresses.close)
            guard = Guard(uuid.uuid4().hex)
            stack.push_async_callback(guard.stop)
            await guard.start()
            self._store.environment = {MARK: guard.token}
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            # Probes go to many short-lived addresses: a connection kept is a connection wasted.
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            self._machine = Machine(
                self._client,
                self._events,
                self._table,
                self._store,
                addresses,
                guard,
                session,
                self._folder,
                self._allocatable,
                self._settings,
                self._cluster,
            )
            stack.push_async_callback(self._stop_all)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._events.run())
                group.create_task(self._orphans.run())
                group.create_task(self._fresh_nodes.run())
                group.create_task(self._take_over())

    def announce(self, host: str, port: int) -> None:
        """Tells pods where the API server is, in the variables that in-cluster clients read."""
        self._cluster.update(
            KUBERNETES_SERVICE_HOST=host,
            KUBERNETES_SERVICE_PORT=str(port),
            KUBERNETES_SERVICE_PORT_HTTPS=str(port),
        )

    async def _take_over(self) -> None:
        """Starts with what the API holds; removes folders of pods that are gone."""
        while not (self._pods.synced and self._nodes.synced):
            await asyncio.gather(self._pods.wait_synced(), self._nodes.wait_synced())
        known = {pod["metadata"]["uid"] for pod in self._pods.values()}
        for folder in self._folder.iterdir():
            if folder.name not in known:
                await asyncio.to_thread(scratch.remove, folder.name)
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        for pod in list(self._pods.values()):
            self._consider(pod)

    async def _stop_all(self) -> None:
        self._machine = None
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _allocatable(self, node: str) -> dict[str, str]:
        found = self._nodes.get(ObjectKey("", node)) or {}
        return dict((found.get("status") or {}).get("allocatable") or {})

    def _pids(self) -> Pids:
        """The containers that run, without the init containers that end by themselves."""
        found = {}
        for worker in self._workers.values():
            running = {
                name: container.pid
                for name, container in worker.containers.items()
                if container.pid is not None and container.record.role != "init"
            }
            mains = {item["name"] for item in worker.pod["spec"]["containers"]}
            if mains <= running.keys():
                found[_key_of(worker.pod)] = running
        return found

    def _node_changed(self, change: Change) -> None:
        for pod in list(self._pods.values()):
            if pod["spec"].get("nodeName") == change.key.name:
                if change.new is None:
                    self._orphans.add_after(_key_of(pod), ORPHAN_AFTER)
                else:
                    self._consider(pod)
        if change.new is not None and is_pretend(change.new):
            self._fresh_nodes.add(change.key.name)

    def _pod_changed(self, change: Change) -> None:
        for pod in (change.old, change.new):
            if pod is None:
                continue
            uid = pod["metadata"]["uid"]
            worker = self._workers.get(uid)
            if worker is None:
                continue
            still_there = change.new is not None and change.new["metadata"]["uid"] == uid
            worker.update(change.new if still_there else None)
        if change.new is not None:
            self._consider(change.new)

    def _consider(self, pod: Json) -> None:
        uid, node_name = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if self._machine is None or uid in self._workers:
            return
        node = self._nodes.get(ObjectKey("", node_name or ""))
        leaving = "deletionTimestamp" in pod["metadata"]
        if node is None:
            # Nobody else will remove a pod that has no node, or whose node is gone.
            if leaving or (node_name and self._nodes.synced):
                self._orphans.add_after(_key_of(pod), 0.0 if leaving else ORPHAN_AFTER)
            return
        if not is_pretend(node):
            return
        worker = self._workers[uid] = PodWorker(pod, self._machine)
        task = self._tasks[uid] = asyncio.create_task(worker.run())
        task.add_done_callback(lambda task: self._worker_ended(uid, task))
        if leaving:
            worker.update(pod)

    def _worker_ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a pod worker failed", exc_info=task.exception())

    async def _remove_orphan(self, key: ObjectKey) -> float | None:
        pod = self._pods.get(key)
        if pod is None or ObjectKey("", pod["spec"].get("nodeName") or "") in self._nodes:
            return None
        metadata = pod["metadata"]
        if pod["spec"].get("nodeName") or "deletionTimestamp" in metadata:
            await self._client.delete(
                PODS, key.name, key.namespace, uid=metadata["uid"], grace_period_seconds=0
            )
        return None

    async def _complete_node(self, name: str) -> float | None:
        """A Node that somebody created with the label becomes one that can take pods."""
        node = self._nodes.get(ObjectKey("", name))
        status = fill_in(node) if node is not None else None
        if status is not None:
            body = {"status": status}
            await self._client.merge_patch(NODES, name, body, subresource="status")
        return None

    # Logs

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        follow: bool = False,
        tail_lines: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> AsyncIterator[bytes]:
        """The log of a container, for ``kubectl logs``.

        Raises:
            ApiError: there is no such pod, container or attempt, or it has not started.
        """
        found = self._pods.get(ObjectKey(namespace, pod))
        if found is None:
            raise ApiError(404, "NotFound", f'pods "{pod}" not found')
        worker = self._workers.get(found["metadata"]["uid"])
        name = _container_of(found, container)
        record = next((r for r in worker.records if r.name == name), None) if worker else None
        if worker is None or record is None:
            raise ApiError(400, "BadRequest", f'pod "{pod}" has not been started on a node')
        attempt = record.restart_count
        current = worker.containers.get(name)
        path = worker.log_path(name, attempt)
        if not previous and not path.exists() and attempt:
            # Waiting for its next start: the log of the last one is what people look for.
            path = worker.log_path(name, attempt - 1)
        elif previous:
            path = path.with_name(f"{attempt - 1}.log")
            if not path.exists():
                text = f'previous terminated container "{name}" in pod "{pod}" not found'
                raise ApiError(400, "BadRequest", text)
        if not path.exists():
            reason = (record.state.get("waiting") or {}).get("reason", "ContainerCreating")
            text = f'container "{name}" in pod "{pod}" is waiting to start: {reason}'
            raise ApiError(400, "BadRequest", text)
        if follow and current is not None and current.log is not None and current.log.path == path:
            return current.log.follow(tail_lines, timestamps=timestamps)
        return logs.read(path, tail_lines, timestamps=timestamps)


def _container_of(pod: Json, name: str | None) -> str:
    spec = pod["spec"]
    names = [item["name"] for item in spec["containers"]]
    everyone = [item["name"] for item in spec.get("initContainers") or ()] + names
    default = (pod["metadata"].get("annotations") or {}).get(
        "kubectl.kubernetes.io/default-container"
    )
    chosen = name or default or (names[0] if len(names) == 1 else "")
    where = pod["metadata"]["name"]
    if not chosen:
        text = f"a container name must be specified for pod {where}, choose one of: {names}"
        raise ApiError(400, "BadRequest", text)
    if chosen not in everyone:
        raise ApiError(400, "BadRequest", f"container {chosen} is not valid for pod {where}")
    return chosen


def _key_of(pod: Json) -> ObjectKey:
    return ObjectKey(pod["metadata"].get("namespace", ""), pod["metadata"]["name"])
