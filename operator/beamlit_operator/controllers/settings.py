"""How kopf is set up. Each line says why; the facts were measured with kopf 1.45."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging

import kopf

from beamlit_operator.kube.http import PAGE_SIZE

WATCH_SECONDS = 300
"""How long one watch request lasts before it is renewed, client-go's usual five to ten minutes."""

BACKOFFS = (0.5, 1, 2, 3, 5, 8, *itertools.repeat(10, 360))
"""Seconds between attempts of one API request: about an hour in all, for an API server that is
upgraded or restored. kopf's own are over after a minute, and then the process ends."""


class NoEssence(kopf.DiffBaseStorage):
    """Keeps nothing of what an object was, for nobody asks: kopf else copies every object deeply on
    every event, to compare it with the last one that it handled."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing."""


def operator_settings() -> kopf.OperatorSettings:
    """The settings of the kopf half of the operator, which only delivers events."""
    settings = kopf.OperatorSettings()
    # Peering is not leader election: two operators would pause each other by priority. We hold a
    # Lease instead, and look for no peering objects.
    settings.peering.standalone = True
    # Our kinds are fixed and their CRDs installed before us: no permission to watch CRDs and
    # namespaces is asked for.
    settings.scanning.disabled = True
    # Log lines are not Events. Ours are written on transitions only, by `events.py`.
    settings.posting.enabled = False
    settings.posting.level = logging.CRITICAL
    # An int: kopf sends it as it is, and the API server refuses `300.0`.
    settings.watching.server_timeout = WATCH_SECONDS
    # A list of five thousand objects must not be one answer, and each object of a page is a task of
    # kopf's while it lasts.
    settings.watching.chunk_size = PAGE_SIZE
    # Left unset on purpose: a limit starves the objects that come later.
    settings.queueing.worker_limit = None
    # A worker only puts a key on our queue; an idle one should not linger as a task. At a start
    # there is one for each object that was listed while the last ones linger.
    settings.queueing.idle_timeout = 0.1
    # Nothing of ours is in kopf's queues, so nothing is lost by leaving at once.
    settings.queueing.exit_timeout = 0.5
    # An API server may be away for long; a watch must outlive it.
    settings.networking.error_backoffs = BACKOFFS
    # Behind a proxy, as the rest of the process is.
    settings.networking.trust_env = True
    # Never used, because we register no handlers that store progress; named as ours all the same,
    # so that nothing foreign could appear on a user's object.
    settings.persistence.finalizer = "beamlit.com/operator"
    settings.persistence.diffbase_storage = NoEssence()
    # All handlers are async; no threads are needed.
    settings.execution.executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    return settings
