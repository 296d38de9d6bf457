"""Every protocol, to a deployment that sleeps and to one that runs, through a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
import pytest
from tests.integration.gateway.conftest import (
    Gateway,
    ModelServer,
    fresh_address,
    gateway_settings,
    model_server,
    running_gateway,
    until,
)
from tests.integration.gateway.test_cold import sleeping
from tests.integration.gateway.test_limits import envoy_has
from tests.support import http2
from tests.support.fakekube import FakeKube
from tests.support.grpcserver import TRAILER, GrpcServer, grpc_server

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

H2C = "kubernetes.io/h2c"
PATH = "/demo/models/iris"
HOST = "iris-production.demo.models.test"

cold_and_warm = pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])


async def meet(
    gateway: Gateway,
    server: Any,
    call: Callable[[], Awaitable[T]],
    *,
    warm: bool,
    **fields: Any,
) -> T:
    """The outcome of a call to a deployment whose pod is ready, or starts because of the call."""
    revision = await sleeping(gateway, **fields)
    if warm:
        await gateway.cluster.ready(revision, server)
        await envoy_has(gateway, server)
        return await call()
    calling = asyncio.ensure_future(call())
    await until(lambda: gateway.held() == 1 or calling.done(), what="the call is held")
    await gateway.cluster.ready(revision, server)
    return await calling


@contextlib.asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[ModelServer]:
    """A server that answers by bytes, and closes the connection then."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await handler(reader, writer)
            await writer.drain()

    raw = ModelServer(fresh_address(), 8080, "raw")
    async with await asyncio.start_server(handle, raw.host, raw.port):
        yield raw


