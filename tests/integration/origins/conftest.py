"""Real stores for the tests: an S3 server, and a server that speaks the Hub's API."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import botocore.session
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer
from tests.support.hub import HubServer

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-example"}


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> Any:
    """A client of the tests' own; the store is emptied before each test."""
    reset = urllib.request.Request(f"{s3_endpoint}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="models")
    yield client
    client.close()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def answering() -> Callable[..., AbstractAsyncContextManager[str]]:
    """A store that gives the same answer to everything, and notes the Authorization it was sent."""

    @asynccontextmanager
    async def serve(
        status: int, body: str, seen: list[str | None] | None = None
    ) -> AsyncIterator[str]:
        async def answer(request: web.Request) -> web.Response:
            if seen is not None:
                seen.append(request.headers.get("Authorization"))
            return web.Response(status=status, text=body, content_type="application/xml")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    return serve
