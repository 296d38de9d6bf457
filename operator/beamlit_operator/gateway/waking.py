"""Wakes a revision: scales its workload up from zero, and sees to it that it stays up.

Only ever from zero: a workload that has replicas belongs to the autoscaler. The current number is
read and the patch carries the version it was read at, so that neither this nor another gateway
takes replicas away from anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from beamlit_operator.api import labels
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.kube import DEPLOYMENTS, ApiError, KubeClient

log = logging.getLogger(__name__)

RECHECK = 5.0
"""Seconds after which a revision that is waited for is looked at again: somebody may have scaled
it back to zero."""

FINAL = frozenset({400, 401, 403, 405, 422})
"""Answers of the API server that stay the same until a person changes something."""

ANSWER_WITHIN = 10.0
"""Seconds the API server has to answer: one that went without a word is asked again on a fresh
connection, long before the client's own limit."""

FIRST_RETRY = 0.1
LAST_RETRY = 5.0
"""Seconds between attempts while the API server refuses or is away."""


class Waker:
    """Scales revisions up through the ``scale`` subresource of their workload."""

    def __init__(
        self,
        client: KubeClient,
        *,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._answer_within = answer_within
        self._trouble: dict[RevisionKey, str] = {}
        self._scaled: dict[RevisionKey, float] = {}

    def trouble(self, revision: RevisionKey) -> str:
        """Why the revision cannot be woken, if the API server said so; else empty."""
        return self._trouble.get(revision, "")

    def scaled_at(self, revision: RevisionKey) -> float | None:
        """When the scale call of the start that is under way was sent, by the clock, if it was."""
        return self._scaled.get(revision)

    async def keep_awake(
        self,
        revision: RevisionKey,
        replicas: int,
        *,
        asked_at: float,
        checked: Callable[[RevisionKey], None],
    ) -> None:
        """Wakes the revision and keeps it up until cancelled; waits out an API server that is away.

        ``asked_at`` is when the first request came, by the clock; ``checked`` is called at every
        :data:`RECHECK`.

        Raises:
            ApiError: the API server refused in a way that trying again does not mend.
        """
        delay = FIRST_RETRY
        try:
            while True:
                try:
                    sent = await self._wake_in_time(revision, replicas)
                except ApiError as error:
                    if error.status in FINAL:
                        raise
                    self._trouble[revision] = f"cannot scale it up: {error}"
                    if not error.conflict:
                        text = "cannot wake %s: %s"
                        log.warning(text, revision.cluster, error, extra=revision.fields)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, LAST_RETRY)
                    continue
                if sent is not None and revision not in self._scaled:
                    self._scaled[revision] = sent
                    self._metrics.cold_start_phase(revision, "wake", seconds=sent - asked_at)
                self._trouble.pop(revision, None)
                delay = FIRST_RETRY
                await asyncio.sleep(RECHECK)
                checked(revision)
        finally:
            self._trouble.pop(revision, None)
            self._scaled.pop(revision, None)

    async def _wake_in_time(self, revision: RevisionKey, replicas: int) -> float | None:
        try:
            async with asyncio.timeout(self._answer_within):
                return await self.wake(revision, replicas)
        except TimeoutError:
            text = f"the API server did not answer within {self._answer_within:g} s"
            raise ApiError(0, "Unreachable", text) from None

    async def wake(self, revision: RevisionKey, replicas: int) -> float | None:
        """Scales the revision up if it is at zero, once; answers when the scale call was sent, by
        the clock, or None if none was needed.

        Raises:
            ApiError: the API server refused, or is away.
        """
        name, namespace = revision.revision, revision.workspace
        scale = await self._client.get(DEPLOYMENTS, name, namespace, subresource="scale")
        if int((scale.get("spec") or {}).get("replicas") or 0) > 0:
            return None
        version = scale["metadata"].get("resourceVersion")
        sent = self._clock()
        await self._client.merge_patch(
            DEPLOYMENTS,
            name,
            {
                "metadata": {"resourceVersion": version} if version else {},
                "spec": {"replicas": replicas},
            },
            namespace,
            subresource="scale",
            field_manager=labels.GATEWAY_FIELD_MANAGER,
        )
        self._metrics.woke(revision)
        told = "woke %s with %d replicas"
        log.info(told, revision.cluster, replicas, extra=revision.fields)
        return sent
