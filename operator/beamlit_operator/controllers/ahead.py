"""Gathers what deciding about prefetching needs, and remembers what no object says: which Models
failed lately, and which wait for others to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from beamlit_operator.api import Model
from beamlit_operator.controllers.caches import Claims, Errands, ended
from beamlit_operator.controllers.diagnosis import fetch_failed
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.prefetching import (
    AT_ONCE,
    NOTHING,
    RETRY_SECONDS,
    Prefetching,
    Surroundings,
    decide,
)
from beamlit_operator.controllers.starts import Starts
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.workloads.errands import PREFETCH
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.native import Settings


class Ahead:
    """Decides what is fetched ahead, Model by Model."""

    def __init__(
        self,
        claims: Claims,
        errands: Errands,
        starts: Starts,
        *,
        enqueue: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``enqueue`` gets the keys of Models that waited for others."""
        self._claims = claims
        self._errands = errands
        self._starts = starts
        self._enqueue = enqueue
        self._clock = clock
        self._failed: dict[Key, float] = {}
        self._waiting: dict[Key, None] = {}

    def look(
        self, key: Key, model: Held[Model], files: ModelFiles | None, settings: Settings
    ) -> Prefetching:
        """What is to be done for a Model."""
        wanted = model.parsed is not None and model.parsed.spec.prefetch
        mine = self._errands.of_model(model.key, model.metadata.uid)
        if not wanted and not mine:
            self.forget(key)
            return NOTHING
        told, tell_again = self._starts.look(key, mine)
        everybody = self._errands.of(key.workspace, PREFETCH)
        names = {pod["metadata"]["name"] for pod in mine}
        around = Surroundings(
            settings=settings,
            cache=self._claims.of(key.workspace),
            claim_uid=self._claims.uid(key.workspace),
            files=files,
            pods=mine,
            others=sum(
                pod["metadata"]["name"] not in names and ended(pod) is None for pod in everybody
            ),
            failed=self._clock() < self._failed.get(key, 0.0),
            progress=next(iter(told.values()), None),
            tell_again=tell_again,
        )
        found = decide(model, around)
        waited = key in self._waiting
        self._waiting.pop(key, None)
        if found.waits:
            self._waiting[key] = None
        elif waited and not found.create:
            self.ended(key.workspace)  # It was this one's turn, and it does not take it.
        if found.failed:
            self._failed[key] = self._clock() + RETRY_SECONDS
        return found

    def has_failed(self, model: Held[Model]) -> bool:
        """Whether a pod could not fetch: the origin may have changed since it was looked at."""
        return fetch_failed(self._errands.of_model(model.key, model.metadata.uid))

    def refused(self, key: Key) -> None:
        """The pod could not be made."""
        self._failed[key] = self._clock() + RETRY_SECONDS
        self.ended(key.workspace)

    def made(self, pod: Json) -> None:
        """The pod was made."""
        self._errands.wrote(pod)

    def deleted(self, place: ObjectKey) -> None:
        """A pod is not there any more."""
        self._errands.gone(place)

    def ended(self, workspace: str) -> None:
        """A pod of the workspace ended or went: others may begin, as many as there is room for.

        Of a thousand that wait, all but those would only find that they go on waiting.
        """
        running = sum(ended(pod) is None for pod in self._errands.of(workspace, PREFETCH))
        waiting = (key for key in self._waiting if key.workspace == workspace)
        for key in list(islice(waiting, max(0, AT_ONCE - running))):
            self._enqueue(key)

    def forget(self, key: Key) -> None:
        """The Model is gone, or is not to be fetched ahead."""
        self._failed.pop(key, None)
        waited = key in self._waiting
        self._waiting.pop(key, None)
        self._starts.forget(key)
        if waited:
            self.ended(key.workspace)
