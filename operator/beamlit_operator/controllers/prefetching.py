"""Model.spec.prefetch: are the files in the cache before anybody asks, and what is to be done?

``decide`` is pure. The first row that applies:

| the cache        | the origin       | the Model's pod      | status.prefetch            | pods  |
|------------------|------------------|----------------------|----------------------------|-------|
| (spec.prefetch is false)            |                      | none                       | go    |
| none is set up   |                  |                      | Pending, says so           | go    |
| no usable claim  |                  |                      | Pending, says so           | go    |
| is there         | is not resolved  |                      | as before, or Pending      | stay  |
| is there         | is not fetched   |                      | Done, says so              | stay  |
| holds it already |                  |                      | Done                       | go    |
| is there         | resolved         | fetches another one  | as for none                | goes  |
| is there         | resolved         | has fetched          | Done                       | goes  |
| is there         | resolved         | has failed           | Failed                     | goes  |
| is there         | resolved         | keeps failing        | Failed                     | goes  |
| is there         | resolved         | is under way         | Pending or Fetching        | stays |
| is there         | resolved         | none, failed lately  | Failed, as before          |       |
| is there         | resolved         | none, others fetch   | Pending                    |       |
| is there         | resolved         | none                 | Pending                    | made  |

A pod that keeps failing goes after :data:`FAILURES`, so that others get its place.

A cache *holds it already* when the status says Done of the same folder of the same claim: what was
prefetched is among what tidying keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamlit_operator.api import Model, Reason
from beamlit_operator.api.model import PrefetchStatus
from beamlit_operator.api.summary import size
from beamlit_operator.controllers.caches import DONE, FAILED, ended
from beamlit_operator.controllers.diagnosis import why_not_started
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.plan import Announcement, Deletion
from beamlit_operator.controllers.progress import Progress
from beamlit_operator.kube import PODS, Json
from beamlit_operator.workloads.cache import Cache, place_of
from beamlit_operator.workloads.errands import folder_of, prefetching_pod
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.native import Settings

AT_ONCE = 2
"""Models of a workspace that are fetched ahead at the same time: those that callers wait for share
the network with them."""

FAILURES = 5
"""How often a pod may fail before its place is for others."""

RETRY_SECONDS = 600.0
"""After which one that failed is tried again."""

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a decision about fetching a Model ahead looks at.

    Attributes:
        settings: what pods are made with.
        cache: the workspace's; None where the operator was told of none.
        claim_uid: of the claim, if it can be used.
        files: what is to be fetched; None while that is not known.
        pods: those of this Model.
        others: how many pods of other Models of the workspace fetch.
        failed: whether it failed so lately that it is not tried again yet.
        progress: how far its pod is, as far as is worth telling.
        tell_again: seconds after which there may be more to tell.
    """

    settings: Settings
    cache: Cache | None = None
    claim_uid: str = ""
    files: ModelFiles | None = None
    pods: Sequence[Json] = ()
    others: int = 0
    failed: bool = False
    progress: Progress | None = None
    tell_again: float | None = None


@dataclass(frozen=True, slots=True)
class Prefetching:
    """What comes of it.

    Attributes:
        status: `status.prefetch`; None: there is none.
        create: the pod to make.
        delete: pods that are not needed any more.
        events: what is to be told.
        failed: whether it is not to be tried again for a while.
        waits: whether it waits for others to end.
        requeue_after: seconds after which to look again.
    """

    status: Json | None = None
    create: Json | None = None
    delete: tuple[Deletion, ...] = ()
    events: tuple[Announcement, ...] = ()
    failed: bool = False
    waits: bool = False
    requeue_after: float | None = None


NOTHING = Prefetching()


def decide(model: Held[Model], around: Surroundings) -> Prefetching:
    """What to do about a Model's files."""
    if model.parsed is None or model.deleting:
        return NOTHING
    old = model.parsed.status.prefetch
    if not model.parsed.spec.prefetch:
        return Prefetching(delete=_gone(around.pods, "spec.prefetch is false"))
    cache, files = around.cache, around.files
    if cache is None or not cache.usable:
        return Prefetching(
            status={"phase": "Pending", "message": _no_cache(model, cache)},
            delete=_gone(around.pods, "there is no cache to fetch into"),
        )
    if files is None:
        pending = {"phase": "Pending", "message": "waits until the origin is resolved"}
        return Prefetching(status=old.to_wire() if old is not None else pending)
    folder = folder_of(files, image=around.settings.image)
    if folder is None:
        message = "nothing to fetch: the files are used where they are"
        return Prefetching(status={"revision": files.revision, "phase": "Done", "message": message})
    case = _Case(model, around, files, folder, cache, old)
    return case.decide()


