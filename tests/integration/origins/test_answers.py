"""Stores whose answers have no end: a Model's author says where they are, and the operator asks."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib
import itertools
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.stack import free_port

from beamlit_operator.origins import (
    HubRef,
    OriginError,
    OriginReason,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
    kinds,
    resolve,
)
from beamlit_operator.origins.errors import one_line
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.stores import answers as limits
from beamlit_operator.origins.waiting import ASKER

Body = Callable[[web.Request], tuple[dict[str, str], Iterable[bytes]]]


@asynccontextmanager
async def answering(body: Body, *, status: int = 200, pause: float = 0.0) -> AsyncIterator[str]:
    """A server that sends parts until nobody listens; its address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers, parts = body(request)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


COMMIT = "0" * 40
LISTED = {"rfilename": "config.json", "size": 2, "blobId": "0" * 40}


def hub(endpoint: str) -> OriginRef:
    return HubRef("acme/endless", endpoint=endpoint)


def s3(endpoint: str) -> OriginRef:
    return S3Ref("endless", "models", endpoint=endpoint)


def spaces(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
    return {}, itertools.repeat(b" " * 2**20)


def values(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
    return {}, itertools.repeat(b'{"<a/>":[{}]},' * 2**14)


def bomb(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
    packed = gzip.compress(b" " * 2**27)
    return {"Content-Encoding": "gzip"}, [packed]


def zstandard_bomb(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
    zstd = importlib.import_module(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    return {"Content-Encoding": "zstd"}, [zstd.compress(b" " * 2**27)]


def away(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
    return {"Location": "/elsewhere"}, itertools.repeat(b" " * 2**20)


async def failed(ref: OriginRef) -> OriginError:
    with pytest.raises(OriginError) as caught:
        await resolve(ref, {}, timeout_seconds=40)
    return caught.value


@pytest.mark.parametrize(
    ("ref", "body"),
    [(hub, spaces), (hub, values), (hub, bomb), (hub, zstandard_bomb), (s3, spaces), (s3, values)],
)
async def test_an_answer_without_an_end_is_refused(
    ref: Callable[[str], OriginRef], body: Body
) -> None:
    async with answering(body) as endpoint:
        error = await failed(ref(endpoint))
    assert error.reason is OriginReason.UNREACHABLE
    assert "MiB" in error.message
    assert "check endpoint" in error.message


async def test_an_error_without_an_end_is_refused() -> None:
    async with answering(spaces, status=400) as endpoint:
        assert "MiB" in (await failed(s3(endpoint))).message
        assert "MiB" in (await failed(hub(endpoint))).message


FILE = OriginFile("config.json", 2**20, "e", "models/config.json")


@pytest.mark.parametrize("ref", [hub, s3])
async def test_of_a_part_no_more_is_taken_than_was_asked_for(
    ref: Callable[[str], OriginRef],
) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Length: 100\r\n')
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:  # it says 100, and sends for ever
                writer.write(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
                await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(lie, "127.0.0.1", port):
        endpoint = f"http://127.0.0.1:{port}"
        assert await asyncio.to_thread(kinds.read, ref(endpoint), {}, FILE, 0, 100) == b"x" * 100


@pytest.mark.parametrize("ref", [hub, s3])
async def test_why_there_is_no_part_is_not_told_without_an_end(
    ref: Callable[[str], OriginRef],
) -> None:
    async with answering(spaces, status=400) as endpoint:
        with pytest.raises(OriginError, match="MiB"):
            await asyncio.to_thread(kinds.read, ref(endpoint), {}, FILE, 0, 100)


async def test_a_part_of_which_the_size_is_not_told_is_not_taken() -> None:
    def silent(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
        return {"ETag": '"e"'}, itertools.repeat(b" " * 2**20)

    async with answering(silent, status=206) as endpoint:
        with pytest.raises(OriginError, match="changed or removed"):
            await asyncio.to_thread(kinds.read, s3(endpoint), {}, FILE, 0, 100)


async def test_what_a_redirect_says_besides_is_not_read() -> None:
    async with answering(away, status=302) as endpoint:
        assert (await failed(hub(endpoint))).reason is OriginReason.UNREACHABLE


async def test_a_listing_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.5)
    numbers = itertools.count()

    def page(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
        more = f"<NextContinuationToken>{next(numbers)}</NextContinuationToken>"
        told = f"<ListBucketResult><IsTruncated>true</IsTruncated>{more}</ListBucketResult>"
        return {}, [told.encode()]

    async with answering(page) as endpoint:
        error = await failed(s3(endpoint))
    assert "did not end its answer" in error.message


async def test_answers_that_drip_keep_nobody_else_from_being_looked_at() -> None:
    def whole(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
        files = [{"rfilename": "config.json", "size": 2, "blobId": "1" * 40}]
        told = {"id": "acme/endless", "sha": "0" * 40, "siblings": files}
        return {}, [json.dumps(told).encode()]

    def drips(_: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
        return {}, itertools.repeat(b" ")

    async def ask(workspace: str, ref: OriginRef) -> str:
        ASKER.set(workspace)
        patience = 0.5 if workspace == "hostile" else 60
        try:
            return (await resolve(ref, {}, timeout_seconds=patience)).revision
        except OriginError as error:
            return error.message

    async with answering(drips, pause=0.1) as slow, answering(whole) as good:

        async def asked(workspace: str, ref: OriginRef) -> str:
            return await asyncio.create_task(ask(workspace, ref))

        many = [HubRef(f"acme/n{number}", endpoint=slow) for number in range(10)]
        told = await asyncio.gather(*(asked("hostile", ref) for ref in many))
        assert all("did not answer within" in each for each in told), told
        assert "was not asked" in await asked("hostile", many[0])
        assert "was not asked" in await asked("hostile", HubRef("acme/other", endpoint=good))
        assert await asked("team-a", HubRef("acme/other", endpoint=good)) == "0" * 40


@pytest.mark.parametrize(
    ("ref", "content"),
    [
        (hub, b"{}"),
        (hub, b"[]"),
        (hub, b"null"),
        (hub, b'{"id": "a", "sha": "0", "siblings": [1]}'),
        (hub, json.dumps({"id": "a", "sha": "main", "siblings": [LISTED]}).encode()),
        (hub, json.dumps({"id": "a", "sha": "0" * 5000, "siblings": [LISTED]}).encode()),
        *[
            (hub, json.dumps({"id": "a", "sha": COMMIT, "siblings": [{**LISTED, **odd}]}).encode())
            for odd in (
                *({"size": size} for size in (-1, 2**70, "7", 1.5, [1], True)),
                *({"rfilename": name} for name in (7, None, ["a"])),
            )
        ],
        (hub, b'{"id": "a", "sha": "0", "siblings": [{"rfilename": "x", "size": 1, "lfs": 7}]}'),
        (hub, b"[" * 100_000),
        (s3, b"<ListBucketResult><Contents><Key>models/a</Key></Contents></ListBucketResult>"),
        (s3, b"<ListBucketResult><Contents/></ListBucketResult>"),
        (s3, b"<Contents>" * 5_000),
    ],
)
async def test_an_answer_of_another_program_is_said_to_be_one(
    ref: Callable[[str], OriginRef], content: bytes
) -> None:
    async with answering(lambda _: ({}, [content])) as endpoint:
        error = await failed(ref(endpoint))
    assert error.reason is OriginReason.UNREACHABLE, error


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (206, {"Content-Range": f"bytes 0-0/{'9' * 5000}"}, OriginReason.UNREACHABLE),
        (206, {"Content-Range": f"bytes 0-0/{10**17}"}, OriginReason.UNREACHABLE),
        (206, {"Content-Range": "bytes 0-0/-1"}, OriginReason.UNREACHABLE),
        (429, {"Retry-After": "9" * 5000}, OriginReason.RATE_LIMITED),
        (429, {"Retry-After": "Fri, 31 Dec 99999999999 23:59:59 GMT"}, OriginReason.RATE_LIMITED),
    ],
)
@pytest.mark.parametrize("kind", ["web", "hub", "s3"])
async def test_numbers_that_nobody_can_mean_are_no_internal_errors(
    kind: str, status: int, headers: dict[str, str], reason: OriginReason
) -> None:
    async with answering(lambda _: (headers, []), status=status) as endpoint:
        web_ref = WebRef((WebFile(f"{endpoint}/a", "0" * 64),))
        refs = {"web": web_ref, "hub": hub(endpoint), "s3": s3(endpoint)}
        with pytest.raises(OriginError) as caught:
            await asyncio.to_thread(kinds.look, refs[kind], {})
    if kind == "web" or status == 429:
        assert caught.value.reason is reason
    assert caught.value.retry_after_seconds < 24 * 3600


def test_a_stores_words_steer_no_terminal_and_turn_no_line_around() -> None:
    said = one_line("a\x1b[2J\n  b\u202ec\u200bd\ud800 secret", ["secret"])
    assert said == "a\ufffd[2J b\ufffdc\ufffdd\ufffd ***"
    assert len(one_line("x" * 5000)) == 300


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "86400"},
        {"Retry-After": "9" * 5000},
        {"RateLimit": '"api";r=0;t=86400', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
    ],
)
async def test_a_hub_cannot_have_anybody_sleep_for_a_day(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", slept.append)
    listed = json.dumps({"id": "a", "sha": COMMIT, "siblings": [{"rfilename": "a"}]}).encode()

    def busy(request: web.Request) -> tuple[dict[str, str], Iterable[bytes]]:
        if "/tree/" in request.path:  # asked for where the summary has no sizes
            raise web.HTTPTooManyRequests(headers=headers)
        return {}, [listed]

    async with answering(busy) as endpoint:
        with pytest.raises(OriginError) as caught:
            await asyncio.to_thread(kinds.look, hub(endpoint), {})
    assert caught.value.reason is OriginReason.RATE_LIMITED
    assert slept
    assert max(slept) <= 301
