"""Warm requests through the gateway, beside the same Envoy with one route and other proxies.

``make bench-gateway``. One proxy works at a time, on a core of its own; callers and pods share the
other. Every round asks all in turn. Then streams: how long a chunk is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import aiohttp
from tests.bench import load
from tests.bench.gatewaystage import RunningGateway, api_server, gateway, model_server
from tests.bench.inventory import Inventory, endpoints, slice_name
from tests.bench.proxies import baselines
from tests.bench.quiet import cpu_seconds, quiet_round
from tests.bench.report import Row, publish

from beamlit_operator.kube import ENDPOINT_SLICES, SERVICE_ACCOUNTS, connect

INVENTORY = Inventory(count=1000, awake=200)
ROUNDS, SECONDS = 7, 3
CHUNKS, SPACED = 300, 0.01
OURS = "the gateway"
SPREAD = f"the gateway, over {INVENTORY.awake} deployments"
STATIC = "Envoy, one static route"
GUARDED = "the gateway, with authentication"
SHOWN = "the gateway, sent the same token"


@dataclass(frozen=True, slots=True)
class Target:
    """What is loaded: its address, what is asked of it, and the process that does the work."""

    address: str
    script: Path
    pid: int


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one target; ``per_core`` is requests by second of the processor it used."""

    load: load.Measured
    per_core: float


def one_round(target: Target, seconds: int) -> Round:
    before = cpu_seconds([target.pid])
    measured = load.run(target.address, target.script, seconds=seconds)
    return Round(measured, measured.requests / (cpu_seconds([target.pid]) - before))


def throughput(targets: dict[str, Target], *, rounds: int) -> tuple[dict[str, list[Round]], bool]:
    """What each target carried in every round that counts, and whether all rounds were quiet."""
    found: dict[str, list[Round]] = {name: [] for name in targets}
    all_quiet = True
    for number in range(rounds + 1):
        # Whoever comes first in one round comes last in the next.
        for name in sorted(targets, reverse=bool(number % 2)):
            work = partial(one_round, targets[name], SECONDS if number else 1)
            measured, quiet = quiet_round(work, root=os.getpid())
            if number:  # the first round opens connections
                found[name].append(measured)
                all_quiet &= quiet
    return found, all_quiet


def compared(found: dict[str, list[Round]]) -> list[Row]:
    """Medians, each beside its baseline."""

    def row(ours: str, base: str, what: str, of: Callable[[Round], float], unit: str) -> Row:
        value, other = (median(of(each) for each in found[name]) for name in (ours, base))
        return Row(f"{ours}: {what}", value, unit, base, other)

    rows = []
    for ours, base in (
        *((OURS, name) for name in found if name not in (OURS, SPREAD, GUARDED, SHOWN)),
        (SPREAD, STATIC),
        (GUARDED, SHOWN),
    ):
        rows.append(row(ours, base, "requests", lambda r: r.load.per_second, "/s"))
        rows.append(row(ours, base, "requests by its own CPU", lambda r: r.per_core, "/core-s"))
        rows.append(row(ours, base, "median", lambda r: r.load.p50, "ms"))
        rows.append(row(ours, base, "p99", lambda r: r.load.p99, "ms"))
    return rows


