"""A web server that a test asks: real, local, in a thread of its own, on a port of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Self

import aiohttp
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalServer(ABC):
    """Answers while it is entered. ``endpoint`` is its URL then."""

    address: str = "127.0.0.1"
    context: ssl.SSLContext | None = None
    endpoint: str = ""
    shutdown_seconds: ClassVar[float] = 0.2
    """How long answers may take that are under way at the end."""

    @abstractmethod
    def _application(self) -> web.Application:
        """What it answers."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._sockets: dict[asyncio.Transport, asyncio.trsock.TransportSocket] = {}
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=type(self).__name__, daemon=True
        )
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _start(self) -> None:
        app = self._application()
        app.middlewares.append(self._noted)
        self._runner = web.AppRunner(app, shutdown_timeout=self.shutdown_seconds)
        await self._runner.setup()
        self._listening = socket.create_server((self.address, 0))
        await web.SockSite(self._runner, self._listening, ssl_context=self.context).start()
        host, port = self._listening.getsockname()[:2]
        self.endpoint = f"{'https' if self.context else 'http'}://{host}:{port}"

    @web.middleware
    async def _noted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.transport is not None:
            self._sockets[request.transport] = request.get_extra_info("socket")
        return await handler(request)

    async def _stop(self) -> None:
        # Nobody is let in any more, and who just was gets known to the server in a moment: asyncio
        # loses those whom it lets in while it closes (Server._attach).
        asyncio.get_running_loop().remove_reader(self._listening)
        for _ in range(3):
            await asyncio.sleep(0)
        await self._runner.cleanup()
        # Who still has something to send is not closed by that while its caller does not read.
        for transport, connection in self._sockets.items():
            if connection.fileno() >= 0:  # one that ended cannot be told to end again
                transport.abort()
        # What is closed is told to the loop, which has to hear of it before it ends.
        for _ in range(3):
            await asyncio.sleep(0)


class Forwarder(LocalServer):
    """Stands in front of ``store``, another server, and may change what goes either way."""

    def __init__(self, store: str) -> None:
        self._store = store

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        await super()._start()

    async def _stop(self) -> None:
        await super()._stop()
        await self._session.close()

    async def _forwarded(
        self, request: web.Request, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """The store's answer to ``request`` with these headers: status, headers and body."""
        url = f"{self._store}{request.raw_path}"
        ask = self._session.request
        async with ask(request.method, url, headers=headers, allow_redirects=False) as answer:
            body = await answer.read()
        # Those of the connection are ours.
        left_out = ("content-length", "transfer-encoding", "connection", "date")
        kept = {n: value for n, value in answer.headers.items() if n.lower() not in left_out}
        return answer.status, kept, body