@dataclass(frozen=True, slots=True)
class _Case:
    """A Model whose files belong into a folder of a cache."""

    model: Held[Model]
    around: Surroundings
    files: ModelFiles
    folder: str
    cache: Cache
    old: PrefetchStatus | None

    def decide(self) -> Prefetching:
        old, around = self.old, self.around
        same = old is not None and (old.folder, old.claim_uid) == (self.folder, around.claim_uid)
        if same and old is not None and old.phase == "Done":
            return Prefetching(
                status=old.to_wire(), delete=_gone(around.pods, "the files are in the cache")
            )
        mine = [pod for pod in around.pods if self._is_mine(pod)]
        others = [pod for pod in around.pods if not self._is_mine(pod)]
        gone = _gone(others, "it fetches what is not wanted any more")
        if mine:
            return self._under_way(mine[0], gone, was=old.phase if same and old else None)
        if around.failed and same and old is not None and old.phase == "Failed":
            return Prefetching(status=old.to_wire(), delete=gone)
        if around.others >= AT_ONCE:
            message = f"waits: {around.others} other Models of the workspace are fetched now"
            return Prefetching(status=self._status("Pending", message), delete=gone, waits=True)
        pod = prefetching_pod(
            self.model.raw,
            self.files,
            claim=self.cache.claim,
            image=around.settings.image,
            outgoing=around.settings.outgoing,
        )
        status = self._status("Pending", "a pod is made that fetches the files")
        return Prefetching(status=status, create=pod, delete=gone)

    def _is_mine(self, pod: Json) -> bool:
        place = place_of(pod["spec"])
        return (
            place is not None
            and (place.claim, place.identity) == (self.cache.claim, self.folder)
            and not pod["metadata"].get("deletionTimestamp")
        )

    def _under_way(self, pod: Json, gone: tuple[Deletion, ...], *, was: str | None) -> Prefetching:
        end, problem = ended(pod), why_not_started([pod])
        if end == DONE:
            message = f"the files are in the cache, {size(self.files.bytes)}"
            status = self._status("Done", message, fetched=self.files.bytes)
            told = Announcement("Normal", Reason.PREFETCHED, f"revision {self.files.revision[:19]}")
            because = "the files are in the cache"
            return Prefetching(
                status=status, delete=(*gone, *_gone([pod], because)), events=(told,)
            )
        if end == FAILED or (problem is not None and _scheduled(pod)):
            message = (problem or "the pod failed")[:MAX_MESSAGE]
            over = end == FAILED or _restarts(pod) >= FAILURES
            return Prefetching(
                status=self._status("Failed", message),
                delete=(*gone, *(_gone([pod], "it failed") if over else ())),
                events=(Announcement("Warning", Reason.PREFETCH_FAILED, message),)
                if was != "Failed"
                else (),
                failed=over,
                requeue_after=RETRY_SECONDS if over else self.around.tell_again,
            )
        seen = self.around.progress
        if problem is not None:
            status = self._status("Pending", problem[:MAX_MESSAGE])
        elif seen is None:
            status = self._status("Pending", "a pod is made that fetches the files")
        else:
            phase = "Fetching" if seen.phase == "Fetching" else "Pending"
            fetched = seen.fetched.bytes if seen.fetched is not None else None
            status = self._status(phase, seen.message, fetched=fetched)
        return Prefetching(status=status, delete=gone, requeue_after=self.around.tell_again)

    def _status(self, phase: str, message: str, *, fetched: int | None = None) -> Json:
        status: Json = {
            "revision": self.files.revision,
            "phase": phase,
            "message": message,
            "totalBytes": self.files.bytes,
            "folder": self.folder,
            "claimUid": self.around.claim_uid,
        }
        return status if fetched is None else {**status, "fetchedBytes": fetched}


def _no_cache(model: Held[Model], cache: Cache | None) -> str:
    if cache is None:
        return (
            "no cache is set up: name a claim to the operator (--cache-claim, the chart's value"
            " origins.cache.claimName)"
        )
    return (
        f"workspace {model.key.namespace} has no claim {cache.claim} that can be used: create that"
        " PersistentVolumeClaim"
    )


def _gone(pods: Sequence[Json], because: str) -> tuple[Deletion, ...]:
    return tuple(
        Deletion(PODS, pod["metadata"]["name"], pod["metadata"].get("uid", ""), because)
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
    )


def _scheduled(pod: Json) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))


def _restarts(pod: Json) -> int:
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return max((int(each.get("restartCount") or 0) for each in statuses), default=0)
