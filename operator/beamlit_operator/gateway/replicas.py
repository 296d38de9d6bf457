"""Replica-seconds: how long how many pods of each revision were ready. No I/O.

Every gateway sees the same pods, so the figures of several gateways must not be added up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from beamlit_operator.gateway.names import DeploymentKey, RevisionKey


@dataclass(slots=True)
class _Account:
    ready: int
    since: float
    total: float = 0.0


class ReplicaSeconds:
    """Adds up from one change of a revision's pods to the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[RevisionKey, _Account] = {}

    def changed(self, revision: RevisionKey, ready: int) -> None:
        """From now on so many pods of the revision are ready."""
        now = self._clock()
        account = self._accounts.get(revision)
        if account is None:
            if ready:
                self._accounts[revision] = _Account(ready, now)
            return
        account.total += account.ready * (now - account.since)
        account.ready, account.since = ready, now

    def current(self) -> dict[RevisionKey, float]:
        """Seconds of ready replicas of each revision that ever had one."""
        now = self._clock()
        return {
            revision: account.total + account.ready * (now - account.since)
            for revision, account in self._accounts.items()
        }

    def forget(self, revisions: Iterable[RevisionKey]) -> None:
        """These revisions are gone."""
        for revision in revisions:
            self._accounts.pop(revision, None)

    def forget_deployment(self, key: DeploymentKey) -> None:
        """A deployment is gone, with all its revisions."""
        self.forget([r for r in self._accounts if r.deployment_key == key])
