"""The webhook's server: in the operator's own event loop, on every replica.

An own route instead of kopf's admission: kopf's server loads its certificate once, writes the whole
list of webhooks into the configuration (which belongs to a chart or to Git), and goes through its
handler machinery per request; what is needed here is a hundred lines.

| what arrives                             | the answer                                            |
|------------------------------------------|-------------------------------------------------------|
| a review, all watches synced             | 200, the decision                                     |
| a review, before that                    | 503: the configuration's failurePolicy decides        |
| larger than :data:`LARGEST`              | 413                                                   |
| no JSON, or no review that has a uid     | 400, and why                                          |
| a review that makes ours fail            | 200, allowed and warned: the controller checks again  |
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from beamlit_operator.controllers.admission.configuration import PATH
from beamlit_operator.controllers.admission.decision import ALLOWED, Decision
from beamlit_operator.controllers.admission.keeper import Keeper
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.admission.review import review
from beamlit_operator.controllers.admission.tlscontext import server_context
from beamlit_operator.controllers.admission.wire import MalformedError, Request, answer, parse
from beamlit_operator.controllers.audit import AUDITED, note_actor
from beamlit_operator.controllers.keys import Key
from beamlit_operator.kube import NAMESPACES, ApiError, KubeClient, ObjectKey
from beamlit_operator.workloads.native import Settings

log = logging.getLogger(__name__)

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of a review: two objects of the 3 MiB that an API server takes, and some room."""

ROUNDS: Final = 3
"""How often a decision is looked at again because what it rests on had changed."""

DOUBTS: Final = 12
"""Objects that are read anew for one decision."""

LOOK_WITHIN: Final = 1.5
"""Seconds for that, well within the API server's patience."""

RETRY: Final = 2.0
"""Seconds after which a failed look at the certificates is repeated."""


class Webhook:
    """Answers the API server's reviews."""

    def __init__(
        self,
        client: KubeClient,
        *,
        listen: str,
        picture: Picture,
        keeper: Keeper,
        synced: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        """``listen`` is ``host:port``; ``synced`` says whether the picture is whole."""
        self._client = client
        self._listen = listen
        self._picture = picture
        self._keeper = keeper
        self._synced = synced
        self._context = server_context()
        self.serving = False
        """Whether there is a certificate and a socket."""
        self._reviews = Counter(
            "beamlit_admission_reviews",
            "Admission reviews answered.",
            ("kind", "operation", "decision"),
            registry=registry,
        )
        self._seconds = Histogram(
            "beamlit_admission_review_seconds",
            "Time to answer one admission review.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 2),
            registry=registry,
        )

    @property
    def certificate_ends(self) -> datetime | None:
        """When the certificate that is served ends; None while none is."""
        return self._keeper.ends

    def use(self, settings: Settings) -> None:
        """From now on reviews by these settings."""
        self._picture = replace(self._picture, settings=settings)

    async def run(self) -> None:
        """Serves until cancelled."""
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post(PATH, self._handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            while True:
                pause = self._keeper.interval
                try:
                    await self._keeper.look(self._context)
                    if not self.serving:
                        await self._open(runner)
                except (ApiError, OSError) as error:
                    # ssl.SSLError is an OSError too. What was served before goes on being served.
                    log.warning("the webhook's certificate could not be looked after: %s", error)
                    pause = min(pause, RETRY)
                await asyncio.sleep(pause)
        finally:
            self.serving = False
            await runner.cleanup()

    async def _open(self, runner: web.AppRunner) -> None:
        host, _, port = self._listen.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=self._context)
        await site.start()
        self.serving = True

    async def _handle(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        if not self._synced():
            return web.Response(status=503, text="the operator has not read everything yet\n")
        try:
            asked = parse(json.loads(await request.read()))
        except MalformedError as error:
            return web.Response(status=400, text=f"{error}\n")
        except (ValueError, RecursionError):
            return web.Response(status=400, text="the body is not JSON\n")
        decision = await self.decide(asked)
        self._seconds.observe(time.perf_counter() - started)
        self._count(asked, decision)
        if decision.allowed and not asked.dry_run:
            _note_actor(asked)
        return web.json_response(answer(asked.uid, decision))

    async def decide(self, asked: Request) -> Decision:
        """The decision, with a second look at what it rests on before a person hears of it."""
        try:
            decision = review(asked, self._picture)
            for _ in range(ROUNDS):
                if not decision.doubts or not await self._look_again(decision):
                    break
                decision = review(asked, self._picture)
        except Exception:
            # A mistake of ours must not keep people from their work; nothing is placed by it.
            log.exception("a review failed and is allowed", extra=_fields(asked))
            return Decision(
                warnings=("the admission check failed and was left out; the operator checks again",)
            )
        if not decision.allowed and await self._terminating(asked.namespace):
            # Whoever deletes a namespace deletes all of it.
            return ALLOWED
        return decision

    async def _look_again(self, decision: Decision) -> bool:
        """Reads the doubtful objects from the API server; whether one of them was another."""
        keys = sorted(decision.doubts)[:DOUBTS]
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                return any(await asyncio.gather(*(self._fresh(key) for key in keys)))
        except (ApiError, TimeoutError) as error:
            log.warning("a decision could not be verified: %s", error or "timeout")
            return False

    async def _fresh(self, key: Key) -> bool:
        indexes, place = self._picture.indexes, ObjectKey(key.workspace, key.name)
        before = indexes.version(key.kind, place)
        try:
            item = await self._client.get(key.kind.resource, key.name, key.workspace)
        except ApiError as error:
            if not error.not_found:
                raise
            indexes.remove(key.kind, place, uid=before[0])
        else:
            indexes.put(key.kind, item)
        return indexes.version(key.kind, place) != before

    async def _terminating(self, namespace: str) -> bool:
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                found = await self._client.get(NAMESPACES, namespace)
        except (ApiError, TimeoutError) as error:
            return isinstance(error, ApiError) and error.not_found
        return bool(found["metadata"].get("deletionTimestamp"))

    def _count(self, asked: Request, decision: Decision) -> None:
        word = "refused" if not decision.allowed else "warned" if decision.warnings else "allowed"
        kind = str(asked.kind or "other")
        operation = asked.operation if asked.operation in _OPERATIONS else "other"
        self._reviews.labels(kind, operation, word).inc()
        if not decision.allowed:
            log.info("refused: %s", decision.message, extra=_fields(asked))


def _note_actor(asked: Request) -> None:
    """The audit trail learns who it was: the object itself does not tell."""
    metadata = (asked.new or asked.old or {}).get("metadata")
    if asked.kind not in AUDITED or not isinstance(metadata, dict):
        return
    generation = 0 if asked.operation == "DELETE" else int(metadata.get("generation") or 0)
    note_actor(str(metadata.get("uid") or ""), generation, asked.user)


_OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE"})


def _fields(asked: Request) -> dict[str, object]:
    return {
        "workspace": asked.namespace,
        "object": asked.name,
        "kind": str(asked.kind),
        "operation": asked.operation,
        "user": asked.user,
        "dry_run": asked.dry_run,
    }
