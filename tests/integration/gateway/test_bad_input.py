"""Requests that are not what they should be, byte by byte, through a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.integration.gateway.conftest import (
    Gateway,
    ModelServer,
    gateway_settings,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube

GET = b"GET /demo/models/iris HTTP/1.1\r\n"
HOST = b"host: x\r\n"
OPENAI = b"POST /demo/openai/v1/x HTTP/1.1\r\n" + HOST + b"content-type: application/json\r\n"


@pytest.fixture
async def strict(kube: FakeKube, server: ModelServer) -> AsyncIterator[Gateway]:
    """A gateway that is soon out of patience, and serves a model."""
    settings = gateway_settings(headers_timeout=1, body_idle_timeout=1)
    async with running_gateway(kube, settings) as gateway:
        name = await gateway.cluster.deploy("iris")
        await gateway.cluster.ready(f"{name}-1", server)
        await gateway.routed()
        yield gateway


async def send(gateway: Gateway, request: bytes) -> tuple[int, str]:
    """The status and the reason of the answer; the request may never end."""
    listen = gateway.settings.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = json.loads(await asyncio.wait_for(reader.readexactly(size), 20))
    finally:
        writer.close()
    status = int(head.split()[1])
    assert body["error"]["code"] == status
    return status, body["error"]["reason"]


MALFORMED = {
    "a method that is none": b"FOO / HTTP/1.1\r\n" + HOST,
    "no host": GET,
    "a host with a space": GET + b"host: a b\r\n",
    "a host that is none": GET + b"host: <>@:99999999\r\n",
    "a fragment": b"GET /demo/models/iris#x HTTP/1.1\r\n" + HOST,
    "a path with a zero": b"GET /demo/\0/iris HTTP/1.1\r\n" + HOST,
    "a path with a space": b"GET /demo/mo dels/iris HTTP/1.1\r\n" + HOST,
    "a path beyond ASCII": b"GET /demo/\xff\xfe HTTP/1.1\r\n" + HOST,
    "a header name with a space": GET + HOST + b"a b: 1\r\n",
    "two lengths": GET + HOST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
    "a negative length": GET + HOST + b"content-length: -3\r\n",
    "something else than HTTP": b"\x16\x03\x01\x02\x00\x01",
}


async def test_what_is_not_http_gets_a_400_in_json(strict: Gateway) -> None:
    for what, request in MALFORMED.items():
        assert await send(strict, request + b"\r\n") == (400, "BadRequest"), what
    assert (await strict.get("/demo/models/iris"))[0] == 200


async def test_a_target_that_is_no_path_gets_a_404_in_json(strict: Gateway) -> None:
    assert await send(strict, b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n") == (404, "NotFound")
    connect = b"CONNECT example.com:80 HTTP/1.1\r\nhost: example.com\r\n\r\n"
    assert await send(strict, connect) == (404, "NotFound")


async def test_floods_of_headers_get_a_431_in_json(strict: Gateway) -> None:
    many = b"".join(b"h%d: 1\r\n" % number for number in range(150))
    for what, request in {
        "many": GET + HOST + many + b"\r\n",
        "one that does not end": GET + HOST + b"h: " + b"1" * 300_000,
        "a path that does not end": b"GET /" + b"a" * 300_000,
    }.items():
        assert await send(strict, request) == (431, "HeadersTooLarge"), what
    assert (await strict.get("/demo/models/iris"))[0] == 200


async def test_who_stops_in_the_middle_gets_a_408_and_nobody_else_waits(strict: Gateway) -> None:
    stuck = [
        asyncio.create_task(send(strict, request))
        for request in (GET, OPENAI + b"content-length: 9\r\n\r\n{", GET + HOST)
        for _ in range(20)
    ]
    statuses = [(await strict.get("/demo/models/iris"))[0] for _ in range(20)]
    assert statuses == [200] * 20
    assert set(await asyncio.gather(*stuck)) == {(408, "RequestTimeout")}


async def test_a_body_without_end_is_cut_off_at_the_limit(
    gateway: Gateway, server: ModelServer
) -> None:
    name = await gateway.cluster.deploy("iris")
    await gateway.cluster.ready(f"{name}-1", server)
    await gateway.routed()
    request = OPENAI + b"transfer-encoding: chunked\r\n\r\n"
    request += (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 10
    assert await send(gateway, request) == (413, "PayloadTooLarge")
    assert (await gateway.get("/demo/models/iris"))[0] == 200


async def test_an_envoy_without_memory_for_more_says_so(kube: FakeKube) -> None:
    """Any Envoy has more than this in use, so nothing has to be filled up."""
    async with running_gateway(kube, gateway_settings(max_envoy_heap=1 << 20)) as gateway:

        async def full() -> bool:
            async with gateway.http.get(f"{gateway.url}/demo/models/iris") as response:
                error = (await response.json())["error"]
                refused = (response.status, error["code"], error["reason"])
                return refused == (503, 503, "Overloaded") and "retry-after" in response.headers

        await until(full, what="requests are refused")
