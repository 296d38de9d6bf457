"""The agent's own HTTP interface: health, readiness, metrics, load."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from beamlit_operator.gateway.loads import LoadBook
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.settings import GatewaySettings


def admin_app(
    *,
    settings: GatewaySettings,
    book: LoadBook,
    metrics: GatewayMetrics,
    not_ready: Callable[[], str],
) -> web.Application:
    """``not_ready`` answers why the gateway cannot serve yet, or nothing."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = not_ready()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    async def load(_: web.Request) -> web.Response:
        return web.json_response(load_report(settings.gateway_id, book))

    async def exposition(_: web.Request) -> web.Response:
        metrics.in_flight.clear()
        for key, state in book.current().items():
            metrics.in_flight.labels(*key).set(state.concurrency)
        return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/load", load)
    app.router.add_get("/metrics", exposition)
    return app


def load_report(gateway_id: str, book: LoadBook) -> dict[str, object]:
    """What the autoscaler reads."""
    return {
        "gateway": gateway_id,
        "deployments": {
            str(key): {
                "concurrency": load.concurrency,
                "requestsTotal": load.requests_total,
                "held": load.held,
            }
            for key, load in sorted(book.current().items())
        },
    }
