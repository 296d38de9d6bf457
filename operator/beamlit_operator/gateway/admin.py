"""The agent's own HTTP interface: health, readiness, metrics, load.

``/livez`` (and ``/healthz``, its older name) and ``/readyz`` follow the rules of :mod:`health`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from beamlit_operator.gateway.loads import LoadBook


def admin_app(
    *,
    gateway_id: str,
    book: LoadBook,
    refused: Callable[[], Mapping[str, str]],
    outcomes: Callable[[], Mapping[str, object]],
    exposition: Callable[[], Awaitable[bytes]],
    not_ready: Callable[[], Awaitable[str]],
) -> web.Application:
    """``not_ready`` answers why the gateway cannot serve yet, or nothing; ``refused`` what Envoy
    did not take, by deployment; ``exposition`` the text for Prometheus."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = await not_ready()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    async def load(_: web.Request) -> web.Response:
        return web.json_response(
            load_report(gateway_id, book, refused=refused(), outcomes=outcomes())
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/healthz", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/load", load)
    app.router.add_get("/metrics", metrics)
    return app


def load_report(
    gateway_id: str,
    book: LoadBook,
    *,
    refused: Mapping[str, str],
    outcomes: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, object]:
    """What the operator reads every two seconds. ``refused`` is Envoy's words by
    ``<workspace>/<deployment>``, under ``gateway`` what concerns no single deployment; ``outcomes``
    are the counts of revisions that share a deployment (:mod:`.outcomes`)."""
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
        "refused": dict(sorted(refused.items())),
        "outcomes": dict(sorted(outcomes.items())),
    }