async def streams(running: RunningGateway) -> list[Row]:
    """How long a chunk of a stream is on its way: sent by the pod, read by the caller."""
    told: list[list[float]] = []
    """When each chunk of each stream was sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await tell(writer)
        writer.close()

    async def tell(writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent: list[float] = []
        told.append(sent)
        for _ in range(CHUNKS):
            await asyncio.sleep(SPACED)
            sent.append(time.perf_counter())
            writer.write(b"9\r\ndata: x\n\n\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    entry = INVENTORY[0]
    async with await connect(running.kubeconfig) as client:
        current = await client.get(ENDPOINT_SLICES, slice_name(entry), entry.workspace)
        fresh = endpoints(entry, [("127.0.0.1", port)])
        await client.update(ENDPOINT_SLICES, {**current, **fresh, "metadata": current["metadata"]})

    async def delays(url: str) -> list[float]:
        found: list[float] = []
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            sent = told[-1]
            async for chunk in response.content.iter_any():
                now = time.perf_counter()
                found += [(now - sent[len(found) + n]) * 1000 for n in range(chunk.count(b"data"))]
        if len(found) != CHUNKS:
            raise RuntimeError(f"{url}: {len(found)} of {CHUNKS} chunks arrived")
        return found

    through: list[float] = []
    direct: list[float] = []
    async with server:
        url = f"{running.address}{entry.path}/events"
        await until_streams(url)
        for _ in range(3):
            through += await delays(url)
            direct += await delays(f"http://127.0.0.1:{port}/events")
    return [
        Row(f"chunk of a stream, sent to read, {what}", of(through), "ms", "directly", of(direct))
        for what, of in (("median", median), ("p99", lambda v: quantiles(v, n=100)[98]))
    ]


async def until_streams(url: str) -> None:
    """Until the changed endpoint is Envoy's."""
    async with asyncio.timeout(10), aiohttp.ClientSession() as http:
        while True:
            async with http.get(url) as response:
                if response.content_type == "text/event-stream":
                    return
                await response.read()


def measure(folder: Path, *, rounds: int) -> tuple[list[Row], list[str]]:
    notes = [
        f"{load.CONNECTIONS} connections, one deployment called of {INVENTORY.count} configured, "
        f"{INVENTORY.awake} awake; one Envoy thread on one core",
        f"medians of {rounds} alternating rounds of {SECONDS} s",
    ]
    one = script_of(folder, "one", [INVENTORY[7].path])
    many = script_of(folder, "many", [INVENTORY[n].path for n in range(INVENTORY.awake)])
    with (
        model_server(folder) as upstream,
        baselines(folder, upstream) as others,
        api_server(INVENTORY, upstream) as kubeconfig,
        gateway(kubeconfig, INVENTORY) as running,
        gateway(kubeconfig, INVENTORY, authentication=True) as guarded,
    ):
        token = asyncio.run(caller(kubeconfig))
        known = script_of(folder, "known", [INVENTORY[7].path], token=token)
        targets = {
            OURS: Target(running.address, one, running.envoy_pid),
            SPREAD: Target(running.address, many, running.envoy_pid),
            GUARDED: Target(guarded.address, known, guarded.envoy_pid),
            SHOWN: Target(running.address, known, running.envoy_pid),
        }
        targets |= {name: Target(address, one, pid) for name, (address, pid) in others.items()}
        found, quiet = throughput(targets, rounds=rounds)
        rows = compared(found) + asyncio.run(streams(running))
    missing = sorted({"nginx", "HAProxy"} - others.keys())
    notes.extend(f"{name} is not installed and was not measured" for name in missing)
    if not quiet:
        notes.append("other processes were busy in some rounds; the ratios still hold in turn")
    return rows, notes


def script_of(folder: Path, name: str, paths: Sequence[str], *, token: str = "") -> Path:
    wanted = [f"{path}/v2/models/model/infer" for path in paths]
    return load.script(folder, name, wanted, token=token)


async def caller(kubeconfig: Path) -> str:
    """A token of somebody who may call: here whoever has a token may."""
    workspace, name = INVENTORY[7].workspace, "caller"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    async with await connect(kubeconfig) as client:
        await client.create(SERVICE_ACCOUNTS, account, workspace)
        asked = {"spec": {"audiences": ["beamlit"], "expirationSeconds": 7200}}
        answer = await client.create(
            SERVICE_ACCOUNTS, asked, workspace, name=name, subresource="token"
        )
    return str(answer["status"]["token"])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as name:
        rows, notes = measure(Path(name), rounds=rounds)
    publish("gateway", rows, notes)


if __name__ == "__main__":
    try:
        main()
    except load.NoLoadGeneratorError as error:
        sys.exit(f"bench-gateway: {error}")
