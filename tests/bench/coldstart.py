"""What the gateway adds to a cold start, and what a change costs, with many deployments configured.

``make bench-coldstart``. The API server and the gateway are real; the pods' own start is left out:
as soon as a deployment is scaled, this program says that its pod is ready.

| figure                     | from                        | to                          |
|----------------------------|-----------------------------|-----------------------------|
| request in to scale call   | the caller sends            | a watch shows the scale     |
| pod ready to first byte    | readiness is sent to the API| the caller has the answer   |
| endpoint change to Envoy   | a change is sent to the API | the new pod answers         |
| new deployment to routed   | its status is sent          | it answers                  |

So each holds the time of one write to the API server, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import aiohttp
from tests.bench.gatewaystage import RunningGateway, api_server, gateway, model_server
from tests.bench.inventory import (
    Entry,
    Inventory,
    deployment,
    endpoints,
    model_deployment,
    slice_name,
    status,
)
from tests.bench.quiet import cpu_seconds, quiet_round, resident_megabytes
from tests.bench.report import Row, publish

from beamlit_operator.kube import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    HttpClient,
    connect,
)

SIZES = (10, 1000, 5000)
AWAKE = 5
WAKES = 100
STORM, CALLERS = 100, 10
POD_START = 1.0
"""Seconds that each pod of the storm takes to start."""
CHANGES = 100
ALONE, TOGETHER = 6, 50
"""New deployments: one after the other at rest, and at once."""
REST = 2.5
"""Seconds after which the gateway takes the next new one at once: longer than its pace."""

Upstream = tuple[str, int]


@dataclass
class Stage:
    """A gateway, a client of its API server, and who hears of scaled deployments."""

    running: RunningGateway
    kube: HttpClient
    http: aiohttp.ClientSession
    pods: tuple[Upstream, Upstream]
    scaled: dict[str, asyncio.Future[float]] = field(default_factory=dict)

    def url(self, entry: Entry) -> str:
        return f"{self.running.address}{entry.path}/v2/models/model/infer"

    def expect_scale(self, entry: Entry) -> asyncio.Future[float]:
        """Resolves with the time at which a watch showed that the deployment was scaled up."""
        key = f"{entry.workspace}/{entry.revision}"
        self.scaled[key] = asyncio.get_running_loop().create_future()
        return self.scaled[key]

    async def follow(self, version: str) -> None:
        async for event in self.kube.watch(DEPLOYMENTS, resource_version=version):
            if event.type == "MODIFIED" and event.object["spec"].get("replicas"):
                metadata = event.object["metadata"]
                waiting = self.scaled.pop(f"{metadata['namespace']}/{metadata['name']}", None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(time.perf_counter())

    async def set_pods(self, entry: Entry, pods: Sequence[Upstream]) -> float:
        """Says which pods are ready; answers when the API was told."""
        wanted = endpoints(entry, pods)
        change = {"ports": wanted["ports"], "endpoints": wanted["endpoints"]}
        began = time.perf_counter()
        await self.kube.merge_patch(ENDPOINT_SLICES, slice_name(entry), change, entry.workspace)
        return began

    async def answer(self, entry: Entry) -> float:
        """Calls a deployment; answers when the first byte was there."""
        async with self.http.get(self.url(entry)) as response:
            at = time.perf_counter()
            body = await response.text()
            if response.status != 200:
                raise RuntimeError(f"{entry.path}: {response.status}: {body}")
            return at


@contextlib.asynccontextmanager
async def stage(running: RunningGateway, pods: tuple[Upstream, Upstream]) -> AsyncIterator[Stage]:
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        await connect(running.kubeconfig) as kube,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
    ):
        found = Stage(running, kube, http, pods)
        version = (await kube.list(DEPLOYMENTS)).resource_version
        following = asyncio.create_task(found.follow(version))
        try:
            yield found
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def wakes(on: Stage, entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Seconds from request to scale, and from ready to first byte, one deployment at a time."""
    to_scale, to_answer = [], []
    for entry in entries:
        scaled = on.expect_scale(entry)
        asked = time.perf_counter()
        answer = asyncio.create_task(on.answer(entry))
        to_scale.append(await asyncio.wait_for(scaled, 30) - asked)
        ready = await on.set_pods(entry, on.pods[:1])
        to_answer.append(await answer - ready)
    return to_scale, to_answer


async def storm(on: Stage, entries: Sequence[Entry]) -> tuple[list[float], int]:
    """Many deployments woken at once: seconds from ready to each caller's answer; and failures."""
    ready: dict[Entry, float] = {}

    async def start(entry: Entry, scaled: asyncio.Future[float]) -> None:
        await scaled
        await asyncio.sleep(POD_START)
        ready[entry] = await on.set_pods(entry, on.pods[:1])

    async def call(entry: Entry) -> tuple[Entry, float]:
        return entry, await on.answer(entry)

    starting = [asyncio.create_task(start(e, on.expect_scale(e))) for e in entries]
    calls = [asyncio.create_task(call(e)) for e in entries for _ in range(CALLERS)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*starting), 60)
    answered = [a for a in answers if not isinstance(a, BaseException)]
    return [at - ready[entry] for entry, at in answered], len(answers) - len(answered)


