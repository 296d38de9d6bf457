"""A web server with files, real and local, that can behave as badly as web servers do."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from aiohttp import web
from tests.support.localserver import LocalServer


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class WebStore(LocalServer):
    """Sends files.

    Attributes:
        files: what it holds, by path without the first slash.
        asked: what it was asked.
        authorization: what callers must send; empty: nothing.
        ranges: whether it knows ranges.
        head: whether it answers to HEAD.
        sized: whether it tells sizes.
        refuse: the next GETs get these status codes, one entry each.
        retry_after: sent with those.
        cut_at: the next bodies break off after so many bytes, one entry each.
        stall_at: the next bodies stop after so many bytes and the connection stays open.
        redirects: paths, and where they lead instead.
        context: of TLS, with the server's certificate.
    """

    shutdown_seconds = 0.01

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    authorization: str = ""
    ranges: bool = True
    head: bool = True
    sized: bool = True
    refuse: list[int] = field(default_factory=list)
    retry_after: str | None = None
    cut_at: list[int] = field(default_factory=list)
    stall_at: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    context: ssl.SSLContext | None = None
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._ended = asyncio.Event()

    def url(self, path: str) -> str:
        """Where a file is."""
        return f"{self.endpoint}/{path}"

    @property
    def gets(self) -> list[Asked]:
        """The requests for content."""
        return [each for each in self.asked if each.method == "GET"]

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _stop(self) -> None:
        self._ended.set()
        await super()._stop()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, headers = request.match_info["path"], request.headers
        sent = headers.get("Authorization")
        self.asked.append(Asked(request.method, path, headers.get("Range"), sent))
        if path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[path]})
        if request.method == "HEAD" and not self.head:
            return web.Response(status=405)
        if self.authorization and sent != self.authorization:
            return web.Response(status=401)
        if path not in self.files:
            return web.Response(status=404)
        if request.method == "GET" and self.refuse:
            more = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
            return web.Response(status=self.refuse.pop(0), headers=more)
        return await self._send(request, self.files[path])

    async def _send(self, request: web.Request, content: bytes) -> web.StreamResponse:
        status, more = 200, {}
        wanted = request.http_range
        if self.ranges and "Range" in request.headers:
            first, end = wanted.start or 0, min(wanted.stop or len(content), len(content))
            if first >= len(content):
                return web.Response(
                    status=416, headers={"Content-Range": f"bytes */{len(content)}"}
                )
            status = 206
            more = {"Content-Range": f"bytes {first}-{end - 1}/{len(content)}"}
            content = content[first:end]
        response = web.StreamResponse(status=status, headers=more)
        if self.sized:
            response.content_length = len(content)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        for breaks, cuts in ((False, self.stall_at), (True, self.cut_at)):
            if cuts:
                await response.write(content[: cuts.pop(0)])
                if not breaks:
                    await self._ended.wait()
                assert request.transport is not None
                request.transport.close()
                return response
        await response.write(content)
        return response
