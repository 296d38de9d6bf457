"""How the operator tells how it is: metrics, health and logs.

`/healthz` fails when work waits and no worker takes it (a stuck process: restart it). `/readyz`
fails until the first listing of everything was read. `/metrics` is Prometheus' text format.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.queue import Done, WorkQueue

STUCK_AFTER = 120.0
"""Seconds a key may wait for a worker before the process counts as stuck."""


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "beamlit_reconciles", "Reconciles.", ["kind", "result"], registry=self.registry
        )
        self._seconds = Histogram(
            "beamlit_reconcile_seconds",
            "Duration of a reconcile.",
            ["kind"],
            registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )
        self._waited = Histogram(
            "beamlit_queue_wait_seconds",
            "How long a key waited for a worker.",
            registry=self.registry,
            buckets=(0.001, 0.01, 0.1, 1, 10, 60, 300),
        )

    def watch(
        self, queue: WorkQueue[Key], *, writes: Callable[[], int], leading: Callable[[], bool]
    ) -> None:
        """Adds what is read at the time of a scrape."""

        def gauge(name: str, doc: str, read: Callable[[], float]) -> None:
            Gauge(name, doc, registry=self.registry).set_function(read)

        gauge("beamlit_queue_depth", "Keys that wait for a worker.", lambda: len(queue))
        gauge("beamlit_queue_working", "Keys that are being worked on.", lambda: queue.working)
        gauge("beamlit_queue_oldest_seconds", "Wait of the oldest key.", lambda: queue.oldest)
        gauge("beamlit_api_writes", "Write requests made to the API server.", writes)
        gauge("beamlit_leader", "1 while this process leads.", leading)

    def done(self, done: Done[Key]) -> None:
        """Counts one finished reconcile."""
        kind = str(done.key.kind)
        self._reconciles.labels(kind, "error" if done.error else "ok").inc()
        self._seconds.labels(kind).observe(done.worked)
        self._waited.observe(done.waited)


def application(
    metrics: Metrics, *, queue: WorkQueue[Key], ready: Callable[[], str]
) -> web.Application:
    """The small HTTP server; ``ready`` gives what is still missing, empty when nothing is."""

    async def healthz(_: web.Request) -> web.Response:
        if queue.oldest > STUCK_AFTER:
            text = f"a key has waited for {queue.oldest:.0f} s and no worker takes it\n"
            return web.Response(status=500, text=text)
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = ready()
        return (
            web.Response(status=503, text=f"{missing}\n") if missing else web.Response(text="ok\n")
        )

    async def scrape(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", scrape),
        ]
    )
    return app


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a log call passed as ``extra``, such as the workspace."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextLines(logging.Formatter):
    """One line for people; what was passed along stands behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        more = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return super().formatMessage(record) + more


def configure_logging(*, format_: str, level: str) -> None:
    """Logs to standard error, one event per line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if format_ == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # kopf tells its own machinery at info; what concerns people is ours to log.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, root.level))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
