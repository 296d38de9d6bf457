"""Leader election by a Lease: of several operators, one reconciles.

The algorithm of client-go's leaderelection: who holds the Lease renews it; another may take it once
it has not seen it change for the Lease's duration, by its own clock, so that clocks need not agree.
The official package's elector is not used because it has no end (it cannot give the Lease up when
the process is asked to stop, which makes a takeover wait) and reads the wall clock.

Who loses the Lease stops at once: the process ends, and starts again as a follower. What it had
decided until then is not written any more: see `fence`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from beamlit_operator.api import labels
from beamlit_operator.controllers.fence import boot_time
from beamlit_operator.kube import LEASES, ApiError, Json, KubeClient

log = logging.getLogger(__name__)

MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; Kubernetes' own components use the same."""

    duration: float = 15.0
    """How long a Lease that is not renewed is respected."""
    renew_deadline: float = 10.0
    """How long the holder tries to renew before it gives up."""
    retry: float = 2.0
    """Between attempts."""


class LostLeaseError(Exception):
    """The Lease is no longer ours: nothing may be written any more."""


class Elector:
    """Competes for one Lease."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        identity: str,
        name: str = labels.OPERATOR_NAME,
        timing: Timing | None = None,
        clock: Callable[[], float] = boot_time,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._seen_version = ""
        self._seen_at = 0.0
        self._expires = 0.0
        self._renewed = 0.0
        self.leading = False

    def may_write(self) -> bool:
        """Whether nobody else can lead by now, however long this process may have stood still."""
        return self.leading and self._clock() - self._renewed < self._timing.renew_deadline

    async def acquire(self) -> None:
        """Returns once the Lease is ours."""
        while True:
            asked = self._clock()
            if await self._attempt(within=self._timing.renew_deadline):
                break
            # Not a moment longer than the other one's Lease lasts, should that be its end.
            left = self._expires - self._clock()
            await self._pause(left + 0.01 if left > 0 else self._timing.retry)
        self._renewed = asked
        self.leading = True
        log.info("%s leads", self.identity)

    async def hold(self) -> None:
        """Renews the Lease until that fails for too long.

        Raises:
            LostLeaseError: always, in the end.
        """
        deadline = self._timing.renew_deadline
        while True:
            await self._pause()
            asked = self._clock()
            left = self._renewed + deadline - asked
            # An attempt must not last beyond the deadline: another may take the Lease soon after.
            if left > 0 and await self._attempt(within=left):
                self._renewed = asked
            elif self._clock() - self._renewed >= deadline:
                self.leading = False
                raise LostLeaseError(f"{self.identity} could not renew its Lease {self._name}")

    async def release(self) -> None:
        """Gives the Lease up, so that another takes over without waiting. Never fails."""
        if not self.leading:
            return
        self.leading = False
        try:
            async with asyncio.timeout(2):
                lease = await self._client.get(LEASES, self._name, self._namespace)
                if lease["spec"].get("holderIdentity") == self.identity:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.update(LEASES, {**lease, "spec": spec})
        except (ApiError, TimeoutError) as error:
            log.warning("the Lease could not be given up: %s", error)

    async def _pause(self, at_most: float = math.inf) -> None:
        await self._sleep(min(self._timing.retry, at_most))

    async def _attempt(self, *, within: float) -> bool:
        """Whether the Lease is ours now, renewed or taken; no after so many seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._take()
        except (ApiError, TimeoutError) as error:
            log.warning("the Lease could not be taken or renewed: %s", error or "timeout")
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            await self._client.create(LEASES, self._fresh(), self._namespace)
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = lease["metadata"].get("resourceVersion", "")
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, self._clock()
        duration = float(spec.get("leaseDurationSeconds") or self._timing.duration)
        self._expires = self._seen_at + duration
        if holder not in ("", self.identity) and self._clock() < self._expires:
            return False
        # The resourceVersion travels along: who comes second gets a conflict.
        await self._client.update(LEASES, {**lease, "spec": self._spec(spec, holder)})
        return True

    def _spec(self, old: Json, holder: str) -> Json:
        stamp = self._now().strftime(MICRO_TIME)
        same = holder == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._timing.duration),
            "acquireTime": (old.get("acquireTime") if same else None) or stamp,
            "renewTime": stamp,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same else 1),
        }

    def _fresh(self) -> Json:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {**self._spec({}, ""), "leaseTransitions": 0},
        }
