"""How fast the embedded API server is, empty and with 10,000 objects in it.

``make bench-devcluster``. Two whole clusters run side by side, one empty and one full; every round
asks first one, then the other. Rates are per core of the server: requests by the processor seconds
it used for them, so that neither the client's work nor a busy machine counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import yaml
from tests.bench.quiet import cpu_seconds, quiet_round, resident_megabytes
from tests.bench.report import Row, publish

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import CONFIG_MAPS

FULL = 10_000
ROUNDS = 5
BATCH = 1000
CONNECTIONS = 8
WATCHERS = 100
WRITES = 50
"""Changes per round that every watcher sees, one after the other."""
SPACED = 0.02
"""Seconds between them."""
PATH = CONFIG_MAPS.path("default")
APPLY = "application/apply-patch+yaml"


def config_map(name: str, value: str) -> dict[str, Any]:
    """An object of the size of a small one: about 400 bytes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app.kubernetes.io/name": "bench", "app.kubernetes.io/part-of": "beamlit"},
        },
        "data": {"value": value, **{f"key-{n}": "a value of some length" for n in range(5)}},
    }


class Connection:
    """One kept-alive HTTPS connection: as little client as possible."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._server.port, ssl=self._server.context, limit=2**22
        )
        return self

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "") -> None:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer "
            f"{self._server.token}\r\nContent-Type: {kind or 'application/json'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        """Sends a request and returns the body of its success."""
        self.send(method, path, body, kind)
        head = await self.head()
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path}: {head!r} {answer[:500]!r}")
        return answer

    async def chunk(self) -> bytes:
        """Some bytes of a stream."""
        return await self._reader.read(2**20)

    def close(self) -> None:
        self._writer.close()


@dataclass
class Server:
    """A running cluster."""

    pid: int
    port: int
    token: str
    context: ssl.SSLContext
    made: int = 0
    """Objects created so far: names are never used twice."""

    def names(self, count: int) -> list[str]:
        first, self.made = self.made, self.made + count
        return [f"bench-{n}" for n in range(first, self.made)]

    def cpu(self) -> float:
        return cpu_seconds([self.pid])


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "beamlit_operator.devcluster", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("ready:"):
                raise RuntimeError("the embedded cluster did not start")
            config = yaml.safe_load((folder / "kubeconfig").read_text())
            address = config["clusters"][0]["cluster"]["server"]
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            token = config["users"][0]["user"]["token"]
            yield Server(process.pid, int(address.rsplit(":", 1)[1]), token, context)
        finally:
            process.terminate()
            process.wait(30)


async def spread(server: Server, requests: Sequence[tuple[str, str, bytes, str]]) -> None:
    """Sends the requests over some connections at a time."""
    left = iter(requests)
    connections = [await Connection(server).open() for _ in range(CONNECTIONS)]

    async def work(connection: Connection) -> None:
        for request in left:
            await connection.ask(*request)

    await asyncio.gather(*map(work, connections))
    for connection in connections:
        connection.close()


def creations(server: Server, count: int) -> list[tuple[str, str, bytes, str]]:
    names = server.names(count)
    return [("POST", PATH, json.dumps(config_map(n, "1")).encode(), "") for n in names]


def applications(stamp: str) -> list[tuple[str, str, bytes, str]]:
    """Server-side applies that change one field of each of 100 objects, in turn."""
    query = "?fieldManager=bench&force=true"
    return [
        (
            "PATCH",
            f"{PATH}/applied-{n % 100}{query}",
            json.dumps(config_map(f"applied-{n % 100}", f"{stamp}-{n}")).encode(),
            APPLY,
        )
        for n in range(BATCH)
    ]


@dataclass
class Measured:
    """All rounds of one server."""

    creates: list[float] = field(default_factory=list)
    applies: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    local_creates: list[float] = field(default_factory=list)
    local_applies: list[float] = field(default_factory=list)
    quiet: bool = True


def timed(work: Callable[[], Any], cpu: Callable[[], float]) -> tuple[float, float]:
    """Processor seconds and wall seconds of ``work``."""
    before, started = cpu(), time.perf_counter()
    work()
    return cpu() - before, time.perf_counter() - started


def round_over_https(server: Server, into: Measured, number: int) -> None:
    """One round, again while others disturb it; it counts from the second on."""
    found, quiet = quiet_round(lambda: one_round(server, str(number)), root=os.getpid())
    if number:
        into.quiet &= quiet
        into.creates.append(found.creates)
        into.applies.append(found.applies)
        into.wall.append(found.wall)
        into.deliveries.append(found.deliveries)
        into.delays.extend(found.delays)


@dataclass(frozen=True)
class Round:
    """Rates per second of the server's core (``wall``: of the clock), and seconds to arrive."""

    creates: float
    applies: float
    wall: float
    deliveries: float
    delays: list[float]


def one_round(server: Server, stamp: str) -> Round:
    requests = creations(server, BATCH)
    made, _ = timed(lambda: asyncio.run(spread(server, requests)), server.cpu)
    # What a round adds is taken away: the store is as large in every round.
    names = [f"bench-{n}" for n in range(server.made - BATCH, server.made)]
    requests = applications(f"{stamp}-{server.made}")
    applied, wall = timed(lambda: asyncio.run(spread(server, requests)), server.cpu)
    asyncio.run(spread(server, [("DELETE", f"{PATH}/{name}", b"", "") for name in names]))
    used, delays = asyncio.run(watched(server))
    return Round(BATCH / made, BATCH / applied, BATCH / wall, WATCHERS * WRITES / used, delays)


