"""One container of a pod: pulled, configured, run, probed, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar

from beamlit_operator.devcluster.images.store import Program, Pulled, PullError
from beamlit_operator.devcluster.images.table import InvalidImageError, UnknownImageError
from beamlit_operator.devcluster.kubelet import logs, probes
from beamlit_operator.devcluster.kubelet.launch import Launch
from beamlit_operator.devcluster.kubelet.logs import ContainerLog
from beamlit_operator.devcluster.kubelet.machine import Machine
from beamlit_operator.devcluster.kubelet.probing import Prober
from beamlit_operator.devcluster.kubelet.process import (
    STOP_SIGNAL,
    ContainerProcess,
    StartError,
)
from beamlit_operator.devcluster.kubelet.status import ContainerRecord
from beamlit_operator.devcluster.kubelet.variables import ConfigError
from beamlit_operator.devcluster.kubelet.volumes import VolumeError
from beamlit_operator.devcluster.timestamps import now_utc, written
from beamlit_operator.kube import ApiError, Json

T = TypeVar("T")

LEAST_GRACE = 2.0
"""Seconds for SIGTERM to work when preStop used up all the grace; as kubelet."""


class Home(Protocol):
    """What a container needs of its pod."""

    machine: Machine

    @property
    def pod(self) -> Json: ...
    @property
    def ip(self) -> str: ...
    def changed(self) -> None:
        """Tells the pod that the record changed."""

    async def prepared(self, spec: Json, program: Program) -> Launch:
        """Everything needed to start the container; raises ConfigError or VolumeError."""

    def log_path(self, name: str, attempt: int) -> Any: ...


class Container:
    """Runs one container as often as its restart policy wants."""

    def __init__(self, spec: Json, record: ContainerRecord, home: Home) -> None:
        self.spec = spec
        self.record = record
        self._home = home
        self._machine = home.machine
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._kill_by: float | None = None
        self._process: ContainerProcess | None = None
        self._launch: Launch | None = None
        self.log: ContainerLog | None = None

    @property
    def pid(self) -> int | None:
        """The program's process, while it runs."""
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Until it needs no further start, or is stopped."""
        loop = asyncio.get_running_loop()
        delay: float | None = None
        while not self._stop.is_set():
            program = await self._pull()
            launch = await self._configure(program) if program is not None else None
            if program is None or launch is None:
                return
            began = loop.time()
            await self._attempt(program, launch)
            if self._stop.is_set() or not self._wants_restart():
                return
            delay = self._machine.settings.restarts.next_delay(delay, ran_for=loop.time() - began)
            self.record.last_state = self.record.state
            if delay:
                await self._back_off(delay)
            self.record.restart_count += 1

    async def stop(self, grace: float) -> None:
        """Ends it for good within ``grace`` seconds; may be called again to hurry."""
        kill_by = asyncio.get_running_loop().time() + grace
        self._kill_by = kill_by if self._kill_by is None else min(self._kill_by, kill_by)
        self._hurry.set()
        if self._stop.is_set():
            return
        self._stop.set()
        if self._process is not None:
            self._tell("Killing", f"Stopping container {self.record.name}")
            await self._end(self._process)

    def _wants_restart(self) -> bool:
        policy = self._home.pod["spec"].get("restartPolicy", "Always")
        failed = self.record.exit_code != 0
        match self.record.role:
            case "sidecar":
                return True
            case "init":
                return failed and policy != "Never"
            case _:
                return policy == "Always" or (policy == "OnFailure" and failed)

    async def _back_off(self, delay: float) -> None:
        metadata = self._home.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        name = self.record.name
        message = f"back-off {_duration(delay)} restarting failed container={name} pod={where}"
        self._waiting("CrashLoopBackOff", message)
        self._tell(
            "BackOff",
            f"Back-off restarting failed container {self.record.name} in pod {where}",
            type="Warning",
        )
        await self._unless_stopped(asyncio.sleep(delay))

    # Getting ready to start

    async def _pull(self) -> Program | None:
        image = self.record.image
        delay: float | None = None
        while not self._stop.is_set():
            try:
                pulled = await self._unless_stopped(self._try_pull(image))
            except InvalidImageError as error:
                self._failed_pull("InvalidImageName", str(error))
            except (UnknownImageError, PullError) as error:
                self._failed_pull("ErrImagePull", str(error))
                delay = self._machine.settings.pulls.next_delay(
                    0.0 if delay is None else delay, ran_for=0
                )
                await self._unless_stopped(asyncio.sleep(min(1.0, delay)))
                self._tell("BackOff", f'Back-off pulling image "{image}"')
                self._tell("Failed", "Error: ImagePullBackOff", type="Warning")
                self._waiting("ImagePullBackOff", f'Back-off pulling image "{image}": {error}')
            else:
                return None if pulled is None else pulled.program
            await self._unless_stopped(asyncio.sleep(delay or self._machine.settings.pulls.first))
        return None

    async def _try_pull(self, image: str) -> Pulled:
        entry = self._machine.table.find(image)
        present = await self._machine.store.present(entry)
        if present is not None:
            if self.record.restart_count == 0:
                self._tell("Pulled", f'Container image "{image}" already present on machine')
            return Pulled(present, 0.0)
        if self.spec.get("imagePullPolicy") == "Never":
            raise PullError(f'Container image "{image}" is not present with pull policy of Never')
        self._tell("Pulling", f'Pulling image "{image}"')
        pulled = await self._machine.store.pull(entry)
        self._tell("Pulled", f'Successfully pulled image "{image}" in {pulled.seconds:.3g}s')
        return pulled

    def _failed_pull(self, reason: str, message: str) -> None:
        self._tell(
            "Failed", f'Failed to pull image "{self.record.image}": {message}', type="Warning"
        )
        self._tell("Failed", f"Error: {reason}", type="Warning")
        self._waiting(reason, message)

    async def _configure(self, program: Program) -> Launch | None:
        told = ""
        while not self._stop.is_set():
            try:
                return await self._unless_stopped(self._home.prepared(self.spec, program))
            except ConfigError as error:
                self._waiting("CreateContainerConfigError", str(error))
                if told != str(error):
                    self._tell("Failed", f"Error: {error}", type="Warning")
                    told = str(error)
            except (VolumeError, ApiError) as error:
                self._waiting("ContainerCreating", str(error))
            await self._unless_stopped(asyncio.sleep(self._machine.settings.missing_retry))
        return None

    # Running

    async def _attempt(self, program: Program, launch: Launch) -> None:
        record = self.record
        record.image_id = program.identity
        record.container_id = f"process://{uuid.uuid4().hex}"
        path = self._home.log_path(record.name, record.restart_count)
        log = self.log = ContainerLog(path)
        began = written(now_utc())
        self._tell("Created", f"Created container: {record.name}")
        try:
            process = await ContainerProcess.start(
                launch.command,
                launch.environment,
                launch.folder,
                log=log,
                guard=self._machine.guard,
            )
        except StartError as error:
            log.close()
            self._tell("Failed", f"Error: {error}", type="Warning")
            self._terminated(128, "StartError", began, str(error))
            return
        self._process, self._launch = process, launch
        if not self._stop.is_set():
            self._kill_by = None
        record.state = {"running": {"startedAt": began}}
        record.started = False
        self._home.changed()
        self._tell("Started", f"Started container {record.name}")
        care = asyncio.create_task(self._care_for(process, launch))
        try:
            if self._stop.is_set():
                await self._end(process)
            code = await process.wait()
        finally:
            self._process = None
            care.cancel()
            await asyncio.gather(care, return_exceptions=True)
        reason = "Completed" if code == 0 else "Error"
        self._terminated(code, reason, began, self._last_words(launch, code, log))

    async def _care_for(self, process: ContainerProcess, launch: Launch) -> None:
        """postStart, then probes; ends the process when one of them says so."""
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            try:
                await self._run_hook(hook, launch, timeout=3600.0)
            except probes.ProbeError as error:
                self._tell("FailedPostStartHook", f"PostStartHook failed: {error}", type="Warning")
                await self._kill_for("FailedPostStartHook", process, None)
                return
        prober = Prober(self.spec, launch.target, self._machine.session)
        async for verdict in prober.verdicts():
            if verdict.event is not None:
                self._tell("Unhealthy", verdict.event, type="Warning")
            if self._stop.is_set():
                continue
            if verdict.fatal is not None:
                await self._kill_for(f"failed {verdict.fatal} probe", process, verdict.grace)
                return
            if (verdict.started, verdict.ready) != (self.record.started, self.record.ready):
                self.record.started, self.record.ready = verdict.started, verdict.ready
                self._home.changed()

    async def _kill_for(self, why: str, process: ContainerProcess, grace: int | None) -> None:
        self._tell("Killing", f"Container {self.record.name} {why}, will be restarted")
        if self._kill_by is None:
            seconds = self._pod_grace() if grace is None else grace
            self._kill_by = asyncio.get_running_loop().time() + seconds
        # A task of its own: the end of the process cancels the one that asked for it.
        ending = asyncio.create_task(self._end(process))
        await asyncio.shield(ending)

    def _pod_grace(self) -> float:
        grace = self._home.pod["spec"].get("terminationGracePeriodSeconds")
        return 30.0 if grace is None else float(grace)

    async def _end(self, process: ContainerProcess) -> None:
        """preStop, SIGTERM, and SIGKILL when the time is up."""
        loop = asyncio.get_running_loop()
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and self._launch is not None and self._seconds_left() > 0:
            try:
                await self._run_hook(hook, self._launch, timeout=self._seconds_left())
            except probes.ProbeError as error:
                self._tell("FailedPreStopHook", f"PreStopHook failed: {error}", type="Warning")
            if self._kill_by is not None and self._seconds_left() > -LEAST_GRACE:
                self._kill_by = max(self._kill_by, loop.time() + LEAST_GRACE)
        if self._seconds_left() > 0:
            process.signal(STOP_SIGNAL)
        ended = asyncio.create_task(process.wait())
        while not ended.done() and self._seconds_left() > 0:
            self._hurry.clear()
            hurried = asyncio.create_task(self._hurry.wait())
            await asyncio.wait(
                {ended, hurried},
                timeout=self._seconds_left(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurried.cancel()
        if not ended.done():
            process.kill()
        await ended

    def _seconds_left(self) -> float:
        return (self._kill_by or 0.0) - asyncio.get_running_loop().time()

    async def _run_hook(self, hook: Json, launch: Launch, *, timeout: float) -> None:
        if hook.get("sleep"):
            await asyncio.sleep(min(float(hook["sleep"].get("seconds", 0)), timeout))
            return
        await probes.attempt(hook, launch.target, self._machine.session, timeout=timeout)

    # Telling

    def _last_words(self, launch: Launch, code: int, log: ContainerLog) -> str:
        with contextlib.suppress(OSError):
            text = launch.termination_log.read_text(errors="replace")[-4096:]
            if text:
                return text
        if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return logs.last_words(log.path)
        return ""

    def _terminated(self, code: int, reason: str, began: str, message: str) -> None:
        ended: Json = {
            "exitCode": code,
            "reason": reason,
            "startedAt": began,
            "finishedAt": written(now_utc()),
            "containerID": self.record.container_id,
        }
        if message:
            ended["message"] = message
        self.record.state = {"terminated": ended}
        self.record.ready = self.record.role == "init" and code == 0
        self.record.started = False
        self._home.changed()

    def _waiting(self, reason: str, message: str) -> None:
        self.record.state = {"waiting": {"reason": reason, "message": message}}
        self.record.ready = self.record.started = False
        self._home.changed()

    def _tell(
        self, reason: str, message: str, *, type: Literal["Normal", "Warning"] = "Normal"
    ) -> None:
        kind = "containers" if self.record.role == "main" else "initContainers"
        self._machine.events.record(
            self._home.pod,
            reason,
            message,
            type=type,
            field_path=f"spec.{kind}{{{self.record.name}}}",
            host=self._home.pod["spec"].get("nodeName", ""),
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``; None, and ``work`` cancelled, when the stop comes first."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _duration(seconds: float) -> str:
    """As Go writes durations: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{seconds:g}s"
