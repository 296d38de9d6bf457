"""The page and its stream of changes, over HTTP on the loopback interface.

Read-only: there is no route that changes anything. A page of another site cannot read it: there is
no CORS header, and a request whose Host is not this machine is refused (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler

from beamlit_operator.console.board import Board

HOST = "127.0.0.1"
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")

KEEPALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that a dead connection is noticed."""

BOARD = web.AppKey("board", Board)


def application(board: Board) -> web.Application:
    """The page for a board."""
    app = web.Application(middlewares=[_guarded])
    app[BOARD] = board
    app.router.add_get("/", _page)
    app.router.add_get("/events", _events)
    app.router.add_get("/healthz", _healthz)
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    name = request.host.rpartition(":")[0] if ":" in request.host else request.host
    if name not in OWN_NAMES:
        raise web.HTTPForbidden(text="this page is for this machine only\n")
    return await handler(request)


async def _page(_: web.Request) -> web.Response:
    # A nonce per answer: only what stands in the page itself may run or style it.
    nonce = secrets.token_urlsafe(16)
    text = files("beamlit_operator.console").joinpath("page.html").read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            f"style-src 'nonce-{nonce}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return web.Response(
        text=text.replace("{{nonce}}", nonce),
        content_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
    )


async def _healthz(request: web.Request) -> web.Response:
    synced = request.app[BOARD].synced
    return web.Response(text="ok\n" if synced else "not read yet\n", status=200 if synced else 503)


async def _events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: ``rows`` with a list of ``{key, row}``; the first has everything."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
    )
    await response.prepare(request)
    batches = request.app[BOARD].batches()
    following = asyncio.ensure_future(anext(batches))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=KEEPALIVE)
            if not done:
                await response.write(b": still here\n\n")
                continue
            data = json.dumps(following.result(), separators=(",", ":"))
            await response.write(f"event: rows\ndata: {data}\n\n".encode())
            following = asyncio.ensure_future(anext(batches))
    except ConnectionResetError:
        return response
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await batches.aclose()
