"""A gRPC server without a schema: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

TRAILER = ("x-work", "42")


@dataclass
class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """``Say`` answers once, ``Talk`` each message as it comes, ``Fail`` with an error, ``Wait`` not
    before it is cancelled or released."""

    host: str
    port: int
    name: str = "grpc"
    running: int = 0
    peak: int = 0
    cancelled: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def service(self, details: Any) -> Any:
        match details.method.rpartition("/")[2]:
            case "Say":
                return grpc.unary_unary_rpc_method_handler(self._say)
            case "Talk":
                return grpc.stream_stream_rpc_method_handler(self._talk)
            case "Fail":
                return grpc.unary_unary_rpc_method_handler(self._fail)
            case "Wait":
                return grpc.unary_unary_rpc_method_handler(self._wait)
        return None

    async def _say(self, message: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((TRAILER,))
        return b"said " + message

    async def _talk(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.set_trailing_metadata((TRAILER,))
        async for message in messages:
            yield b"said " + message

    async def _fail(self, _message: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such version", (TRAILER,))
        raise AssertionError

    async def _wait(self, message: bytes, _context: Any) -> bytes:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return message


@contextlib.asynccontextmanager
async def grpc_server(host: str, port: int) -> AsyncIterator[GrpcServer]:
    """Runs one for the length of the block."""
    handler, server = GrpcServer(host, port), grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield handler
    finally:
        await server.stop(grace=0)
