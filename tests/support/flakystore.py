"""A proxy in front of a store that does to the bytes what networks and proxies do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from tests.support.localserver import Forwarder


class FlakyStore(Forwarder):
    """Forwards to ``store``.

    Attributes:
        gets: how many objects (or ranges) were asked for.
        cut_at: the next transfers break off after so many bytes, one entry each.
        refuse: the next requests get these status codes, one entry each.
        spoil: called with (number of the get, body): the body to send instead.
        before_get: called with the number of the get, before the object is read.
        ignore_if_match: like stores that do not know the header.
    """

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.gets = 0
        self.cut_at: list[int] = []
        self.refuse: list[int] = []
        self.spoil: Callable[[int, bytes], bytes] = lambda number, body: body
        self.before_get: Callable[[int], object] = lambda number: None
        self.ignore_if_match = False

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        return app

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
        status, kept, body = await self._forwarded(request, headers)
        if is_get and status in (200, 206):
            body = self.spoil(number, body)
        response = web.StreamResponse(status=status, headers=kept)
        response.content_length = len(body)
        await response.prepare(request)
        if is_get and self.cut_at:
            await response.write(body[: self.cut_at.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response
