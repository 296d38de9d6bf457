"""A proxy in front of a store that does to the bytes what networks and proxies do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import aiohttp
from aiohttp import web


class FlakyStore:
    """Forwards to ``store``; in a thread of its own.

    Attributes:
        gets: how many objects (or ranges) were asked for.
        cut_at: the next transfers break off after so many bytes, one entry each.
        refuse: the next requests get these status codes, one entry each.
        spoil: called with (number of the get, body): the body to send instead.
        before_get: called with the number of the get, before the object is read.
        ignore_if_match: like stores that do not know the header.
    """

    def __init__(self, store: str) -> None:
        self.gets = 0
        self.cut_at: list[int] = []
        self.refuse: list[int] = []
        self.spoil: Callable[[int, bytes], bytes] = lambda number, body: body
        self.before_get: Callable[[int], object] = lambda number: None
        self.ignore_if_match = False
        self.endpoint = ""
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> FlakyStore:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            code = self.refuse.pop(0)
            return web.Response(status=code, text="<Error><Code>SlowDown</Code></Error>")
        is_get, number = "list-type" not in request.query, 0
        if is_get:
            self.gets = number = self.gets + 1
            await asyncio.to_thread(self.before_get, number)
        headers = dict(request.headers)
        if self.ignore_if_match:
            headers.pop("If-Match", None)
        assert self._session is not None
        url = f"{self._store}{request.raw_path}"
        async with self._session.request(request.method, url, headers=headers) as answer:
            body = await answer.read()
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date")
        }
        if is_get and answer.status in (200, 206):
            body = self.spoil(number, body)
        response = web.StreamResponse(status=answer.status, headers=kept)
        response.content_length = len(body)
        await response.prepare(request)
        if is_get and self.cut_at:
            await response.write(body[: self.cut_at.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response