async def changes(on: Stage, entry: Entry) -> tuple[list[float], float]:
    """Seconds from an endpoint change to the new pod's answer; agent's CPU seconds by change."""
    await on.set_pods(entry, on.pods[:1])
    delays = []
    for number in range(CHANGES):
        pod = on.pods[(number + 1) % 2]
        began = await on.set_pods(entry, [pod])
        async with asyncio.timeout(30):
            while True:
                async with on.http.get(on.url(entry)) as response:
                    at = time.perf_counter()
                    if (await response.read()).endswith(str(pod[1]).encode()):
                        break
        delays.append(at - began)
    # The CPU apart: the polling above is load that is reported, too.
    before = cpu_seconds([on.running.pid])
    for number in range(CHANGES):
        await on.set_pods(entry, [on.pods[number % 2]])
        await asyncio.sleep(0.01)
    return delays, (cpu_seconds([on.running.pid]) - before) / CHANGES


async def added(on: Stage, entries: Sequence[Entry]) -> float:
    """Seconds from the statuses of these new deployments to the gateway serving them all."""
    made = []
    for entry in entries:
        await on.kube.create(DEPLOYMENTS, deployment(entry, replicas=1), entry.workspace)
        await on.kube.create(ENDPOINT_SLICES, endpoints(entry, on.pods[:1]), entry.workspace)
        made.append(
            await on.kube.create(MODEL_DEPLOYMENTS, model_deployment(entry), entry.workspace)
        )
    await asyncio.sleep(REST)

    async def served(entry: Entry) -> None:
        while True:
            async with on.http.get(on.url(entry)) as response:
                await response.read()
                if response.status == 200:
                    return
            await asyncio.sleep(0.005)

    began = time.perf_counter()
    for entry, each in zip(entries, made, strict=True):
        told = {**each, "status": status(entry)}
        await on.kube.update(MODEL_DEPLOYMENTS, told, subresource="status")
    async with asyncio.timeout(60):
        await asyncio.gather(*map(served, entries))
    return time.perf_counter() - began


@contextlib.contextmanager
def two_pods(folder: Path) -> Iterator[tuple[Upstream, Upstream]]:
    """Two pods that answer with their port, so that one can tell who did."""
    with contextlib.ExitStack() as stack:
        found = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            found.append(stack.enter_context(model_server(folder / name, answer="{port}")))
        yield found[0], found[1]


def spread(what: str, seconds: Sequence[float]) -> list[Row]:
    cuts = quantiles(seconds, n=100)
    return [
        Row(f"{what}, p50", median(seconds) * 1000, "ms"),
        Row(f"{what}, p99", cuts[98] * 1000, "ms"),
    ]


@dataclass(frozen=True)
class SizeResult:
    """What was measured with so many deployments."""

    rows: list[Row]
    agent_ms: float


async def measure(running: RunningGateway, pods: tuple[Upstream, Upstream]) -> SizeResult:
    inventory = running.inventory
    size = f"{inventory.count:,} deployments"
    largest = inventory.count == SIZES[-1]
    async with stage(running, pods) as on:
        rows = []
        if largest:
            rows += [
                Row(f"{size}: gateway start to ready", running.ready_seconds, "s"),
                Row(f"{size}: memory of the agent", resident_megabytes(running.pid), "MiB"),
                Row(f"{size}: memory of its Envoy", resident_megabytes(running.envoy_pid), "MiB"),
            ]
        if inventory.count > WAKES + STORM + AWAKE:
            sleeping = [inventory[AWAKE + n] for n in range(WAKES + STORM)]
            to_scale, to_answer = await wakes(on, sleeping[:WAKES])
            rows += spread(f"{size}: request in to scale call sent", to_scale)
            rows += spread(f"{size}: pod ready to first byte", to_answer)
            overheads, failed = await storm(on, sleeping[WAKES:])
            what = f"{size}: {STORM} woken at once by {CALLERS} callers each"
            rows += spread(f"{what}, pod ready to answer", overheads)
            rows.append(Row(f"{what}, failed", failed, "requests"))
        delays, agent = await changes(on, inventory[0])
        rows += spread(f"{size}: endpoint change to Envoy", delays)
        fresh = [inventory[inventory.count + n] for n in range(ALONE + TOGETHER)]
        alone = [await added(on, [entry]) for entry in fresh[:ALONE]]
        rows.append(Row(f"{size}: a new deployment to routed", median(alone) * 1000, "ms"))
        together = await added(on, fresh[ALONE:])
        what = f"{size}: {TOGETHER} new deployments at once to routed"
        rows.append(Row(what, together * 1000, "ms"))
    return SizeResult(rows, agent * 1000)


def at_size(count: int, pods: tuple[Upstream, Upstream]) -> tuple[SizeResult, bool]:
    inventory = Inventory(count, AWAKE)
    with (
        api_server(inventory, pods[0]) as kubeconfig,
        gateway(kubeconfig, inventory, pinned=False) as running,
    ):
        # Everything that works here is part of the measurement; only strangers disturb it.
        return quiet_round(lambda: asyncio.run(measure(running, pods)), root=os.getpid(), tries=1)


def main() -> None:
    rows: list[Row] = []
    cpu: list[float] = []
    notes = ["each figure holds the time of one write to the embedded API server"]
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as name, two_pods(Path(name)) as pods:
        for count in SIZES:
            result, quiet = at_size(count, pods)
            rows += result.rows
            cpu.append(result.agent_ms)
            if not quiet:
                notes.append(f"other processes were busy while {count:,} were measured")
    for count, value in zip(SIZES, cpu, strict=True):
        base = (f"{SIZES[0]} deployments", cpu[0]) if count != SIZES[0] else (None, None)
        rows.append(
            Row(f"{count:,} deployments: agent's CPU by endpoint change", value, "ms", *base)
        )
    publish("coldstart", rows, notes)


if __name__ == "__main__":
    main()