@contextlib.asynccontextmanager
async def connection(
    gateway: Gateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listen = gateway.settings.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@pytest.fixture
async def speaker() -> AsyncIterator[GrpcServer]:
    async with grpc_server(fresh_address(), 8080) as running:
        yield running


@cold_and_warm
async def test_http2_callers_reach_servers_of_http1(
    gateway: Gateway, server: ModelServer, warm: bool
) -> None:
    listen = gateway.settings.listen
    body = b"x" * 50_000

    async def call() -> http2.Answer:
        return await http2.request(
            listen.host, listen.port, path=f"{PATH}/a%2Fb?c=d", method="POST", body=body
        )

    answer = await meet(gateway, server, call, warm=warm)
    assert answer.status == 200
    found = json.loads(answer.body)
    assert (found["target"], found["bytes"]) == ("/a%2Fb?c=d", len(body))


@cold_and_warm
async def test_grpc_calls_end_with_their_trailers(
    gateway: Gateway, speaker: GrpcServer, warm: bool
) -> None:
    options = [("grpc.default_authority", HOST)]
    async with grpc.aio.insecure_channel(str(gateway.settings.listen), options=options) as channel:

        async def say() -> tuple[bytes, dict[str, str]]:
            call = channel.unary_unary("/model/Say")(b"hello", timeout=30)
            return await call, dict(await call.trailing_metadata())

        said, trailers = await meet(gateway, speaker, say, warm=warm, app_protocol=H2C)
        assert said == b"said hello"
        assert trailers[TRAILER[0]] == TRAILER[1]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/model/Fail")(b"", timeout=30)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert failed.value.details() == "no such version"


@cold_and_warm
async def test_grpc_streams_run_both_ways_at_once(
    gateway: Gateway, speaker: GrpcServer, warm: bool
) -> None:
    options = [("grpc.default_authority", HOST)]
    async with grpc.aio.insecure_channel(str(gateway.settings.listen), options=options) as channel:

        async def talk() -> tuple[list[bytes], dict[str, str]]:
            call = channel.stream_stream("/model/Talk")(timeout=30)
            heard = []
            for word in (b"one", b"two", b"three"):
                # The next is said only after the answer to this one: nothing is kept back.
                await call.write(word)
                heard.append(await call.read())
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            return heard, dict(await call.trailing_metadata())

        heard, trailers = await meet(gateway, speaker, talk, warm=warm, app_protocol=H2C)
    assert heard == [b"said one", b"said two", b"said three"]
    assert trailers[TRAILER[0]] == TRAILER[1]


async def test_a_grpc_caller_that_hangs_up_cancels_the_work(
    gateway: Gateway, speaker: GrpcServer
) -> None:
    options = [("grpc.default_authority", HOST)]
    async with grpc.aio.insecure_channel(str(gateway.settings.listen), options=options) as channel:

        async def leave() -> None:
            call = channel.unary_unary("/model/Wait")(b"", timeout=30)
            await until(lambda: speaker.running == 1, what="the server works")
            call.cancel()

        await meet(gateway, speaker, leave, warm=True, app_protocol=H2C)
        await until(lambda: speaker.cancelled == 1, what="the work is cancelled")


async def test_a_limit_holds_for_grpc_too_and_says_so(
    gateway: Gateway, speaker: GrpcServer
) -> None:
    endpoint = {"maxConcurrency": 2, "maxQueued": 1}
    revision = await sleeping(gateway, app_protocol=H2C, endpoint=endpoint)
    await gateway.cluster.ready(revision, speaker)  # type: ignore[arg-type]
    await envoy_has(gateway, speaker)  # type: ignore[arg-type]
    options = [("grpc.default_authority", HOST)]
    async with grpc.aio.insecure_channel(str(gateway.settings.listen), options=options) as channel:

        async def call() -> str:
            try:
                await channel.unary_unary("/model/Wait")(b"", timeout=30)
            except grpc.aio.AioRpcError as error:
                return str(error.details())
            return ""

        calls = []
        for number in (1, 2):
            calls.append(asyncio.ensure_future(call()))
            await until(lambda n=number: speaker.running == n, what="the server works")
        calls += [asyncio.ensure_future(call()) for _ in range(3)]
        await until(lambda: sum(each.done() for each in calls) == 2, what="two are refused")
        speaker.release.set()
        outcomes = await asyncio.gather(*calls)
    assert outcomes.count("") == 3
    assert all("maxConcurrency" in each for each in outcomes if each)
    assert speaker.peak == 2


@cold_and_warm
async def test_events_arrive_one_by_one(gateway: Gateway, warm: bool) -> None:
    heard = asyncio.Event()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        # The second is not made before the caller has the first.
        await heard.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async def listen() -> list[bytes]:
        async with gateway.http.get(f"{gateway.url}{PATH}") as response:
            first = await response.content.readuntil(b"\n\n")
            heard.set()
            return [first, await response.content.readuntil(b"\n\n")]

    async with raw_server(tell) as raw:
        events = await meet(gateway, raw, listen, warm=warm)
    assert events == [b"data: 1\n\n", b"data: 2\n\n"]


@cold_and_warm
async def test_trailers_of_chunked_bodies_pass_both_ways(gateway: Gateway, warm: bool) -> None:
    received = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        received = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-tokens\r\n\r\n")
        writer.write(b"2\r\nok\r\n0\r\nx-tokens: 17\r\n\r\n")
        await writer.drain()

    async def call() -> bytes:
        async with connection(gateway) as (reader, writer):
            writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\n".encode())
            writer.write(b"transfer-encoding: chunked\r\nte: trailers\r\n\r\n")
            writer.write(b"2\r\nhi\r\n0\r\nx-checksum: abc\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            return await reader.readuntil(b"\r\n\r\n")

    async with raw_server(answer) as raw:
        body = await meet(gateway, raw, call, warm=warm)
    assert body == b"2\r\nok\r\n0\r\nx-tokens: 17\r\n\r\n"
    assert received == b"2\r\nhi\r\n0\r\nx-checksum: abc\r\n\r\n"


@cold_and_warm
async def test_a_caller_that_waits_for_100_continue_gets_it(
    gateway: Gateway, server: ModelServer, warm: bool
) -> None:
    async def call() -> dict[str, Any]:
        async with connection(gateway) as (reader, writer):
            writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n".encode())
            writer.write(b"expect: 100-continue\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(b"hello")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return dict(json.loads(await reader.readexactly(length)))

    answer = await meet(gateway, server, call, warm=warm)
    assert answer["bytes"] == 5


@cold_and_warm
async def test_an_odd_target_is_relayed_as_it_was_sent(gateway: Gateway, warm: bool) -> None:
    odd = "//v1/%2F%2e%2E/a%20b;v=1/../~!$&'()*+,=:@?q=%00%zz&r[]=|&e="

    async def call() -> bytes:
        async with connection(gateway) as (reader, writer):
            writer.write(f"GET {PATH}{odd} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            return head

    received = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received = await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with raw_server(answer) as raw:
        await meet(gateway, raw, call, warm=warm)
    assert received.decode() == f"GET {odd} HTTP/1.1\r\n"


CUT_SHORT = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
}


@cold_and_warm
@pytest.mark.parametrize("how", CUT_SHORT)
async def test_an_answer_that_is_cut_short_never_ends_cleanly(
    gateway: Gateway, how: str, warm: bool
) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CUT_SHORT[how])

    async def call() -> str:
        async with gateway.http.get(f"{gateway.url}{PATH}") as response:
            assert response.status == 200
            try:
                return (await response.read()).decode()
            except aiohttp.ClientPayloadError as error:
                return type(error).__name__

    listen = gateway.settings.listen
    async with raw_server(die) as raw:
        assert await meet(gateway, raw, call, warm=warm) == "ClientPayloadError"
        answer = await http2.request(listen.host, listen.port, path=PATH)
    assert (answer.status, answer.reset is not None) == (200, True)


async def test_a_caller_that_hangs_up_cancels_the_work(
    gateway: Gateway, server: ModelServer
) -> None:
    async def leave() -> None:
        calling = asyncio.create_task(gateway.get(f"{PATH}?wait=1"))
        await until(lambda: server.running == 1, what="the server works")
        calling.cancel()

    await meet(gateway, server, leave, warm=True)
    await until(lambda: server.cancelled == 1, what="the work is cancelled")


BYTES = 300 * 2**20
CHUNK = b"x" * 2**18


def _peak(envoy: int) -> int:
    """The most memory the process ever had, in bytes."""
    status = Path(f"/proc/{envoy}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _envoy(directory: Path) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if line.partition(b"\0")[0].endswith(b"envoy") and str(directory).encode() in line:
                return int(process.name)
    raise AssertionError("no Envoy runs")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_hundreds_of_megabytes_pass_without_staying(
    kube: FakeKube, server: ModelServer, tmp_path: Path
) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n".encode())
        for _ in range(0, BYTES, len(CHUNK)):
            writer.write(CHUNK)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(0, BYTES, len(CHUNK)):
            yield CHUNK

    async with running_gateway(kube, gateway_settings(runtime_dir=tmp_path)) as gateway:
        envoy = _envoy(tmp_path)

        async def upload() -> int:
            async with gateway.http.post(f"{gateway.url}{PATH}", data=body()) as response:
                return int((await response.json())["bytes"])

        async def download() -> int:
            size = 0
            async with gateway.http.get(f"{gateway.url}{PATH}") as response:
                async for chunk in response.content.iter_any():
                    size += len(chunk)
            return size

        before = _peak(envoy)
        assert await meet(gateway, server, upload, warm=False) == BYTES
        async with raw_server(send) as raw:
            await gateway.cluster.ready("iris-production-1", raw)
            await envoy_has(gateway, raw)
            await until(lambda: _only(gateway, raw), what="the other pod is gone")
            assert await download() == BYTES
        assert _peak(envoy) - before < 48 * 2**20


async def _only(gateway: Gateway, server: ModelServer) -> bool:
    async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/clusters") as response:
        text = await response.text()
    lines = [line for line in text.splitlines() if line.startswith("demo/iris-production/")]
    return not any("::127." in line and f"::{server.host}:" not in line for line in lines)


PROCESS = """
import asyncio, os, sys
async def answer(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    if b"die" in head.partition(b"\\r\\n")[0]:
        print("working", flush=True)
        await asyncio.Event().wait()
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
async def main():
    server = await asyncio.start_server(answer, sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_a_pod_killed_at_work_costs_only_what_cannot_be_repeated(
    gateway: Gateway, method: str, status: int
) -> None:
    """The other pod answers what may be repeated; for the rest the caller is told."""
    host, port = fresh_address(), 8080
    pod = ModelServer(host, port, "doomed")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", PROCESS, host, str(port)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        revision = await sleeping(gateway)
        await gateway.cluster.ready(revision, pod)
        await envoy_has(gateway, pod)

        async def call() -> tuple[int, str]:
            url = f"{gateway.url}{PATH}?die"
            async with gateway.http.request(method, url) as response:
                return response.status, await response.text()

        calling = asyncio.create_task(call())
        assert await process.stdout.readline() == b"working\n"
        async with model_server("other") as other:
            await gateway.cluster.ready(revision, pod, other)
            await envoy_has(gateway, other)
            os.kill(process.pid, signal.SIGKILL)
            found, text = await calling
        assert found == status, text
        if status == 502:
            assert json.loads(text)["error"]["reason"] == "UpstreamReset"
            assert other.requests == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
