"""What a user of a laptop sees: time to a usable API, a cold start, a warm request, memory.

``make bench-laptop``. Starts everything as ``beamlit dev`` does, applies the quickstart, measures
through the gateway and directly at the pod in turn.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from tests.bench.quiet import quiet_round, resident_megabytes, tree
from tests.bench.report import Row, publish

from beamlit_operator.api import labels
from beamlit_operator.cli.applying import apply_folder
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.coldstart import ANSWERED, REQUEST_IN, ColdStart, watched
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.images import pull
from beamlit_operator.cli.parts import DevCluster, DevSettings, dev_cluster
from beamlit_operator.cli.processes import Supervisor, adopt_orphans, end_descendants
from beamlit_operator.kube import MODEL_DEPLOYMENTS, PODS, HttpClient

QUICKSTART = Path(__file__).parents[2] / "manifests" / "samples" / "quickstart"
IMAGE = "docker.io/seldonio/mlserver:1.7.1"
WORKSPACE, DEPLOYMENT, MODEL = "default", "iris-production", "iris"
BATCH, ROUNDS, COLD_STARTS = 300, 9, 3


class Caller:
    """One kept-alive connection that asks the same prediction again and again."""

    def __init__(self, address: str, path: str) -> None:
        host, port = address.removeprefix("http://").rsplit(":", 1)
        self._connection = http.client.HTTPConnection(host, int(port), timeout=120)
        self._path = path
        self._body = (QUICKSTART.parent / "requests" / "iris.json").read_bytes()

    def call(self) -> float:
        """Sends one request; returns seconds. Raises when the answer is not a prediction."""
        started = time.perf_counter()
        self._connection.request(
            "POST", self._path, body=self._body, headers={"Content-Type": "application/json"}
        )
        response = self._connection.getresponse()
        answer = response.read()
        elapsed = time.perf_counter() - started
        if response.status != 200 or b'"outputs"' not in answer:
            raise RuntimeError(f"{response.status}: {answer[:500]!r}")
        return elapsed

    def batch(self) -> list[float]:
        return [self.call() for _ in range(BATCH)]


def gateway_caller(cluster: DevCluster) -> Caller:
    path = f"/{WORKSPACE}/models/{MODEL}/v2/models/{MODEL}/infer"
    return Caller(cluster.gateway, path)


async def cold_start(cluster: DevCluster, client: HttpClient) -> ColdStart:
    """Waits until nothing runs, then sends one request and follows what it causes."""
    await until_phase(client, "Idle")
    async with watched(
        client, workspace=WORKSPACE, deployment=DEPLOYMENT, on_step=lambda _: None
    ) as start:
        start.mark(REQUEST_IN)
        await asyncio.to_thread(gateway_caller(cluster).call)
        start.mark(ANSWERED)
    return start


async def until_phase(client: HttpClient, phase: str) -> None:
    async with asyncio.timeout(180):
        while True:
            current = await client.get(MODEL_DEPLOYMENTS, DEPLOYMENT, WORKSPACE)
            status = current.get("status", {})
            if status.get("phase") == phase and (phase != "Idle" or not await pods(client)):
                return
            await asyncio.sleep(0.2)


async def pods(client: HttpClient) -> list[dict]:
    selector = f"{labels.MODEL_DEPLOYMENT}={DEPLOYMENT}"
    return (await client.list(PODS, WORKSPACE, label_selector=selector)).items


async def measure(cluster: DevCluster, supervisor: Supervisor) -> tuple[list[Row], list[str]]:
    rows = [Row("beamlit dev: start to everything usable", cluster.seconds, "s")]
    notes: list[str] = []
    await apply_folder(QUICKSTART, cluster.kubeconfig, workspace=WORKSPACE)
    async with connection(Target(cluster.kubeconfig)) as client:
        starts = [await cold_start(cluster, client) for _ in range(COLD_STARTS)]
        rows += cold_rows(starts)
        (pod,) = await pods(client)
        warm, quiet = await asyncio.to_thread(warm_rows, cluster, pod["status"]["podIP"])
        rows += warm
        if not quiet:
            notes.append("other processes were busy in some rounds; the ratios still hold in turn")
    rows += memory_rows(supervisor)
    return rows, notes


def cold_rows(starts: list[ColdStart]) -> list[Row]:
    """Milliseconds from the request to each step: the median of the cold starts."""
    offsets: dict[str, list[float]] = {}
    for start in starts:
        for step, at in start.seen.items():
            offsets.setdefault(step, []).append((at - start.seen[REQUEST_IN]) * 1000)
    return [
        Row(f"cold start: request to {step}", median(values), "ms")
        for step, values in sorted(offsets.items(), key=lambda entry: median(entry[1]))
        if step != REQUEST_IN
    ]


def warm_rows(cluster: DevCluster, pod_ip: str) -> tuple[list[Row], bool]:
    """Latency through the gateway and at the pod, in turn, one connection each."""
    through = gateway_caller(cluster)
    direct = Caller(f"http://{pod_ip}:8080", f"/v2/models/{MODEL}/infer")
    samples: tuple[list[float], list[float]] = ([], [])
    all_quiet = True
    for round_ in range(ROUNDS + 1):
        for caller, into in zip((through, direct), samples, strict=True):
            batch, quiet = quiet_round(caller.batch, root=os.getpid())
            if round_:  # the first round warms both up
                all_quiet &= quiet
                into.extend(batch)

    def row(what: str, of) -> Row:
        ours, base = (of(values) * 1000 for values in samples)
        return Row(f"warm request, {what}", ours, "ms", "the pod directly", base)

    rows = [row("median", median), row("p99", lambda values: quantiles(values, n=100)[98])]
    rows.append(
        Row("warm request, added by the gateway", rows[0].value - rows[0].baseline_value, "ms")
    )
    return rows, all_quiet


def memory_rows(supervisor: Supervisor) -> list[Row]:
    rows = []
    for name, pid in supervisor.pids.items():
        if name == "store":
            continue
        rows.append(Row(f"memory of the {name} process", resident_megabytes(pid), "MiB"))
        for child in tree(pid)[1:]:
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
            if command.endswith(b"envoy"):
                rows.append(Row("memory of its Envoy", resident_megabytes(child), "MiB"))
    return rows


async def main() -> None:
    adopt_orphans()
    await pull(IMAGE)
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as folder:
        data = Path(folder)
        supervisor = Supervisor(data / "logs")
        settings = DevSettings(data_dir=data, samples=True)
        try:
            async with dev_cluster(settings, supervisor, report=lambda _: None) as cluster:
                rows, notes = await supervisor.while_running(measure(cluster, supervisor))
        finally:
            end_descendants()
    publish("laptop", rows, notes)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except CommandError as error:
        sys.exit(f"bench-laptop: {error}")
