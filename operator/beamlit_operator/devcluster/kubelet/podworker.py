"""One pod on this machine, from its binding to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from beamlit_operator.devcluster.controllers.pods import is_finished
from beamlit_operator.devcluster.images.store import Program
from beamlit_operator.devcluster.kubelet import scratch, variables, volumes
from beamlit_operator.devcluster.kubelet.addresses import HOST_ADDRESS, AddressError
from beamlit_operator.devcluster.kubelet.claims import ClaimError, volumes_of
from beamlit_operator.devcluster.kubelet.container import Container
from beamlit_operator.devcluster.kubelet.guard_program import MARK
from beamlit_operator.devcluster.kubelet.launch import Launch, prepare
from beamlit_operator.devcluster.kubelet.machine import Machine, inherited
from beamlit_operator.devcluster.kubelet.records import first_records, refusal
from beamlit_operator.devcluster.kubelet.status import Facts, status_of
from beamlit_operator.devcluster.kubelet.tokens import PodTokens
from beamlit_operator.devcluster.timestamps import now_utc, read
from beamlit_operator.kube import CONFIG_MAPS, PODS, SECRETS, ApiError, Json

log = logging.getLogger(__name__)

WRITE_RETRY = 0.5
"""Seconds before a status write or deletion that failed is tried again."""

FORCED_GRACE = 2.0
"""What processes get when their pod vanished from the API; as kubelet."""


class PodWorker:
    """Runs a pod. Tell it about changes with :meth:`update`."""

    def __init__(self, pod: Json, machine: Machine) -> None:
        self.machine = machine
        self._pod = pod
        self._ip = ""
        self._folder = machine.folder / pod["metadata"]["uid"]
        self._volumes: dict[str, Path] = {}
        self._claimed: dict[str, Json] | None = None
        self._tokens = PodTokens(machine.client)
        status = pod.get("status") or {}
        self._since = read(status["startTime"]) if status.get("startTime") else now_utc()
        self.records = first_records(pod)
        self.containers: dict[str, Container] = {}
        self._expiring = False
        self._ended: tuple[str, str] | None = None
        self._dirty = asyncio.Event()
        self._leaving = asyncio.Event()
        self._gone = False
        self._grace: float | None = None

    # What containers ask of their pod

    @property
    def pod(self) -> Json:
        """The pod as last seen."""
        return self._pod

    @property
    def ip(self) -> str:
        """Its address."""
        return self._ip

    def changed(self) -> None:
        """A container's record changed: the status must be written."""
        self._dirty.set()

    def log_path(self, name: str, attempt: int) -> Path:
        """Where one attempt of a container logs; those before the previous one are removed."""
        folder: Path = self._folder / "logs" / name
        for old in folder.glob("*.log*"):
            if int(old.name.partition(".")[0]) < attempt - 1:
                old.unlink(missing_ok=True)
        return folder / f"{attempt}.log"

    async def prepared(self, spec: Json, program: Program) -> Launch:
        """The launch of a container; see :func:`launch.prepare`."""
        facts = await self._facts(*variables.referenced(spec))
        folder = self._folder / "containers" / spec["name"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "termination-log").write_text("")
        return prepare(
            spec,
            program,
            facts,
            volumes=self._volumes,
            folder=folder,
            scratch=scratch.create(
                self._pod["metadata"]["uid"], spec["name"], otherwise=folder / "tmp"
            ),
            base={**inherited(), **self.machine.cluster, MARK: self.machine.guard.token},
        )

    # Its life

    def update(self, pod: Json | None) -> None:
        """The pod changed in the API, or is gone from it (None)."""
        if pod is None:
            self._gone = True
            self._leave(FORCED_GRACE)
            return
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            self._leave(30.0 if grace is None else float(grace))
        elif any(gate for gate in pod["spec"].get("readinessGates") or ()):
            self._dirty.set()

    def _leave(self, grace: float) -> None:
        shorter = self._grace is None or grace < self._grace
        self._grace = grace if self._grace is None else min(self._grace, grace)
        if self._leaving.is_set() and shorter:
            for container in self.containers.values():
                container_stop = asyncio.create_task(container.stop(self._grace))
                container_stop.add_done_callback(lambda task: task.exception())
        self._leaving.set()

    async def run(self) -> None:
        """Until the pod is gone from the API. Cancelling ends its processes first."""
        writer = asyncio.create_task(self._write_statuses())
        life = asyncio.create_task(self._live())
        limit = asyncio.create_task(self._deadline())
        refresh = asyncio.create_task(self._refresh_volumes())
        try:
            await self._leaving.wait()
            await self._stop_all(self._grace or 0.0)
            await asyncio.gather(life, return_exceptions=True)
            if not self._gone:
                await self._flush()
        except asyncio.CancelledError:
            grace = self.machine.settings.shutdown_grace
            await self._stop_all(grace if self._grace is None else min(self._grace, grace))
            raise
        finally:
            for task in (writer, life, limit, refresh):
                task.cancel()
            await asyncio.gather(writer, life, limit, refresh, return_exceptions=True)
            if self._ip:
                self.machine.addresses.release(self._ip)
            scratch.remove(self._folder.name)
        await asyncio.to_thread(volumes.wipe, self._folder)
        await self._remove()

    async def _stop_all(self, grace: float) -> None:
        mains = [c for c in self.containers.values() if c.record.role != "sidecar"]
        sidecars = [c for c in self.containers.values() if c.record.role == "sidecar"]
        kill_by = asyncio.get_running_loop().time() + grace
        await asyncio.gather(*(container.stop(grace) for container in mains))
        for container in reversed(sidecars):
            left = kill_by - asyncio.get_running_loop().time()
            await container.stop(max(left, 0.0))

    async def _live(self) -> None:
        try:
            await self._run_containers()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod %s failed", self._pod["metadata"]["name"])
        finally:
            self.changed()

    async def _run_containers(self) -> None:
        if is_finished(self._pod) or self._leaving.is_set() or not await self._settle():
            return
        if self._leaving.is_set():
            return
        spec = self._pod["spec"]
        async with asyncio.TaskGroup() as sidecars:
            for container_spec in spec.get("initContainers") or ():
                container = self._container(container_spec)
                if container.record.role == "sidecar":
                    sidecars.create_task(container.run())
                    await self._until_started(container)
                elif container.record.exit_code is None:
                    await container.run()
                if self._leaving.is_set():
                    return
                if container.record.role == "init" and container.record.exit_code != 0:
                    return
            mains = [self._container(item) for item in spec["containers"]]
            await asyncio.gather(*(item.run() for item in mains if item.record.exit_code is None))
            if not self._leaving.is_set():
                await self._stop_all(30.0)

    def _container(self, spec: Json) -> Container:
        record = next(item for item in self.records if item.name == spec["name"])
        container = self.containers[spec["name"]] = Container(spec, record, self)
        return container

    async def _until_started(self, container: Container) -> None:
        while not (container.record.started or self._leaving.is_set()):
            await asyncio.sleep(0.02)

    async def _deadline(self) -> None:
        limit = self._pod["spec"].get("activeDeadlineSeconds")
        if limit is None or is_finished(self._pod):
            return
        await asyncio.sleep(max(0.0, float(limit) - (now_utc() - self._since).total_seconds()))
        # A pod's status is not written again once it has failed: it is written with the reason.
        self._expiring = True
        await self._stop_all(float(self._pod["spec"].get("terminationGracePeriodSeconds") or 30))
        text = "Pod was active on the node longer than the specified deadline"
        self._ended = ("DeadlineExceeded", text)
        self.changed()

    async def _settle(self) -> bool:
        """Gives the pod its address and volumes; False when it must leave before."""
        told = ""
        while not self._leaving.is_set():
            try:
                message = refusal(self._pod)
                if message is None:
                    self._ip = self._ip or self.machine.addresses.allocate()
                    await self._mount()
                    self.changed()
                    return True
                reason = "FailedCreatePodSandBox"
            except (volumes.VolumeError, ClaimError) as error:
                reason, message = "FailedMount", str(error)
            except (AddressError, ApiError, OSError) as error:
                reason, message = "FailedCreatePodSandBox", str(error)
            if message != told:
                told = message
                self._tell(reason, message)
                for record in self.records:
                    if record.role == "main":
                        waiting = {"reason": "ContainerCreating", "message": message}
                        record.state = {"waiting": waiting}
            self.changed()
            with contextlib.suppress(TimeoutError):
                retry = self.machine.settings.missing_retry
                await asyncio.wait_for(self._leaving.wait(), retry)
        return False

    async def _mount(self) -> None:
        folder = self._folder / "volumes"
        facts = await self._facts(*volumes.referenced(self._pod))
        if self._claimed is None:
            # Once: what is mounted stays mounted, whatever becomes of the claim.
            self._claimed = await volumes_of(self._pod, self.machine)
        tokens = await self._tokens.of(self._pod)
        facts = replace(facts, tokens=tokens, claimed=self._claimed)
        self._volumes = await asyncio.to_thread(volumes.set_up, self._pod, folder, facts)

    async def _refresh_volumes(self) -> None:
        """Secrets and ConfigMaps that change reach running pods, as kubelet's sync does it."""
        if not any(map(volumes.follows_api, self._pod["spec"].get("volumes") or ())):
            return
        while True:
            await asyncio.sleep(self.machine.settings.volume_refresh)
            if self._volumes and not self._leaving.is_set():
                try:
                    await self._mount()
                except (volumes.VolumeError, ApiError) as error:
                    # Deleted since: the files stay as they are.
                    log.debug("volumes of pod %s: %s", self._pod["metadata"]["name"], error)

    async def _facts(self, secrets: set[str], config_maps: set[str]) -> variables.Facts:
        namespace = self._pod["metadata"]["namespace"]
        return variables.Facts(
            self._pod,
            self._ip,
            HOST_ADDRESS,
            await self.machine.objects(SECRETS, namespace, secrets),
            await self.machine.objects(CONFIG_MAPS, namespace, config_maps),
            self.machine.allocatable(self._pod["spec"].get("nodeName", "")),
        )

    def _tell(self, reason: str, message: str) -> None:
        node = self._pod["spec"].get("nodeName", "")
        self.machine.events.record(self._pod, reason, message, type="Warning", host=node)

    # What the API hears

    def _status(self) -> Json:
        return status_of(
            Facts(
                self._pod,
                self.records,
                self._ip or None,
                HOST_ADDRESS,
                self._since,
                now_utc(),
                self._ended,
            )
        )

    async def _write_statuses(self) -> None:
        self._dirty.set()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if is_finished(self._pod) or (self._expiring and self._ended is None):
                continue
            try:
                await self._write()
            except ApiError as error:
                if error.not_found:
                    continue
                log.debug("status of pod %s: %s", self._pod["metadata"]["name"], error)
                await asyncio.sleep(error.retry_after or WRITE_RETRY)
                self._dirty.set()

    async def _write(self) -> None:
        metadata, status = self._pod["metadata"], self._status()
        known = self._pod.get("status") or {}
        if all(known.get(name) == value for name, value in status.items()):
            return
        body: dict[str, Any] = {"metadata": {"uid": metadata["uid"]}, "status": status}
        written = await self.machine.client.merge_patch(
            PODS, metadata["name"], body, metadata["namespace"], subresource="status"
        )
        # The next status continues from this one (transition times), also when the watch is late.
        self._pod = {**self._pod, "status": written.get("status") or {}}

    async def _flush(self) -> None:
        """The last status before the pod is removed. A failure is not worth waiting for."""
        if not is_finished(self._pod):
            with contextlib.suppress(ApiError):
                await self._write()

    async def _remove(self) -> None:
        metadata = self._pod["metadata"]
        while not self._gone:
            try:
                await self.machine.client.delete(
                    PODS,
                    metadata["name"],
                    metadata["namespace"],
                    uid=metadata["uid"],
                    grace_period_seconds=0,
                )
            except ApiError as error:
                # A conflict may pass; if the name is another pod's by now, the watch says so.
                if not error.not_found:
                    await asyncio.sleep(error.retry_after or WRITE_RETRY)
                    continue
            return
