"""When a cache is tidied, and what is kept: a pod in the workspace does it.

| what happened                                   | the workspace's cache is tidied             |
|-------------------------------------------------|---------------------------------------------|
| the operator began to lead, a claim appeared    | now                                         |
| a revision, or a Model that was prefetched, went| :data:`SETTLE` later                        |
| a revision came: its files may be too many      | after the pause                             |

A claim that goes takes its pod along. At most once in a pause of ten minutes, at most
:data:`AT_ONCE` at the same time, and never while the last pod is there. What is kept is asked of
the API server at that moment, and the pod is told when that was: however long it waits for a
node, it touches nothing that came later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from beamlit_operator.api import Reason, labels
from beamlit_operator.controllers.caches import DONE, Claims, Errands, ended
from beamlit_operator.controllers.children import OURS
from beamlit_operator.controllers.diagnosis import why_not_started
from beamlit_operator.controllers.ending import is_ending
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.plan import Announcement
from beamlit_operator.kube import (
    DEPLOYMENTS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    Json,
    KubeClient,
    ObjectKey,
    Resource,
)
from beamlit_operator.workloads.cache import place_of
from beamlit_operator.workloads.errands import TIDY, tidying_pod

log = logging.getLogger(__name__)

SETTLE = 5.0
"""Seconds in which what goes together is gone."""

AT_ONCE = 4
STUCK_SECONDS = 7200.0
"""After which a pod that has not ended is removed: most likely no node takes it."""


def folder_kept(model: Json | None) -> str:
    """The folder that a Model keeps in the cache because it was prefetched; empty: none."""
    if model is None or not (model.get("spec") or {}).get("prefetch"):
        return ""
    return str(((model.get("status") or {}).get("prefetch") or {}).get("folder") or "")


class Tidying:
    """Makes the pods that tidy, and removes them when they have ended."""

    def __init__(
        self,
        client: KubeClient,
        *,
        claims: Claims,
        errands: Errands,
        announcer: Announcer,
        image: str,
        limit: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        pause: float,
        settle: float = SETTLE,
    ) -> None:
        """``limit`` is a quantity; empty: nothing is tidied. ``pause`` is in seconds."""
        self._client = client
        self._claims = claims
        self._errands = errands
        self._announcer = announcer
        self._image = image
        self._limit = limit
        self._clock = clock
        self._monotonic = monotonic
        self._pause = pause
        self._settle = settle
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._changed = asyncio.Event()

    def claim_changed(self, workspace: str) -> None:
        """A claim came or went."""
        self._plan(workspace, 0.0)
        self._changed.set()

    def came(self, workspace: str) -> None:
        """A revision came."""
        self._plan(workspace, self._pause)

    def went(self, workspace: str) -> None:
        """A revision, or a Model that was prefetched, went."""
        self._plan(workspace, self._settle)

    def pod_changed(self) -> None:
        """A pod that tidies came, changed or went."""
        self._changed.set()

    async def run(self) -> None:
        """Tidies until cancelled; to be run by the leader."""
        for workspace in self._claims.workspaces:
            self._plan(workspace, 0.0)
        while True:
            self._changed.clear()
            wait = await self._turn()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _plan(self, workspace: str, after: float) -> None:
        if not self._limit or not self._claims.uid(workspace):
            return
        at = self._monotonic() + after
        # A storm of revisions wakes nobody but once.
        if at < self._due.get(workspace, float("inf")):
            self._due[workspace] = at
            self._changed.set()

    async def _turn(self) -> float | None:
        """Does what is due; returns the seconds until something is, None if nothing will be."""
        busy = await self._clear()
        waits = [STUCK_SECONDS] if busy else []
        for workspace, at in sorted(self._due.items(), key=lambda item: item[1]):
            cache = self._claims.of(workspace)
            if cache is None or not cache.usable:
                del self._due[workspace]
                self._last.pop(workspace, None)
                continue
            now = self._monotonic()
            due = max(at, self._last.get(workspace, now - self._pause) + self._pause)
            if due > now:
                waits.append(due - now)
                continue
            if workspace in busy or len(self._errands.all(TIDY)) >= AT_ONCE:
                continue  # The end of a pod brings us back.
            del self._due[workspace]
            if await self._make(workspace, cache.claim):
                self._last[workspace] = now
            else:
                self._due[workspace] = now + self._settle
                waits.append(self._settle)
        return min(waits, default=None)

    async def _clear(self) -> set[str]:
        """Removes pods that have ended; returns the workspaces in which one is under way."""
        busy = set()
        for pod in self._errands.all(TIDY):
            workspace, end = pod["metadata"]["namespace"], ended(pod)
            cache = self._claims.of(workspace)
            # A claim that is being deleted waits for its pods.
            idle = end is None and cache is not None and not cache.usable
            if end is None and not idle and self._age(pod) < STUCK_SECONDS:
                busy.add(workspace)
            elif not pod["metadata"].get("deletionTimestamp"):
                await self._end(workspace, pod, failed=end != DONE and not idle)
        return busy

    def _age(self, pod: Json) -> float:
        made = str(pod["metadata"].get("creationTimestamp") or "")
        try:
            return (self._clock() - datetime.fromisoformat(made)).total_seconds()
        except ValueError:
            return 0.0

    async def _end(self, workspace: str, pod: Json, *, failed: bool) -> None:
        metadata = pod["metadata"]
        if failed:
            why = why_not_started([pod]) or "its pod did not end in time"
            log.warning("the cache of %s could not be tidied: %s", workspace, why)
            await self._tell(workspace, f"the cache could not be tidied: {why}")
        try:
            await self._client.delete(
                PODS, metadata["name"], workspace, uid=metadata.get("uid"), propagation="Background"
            )
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("pod %s of %s stays for now: %s", metadata["name"], workspace, error)
            elif error.not_found:
                self._errands.gone(ObjectKey(workspace, metadata["name"]))

    async def _make(self, workspace: str, claim: str) -> bool:
        """Makes a pod; False when it is to be tried again soon."""
        then = self._clock()
        try:
            keep = await self._kept(workspace, claim)
            pod = tidying_pod(
                workspace,
                claim=claim,
                image=self._image,
                limit=self._limit,
                keep=keep,
                then=int(then.timestamp()),
            )
            self._errands.wrote(await self._client.create(PODS, pod, workspace))
        except ApiError as error:
            if is_ending(error):
                return True
            log.warning("the cache of %s is tidied later: %s", workspace, error)
            if error.status in (400, 403, 422):
                await self._tell(workspace, f"no pod may tidy the cache: {error.message}")
                return True
            return False
        log.info("the cache of %s is tidied: %d folders are in use", workspace, len(keep))
        return True

    async def _kept(self, workspace: str, claim: str) -> set[str]:
        """The folders that anything in the workspace uses, as of now.

        Raises:
            ApiError: it cannot be said.
        """
        keep: set[str] = set()

        def of_pod(spec: Any) -> None:
            place = place_of(spec or {})
            if place is not None and place.claim == claim:
                keep.add(place.identity)

        def deployment(item: Json) -> None:
            of_pod(item["spec"]["template"].get("spec"))

        def pod(item: Json) -> None:
            of_pod(item.get("spec"))

        def model(item: Json) -> None:
            if folder := folder_kept(item):
                keep.add(folder)

        await self._each(DEPLOYMENTS, workspace, deployment, selector=OURS)
        await self._each(PODS, workspace, pod, selector=OURS)
        await self._each(PODS, workspace, pod, selector=labels.ERRAND)
        await self._each(MODELS, workspace, model)
        return keep

    async def _each(
        self,
        resource: Resource,
        workspace: str,
        take: Callable[[Json], None],
        *,
        selector: str | None = None,
    ) -> None:
        def each(item: Json) -> Json:
            take(item)
            return {}

        await self._client.list(resource, workspace, label_selector=selector, each=each)

    async def _tell(self, workspace: str, message: str) -> None:
        """An Event on the claim, where whoever looks after the storage finds it."""
        cache = self._claims.of(workspace)
        if cache is None:
            return
        about = {
            "apiVersion": "v1",
            "kind": PERSISTENT_VOLUME_CLAIMS.kind,
            "metadata": {"uid": self._claims.uid(workspace)},
        }
        event = Announcement("Warning", Reason.TIDYING_FAILED, message)
        await self._announcer.announce(ObjectKey(workspace, cache.claim), about, event)