async def watched(server: Server) -> tuple[float, list[float]]:
    """Processor seconds of the server, and seconds from sending a change to each arrival."""
    writer = await Connection(server).open()
    body = json.dumps(config_map("watched", "start")).encode()
    made = json.loads(
        await writer.ask("PATCH", f"{PATH}/watched?fieldManager=bench&force=true", body, APPLY)
    )
    version = made["metadata"]["resourceVersion"]
    watchers = [await Connection(server).open() for _ in range(WATCHERS)]
    for watcher in watchers:
        watcher.send("GET", f"{PATH}?watch=true&resourceVersion={version}")
        await watcher.head()
    sent: list[float] = []
    delays: list[float] = []

    async def follow(watcher: Connection) -> None:
        seen = 0
        while seen < WRITES:
            arrived = (await watcher.chunk()).count(b'"type":"MODIFIED"')
            now = time.perf_counter()
            for _ in range(arrived):
                delays.append(now - sent[seen])
                seen += 1

    following = [asyncio.create_task(follow(watcher)) for watcher in watchers]
    before = server.cpu()
    for number in range(WRITES):
        patch = json.dumps({"data": {"value": f"{version}-{number}"}}).encode()
        sent.append(time.perf_counter())
        await writer.ask("PATCH", f"{PATH}/watched", patch, "application/merge-patch+json")
        await asyncio.sleep(SPACED)
    async with asyncio.timeout(30):
        await asyncio.gather(*following)
    used = server.cpu() - before
    for connection in (writer, *watchers):
        connection.close()
    return used, delays


async def local_round(server: ApiServer, into: Measured, number: int) -> None:
    """The same in this process, without HTTP."""
    client, names = server.client, [f"local-{number}-{n}" for n in range(BATCH)]

    async def rate(work: Callable[[], Awaitable[None]]) -> float:
        before = time.process_time()
        await work()
        return BATCH / (time.process_time() - before)

    async def create() -> None:
        for name in names:
            await client.create(CONFIG_MAPS, config_map(name, "1"), "default")

    async def apply() -> None:
        for n in range(BATCH):
            body = config_map(f"applied-{n % 100}", f"{number}-{n}")
            await client.apply(CONFIG_MAPS, body, field_manager="bench")

    created, applied = await rate(create), await rate(apply)
    for name in names:
        await client.delete(CONFIG_MAPS, name, "default")
    if number:
        into.local_creates.append(created)
        into.local_applies.append(applied)


async def in_process(folder: Path, empty: Measured, full: Measured) -> None:
    servers = [ApiServer(folder / "local-empty"), ApiServer(folder / "local-full")]
    for server in servers:
        await server.start()
    for n in range(FULL):
        await servers[1].client.create(CONFIG_MAPS, config_map(f"full-{n}", "1"), "default")
    for number in range(ROUNDS + 1):
        for server, into in zip(servers, (empty, full), strict=True):
            await local_round(server, into, number)
    for server in servers:
        await server.stop()


def rows_of(empty: Measured, full: Measured, bytes_per_object: float) -> list[Row]:
    def pair(what: str, values: Callable[[Measured], float], unit: str) -> list[Row]:
        base = values(empty)
        return [
            Row(f"{what}, 0 stored", base, unit),
            Row(f"{what}, {FULL:,} stored", values(full), unit, "0 stored", base),
        ]

    def p99(found: Measured) -> float:
        return quantiles(found.delays, n=100)[98] * 1000

    per_core = "/s of a core"
    return [
        *pair("creates in process", lambda m: median(m.local_creates), per_core),
        *pair("applies in process", lambda m: median(m.local_applies), per_core),
        *pair("creates over HTTPS", lambda m: median(m.creates), per_core),
        *pair("applies over HTTPS", lambda m: median(m.applies), per_core),
        *pair("applies over HTTPS, wall clock", lambda m: median(m.wall), "/s"),
        *pair(f"deliveries to {WATCHERS} watchers", lambda m: median(m.deliveries), per_core),
        *pair("delivery, median", lambda m: median(m.delays) * 1000, "ms"),
        *pair("delivery, p99", p99, "ms"),
        Row(
            "memory per stored object",
            bytes_per_object,
            "bytes",
            "its JSON as sent",
            len(json.dumps(config_map("bench-1000", "1"))),
        ),
    ]


def main() -> None:
    empty, full = Measured(), Measured()
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as name:
        folder = Path(name)
        asyncio.run(in_process(folder, empty, full))
        with (
            running_server(folder / "empty") as nothing,
            running_server(folder / "full") as plenty,
        ):
            before = resident_megabytes(plenty.pid)
            asyncio.run(spread(plenty, creations(plenty, FULL)))
            held = (resident_megabytes(plenty.pid) - before) * 2**20 / FULL
            for number in range(ROUNDS + 1):
                for server, into in ((nothing, empty), (plenty, full)):
                    round_over_https(server, into, number)
    notes = [f"{BATCH} requests a round over {CONNECTIONS} connections, {ROUNDS} rounds, medians"]
    if not (empty.quiet and full.quiet):
        notes.append("other processes were busy in some rounds; rates of a core still hold")
    publish("devcluster", rows_of(empty, full, held), notes)


if __name__ == "__main__":
    main()
