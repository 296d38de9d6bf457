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
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = json.loads(await asyncio.wait_for(reader.readexactly(size), 60))
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


async def memory_of(gateway: Gateway) -> int:
    """Bytes that Envoy has in use, as its overload manager counts them."""
    async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/memory") as response:
        found = {name: int(value) for name, value in (await response.json()).items()}
    return found["heap_size"] - found["pageheap_unmapped"] - found["pageheap_free"]


async def test_an_envoy_without_memory_for_more_says_so(gateway: Gateway) -> None:
    # Between the share at which nothing is let in and all of it.
    settings = gateway_settings(max_envoy_heap=int(await memory_of(gateway) / 0.93))
    async with running_gateway(FakeKube(), settings) as full:

        async def refused() -> bool:
            async with full.http.get(f"{full.url}/demo/models/iris") as response:
                error = (await response.json())["error"]
                told = (response.status, error["code"], error["reason"])
                return told == (503, 503, "Overloaded") and "retry-after" in response.headers

        await until(refused, what="requests are refused")


async def test_a_flood_of_bodies_is_cut_off_before_memory_runs_out(
    kube: FakeKube, server: ModelServer
) -> None:
    """They were let in while there was room, and send on when there is none any more."""
    limit = 64 << 20
    async with running_gateway(kube, gateway_settings(max_envoy_heap=limit)) as gateway:
        name = await gateway.cluster.deploy("iris")
        await gateway.cluster.ready(f"{name}-1", server)
        await gateway.routed()
        listen = gateway.settings.listen
        flood = [await asyncio.open_connection(listen.host, listen.port) for _ in range(20)]
        try:
            for _, writer in flood:
                writer.write(OPENAI + b"content-length: 8000000\r\n\r\n" + b" " * 5_000_000)

            async def cut() -> bool:
                for _, writer in flood:
                    writer.write(b" ")
                return all(reader.at_eof() or reader.exception() for reader, _ in flood)

            await until(cut, what="all of them are cut off", deadline=60)
            assert await memory_of(gateway) < limit
        finally:
            for _, writer in flood:
                writer.close()
        await gateway.routed()
