"""How far a start is: which phase its pods are in, and the sentence for people. Pure.

The first row that applies to a pod; of several pods the one that is furthest counts:

| the pod                                                   | phase      |
|-----------------------------------------------------------|------------|
| is being deleted, is ready, or ended                      | none       |
| has no node                                               | Scheduling |
| runs the container that fetches the files                 | Fetching   |
| runs another init container                               | Pulling    |
| has an init container that did not end well yet           | Pulling    |
| has a model server that runs                              | Loading    |
| has a model server that ran before and will again         | Loading    |
| else: its model server was not started yet                | Pulling    |

Kubernetes does not tell pulling an image from mounting volumes: both are Pulling. A pod goes from
Fetching to Pulling when its server's image is not on the node yet.

What is told of a revision lags behind on purpose (:func:`told_next`), so that a start that takes a
second costs no write, and one of an hour some dozens:

| what is seen differs from what is told | it is told                                       |
|----------------------------------------|--------------------------------------------------|
| in phase                               | once it has lasted :data:`SETTLE`                |
| in bytes, by :data:`STEP` or more      | at once                                          |
| in bytes, by less                      | :data:`REPEAT` after what was told last          |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from beamlit_operator.api.modeldeployment import StartPhase
from beamlit_operator.controllers.diagnosis import ready
from beamlit_operator.kube import Json
from beamlit_operator.workloads.pods import FETCHING, SERVING

SETTLE = 2.0
"""Seconds a phase has to last before anybody is told."""

STEP = 5
"""Percent of the bytes that are worth a write."""

REPEAT = 30.0
"""Seconds after which slower progress is told too."""

ORDER: tuple[StartPhase, ...] = ("Scheduling", "Pulling", "Fetching", "Loading")

GENERIC = "replicas start; none is ready yet"

_GIB, _MIB = 2**30, 2**20


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes of a model's files that are in a pod, and how many there will be."""

    bytes: int
    total: int
    elsewhere: bool = False
    """Whether another pod brings them, into the cache that both use."""

    @property
    def part(self) -> float:
        """Between 0 and 1."""
        return self.bytes / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start is, for the status."""

    phase: StartPhase
    message: str
    fetched: Fetched | None = None


@dataclass(frozen=True, slots=True)
class Telling:
    """What was seen of a revision's start, and what was told of it. Times: monotonic seconds."""

    seen: Progress
    phase_since: float
    told: Progress | None = None
    told_at: float = 0.0


def progress_of(pods: Iterable[Json], fetched: Mapping[str, Fetched]) -> Progress | None:
    """How far the pods of one revision are; None when there is nothing to wait for.

    ``fetched`` says by pod's uid what its fetcher answered.
    """
    found = []
    for pod in pods:
        if ready(pod):
            return None
        progress = _of_pod(pod, fetched.get(pod["metadata"].get("uid", "")))
        if progress is not None:
            found.append(progress)
    return max(found, key=_rank, default=None)


def _rank(progress: Progress) -> tuple[int, bool, float]:
    fetched = progress.fetched
    # Who fetches says more than who waits for it.
    own = fetched is not None and not fetched.elsewhere
    return ORDER.index(progress.phase), own, fetched.part if fetched is not None else 0.0


def told_next(telling: Telling | None, seen: Progress, now: float) -> tuple[Telling, float | None]:
    """The next state of what is told, and after how many seconds to ask again, if at all."""
    if telling is None:
        return Telling(seen, now), SETTLE
    since = telling.phase_since if telling.seen.phase == seen.phase else now
    telling = replace(telling, seen=seen, phase_since=since)
    if telling.told == seen:
        return telling, None
    if telling.told is None or telling.told.phase != seen.phase:
        left = since + SETTLE - now
    elif seen.fetched is None or is_due(telling, telling.told, seen.fetched, now):
        left = 0.0
    else:
        left = telling.told_at + REPEAT - now
    if left > 0:
        return telling, left
    return replace(telling, told=seen, told_at=now), None


def is_due(telling: Telling, told: Progress, seen: Fetched, now: float) -> bool:
    """Whether bytes that were seen are to be told now, after ``told`` was."""
    if told.fetched is None or told.fetched.total != seen.total:
        return True
    moved = abs(seen.bytes - told.fetched.bytes)
    return 100 * moved >= STEP * seen.total or (moved > 0 and now - telling.told_at >= REPEAT)


def fetching_run(pod: Json) -> str | None:
    """Which run of the container that fetches is under way in the pod; None if none is."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or not status.get("podIP"):
        return None
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") == FETCHING and (container.get("state") or {}).get("running"):
            return str(container.get("containerID") or container.get("restartCount"))
    return None


def _of_pod(pod: Json, fetched: Fetched | None) -> Progress | None:
    status: Json = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    if not (pod.get("spec") or {}).get("nodeName"):
        return Progress("Scheduling", "waiting for a node that can take the pod")
    for container in status.get("initContainerStatuses") or ():
        if (container.get("state") or {}).get("running") and not _is_sidecar(pod, container):
            if container.get("name") == FETCHING:
                return _fetching(fetched)
            name = container.get("name")
            return Progress("Pulling", f"init container {name} runs; the model starts after it")
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode") != 0 and not _is_sidecar(pod, container):
            return _pulling(pod, "initContainers", str(container.get("name")))
    for container in status.get("containerStatuses") or ():
        if container.get("name") == SERVING:
            ran = container.get("lastState") or (container.get("state") or {}).get("terminated")
            if (container.get("state") or {}).get("running") or ran:
                return Progress("Loading", "the model server runs and loads; it is not ready yet")
    return _pulling(pod, "containers", SERVING)


def _is_sidecar(pod: Json, container: Json) -> bool:
    for each in (pod.get("spec") or {}).get("initContainers") or ():
        if each.get("name") == container.get("name"):
            return bool(each.get("restartPolicy") == "Always")
    return False


def _pulling(pod: Json, group: str, name: str) -> Progress:
    specs = (pod.get("spec") or {}).get(group) or ()
    image = next((str(each.get("image")) for each in specs if each.get("name") == name), "")
    return Progress("Pulling", f"preparing container {name}: image {image} is pulled if needed")


def _fetching(fetched: Fetched | None) -> Progress:
    if fetched is None or not fetched.total:
        return Progress("Fetching", "fetching the model's files")
    unit, size = ("GiB", _GIB) if fetched.total >= _GIB else ("MiB", _MIB)
    # Rounded down: 100 % is only said when all is there.
    percent = 100 * fetched.bytes // fetched.total
    amounts = f"{fetched.bytes / size:.1f} of {fetched.total / size:.1f} {unit}"
    doing = "waiting for another pod, which fetches" if fetched.elsewhere else "fetching"
    return Progress("Fetching", f"{doing} {amounts} ({percent} %)", fetched)
