"""What the operator costs: thousands of deployments at once, a restart, and doing nothing.

``make bench-operator``. Two embedded clusters; on one runs the operator. For each size:

| figure      | how                                                                               |
|-------------|-----------------------------------------------------------------------------------|
| pace        | all ModelDeployments are applied at once; until the last one has its children and |
|             | status. Against a bare client that makes the same writes on the other cluster,    |
|             | for which nobody waits and which decides nothing; alternating, medians            |
| writes      | the operator's own count, divided by the deployments                              |
| restart     | the operator is killed and started; until it has looked at everything and is at   |
|             | rest, and the writes that it made for that                                        |
| rest        | writes and processor time with nothing to do; ``--rest 600`` for the ten minutes  |
|             | of the aim. One resync is measured by itself, and counted as often as one comes   |
| memory      | private pages of the operator's process, less those with nothing in the cluster   |

The embedded cluster is one Python process with all of Kubernetes' controllers in it, and it shares
the machine: its processor time is told apart from the operator's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.operatorstage import (
    Cluster,
    Fleet,
    Record,
    Statuses,
    ensure,
    in_parallel,
    put,
    recorded,
    repeat,
)
from tests.bench.quiet import quiet_round
from tests.bench.report import Aim, Row, publish

from beamlit_operator.controllers.listings import LOOKS
from beamlit_operator.kube import DEPLOYMENTS, SERVICES, HttpClient, connect

FIRST = 8
"""Deployments that are there before anything is measured."""

RESYNC = 600.0
"""Seconds between two resyncs of the operator, its default."""

SOON = 45.0
"""Seconds between two resyncs of an operator that is to rest here: a start of thousands of objects
lasts longer than until the first one, and nobody waits ten minutes for the second."""

# The aims: what a row's value, or its ratio to a baseline, is to be.
RATE, WRITES, NONE = Aim(0.5, most=False), Aim(6), Aim(0)
MEMORY, CPU = Aim(40), Aim(1)


@dataclass(frozen=True, slots=True)
class Pace:
    """One fleet brought up: seconds, writes and processor seconds."""

    seconds: float
    writes: int
    model_writes: int
    operator_cpu: float
    cluster_cpu: float


@dataclass
class Side:
    """A cluster and a client of it."""

    cluster: Cluster
    client: HttpClient


@dataclass
class Stage:
    """Both clusters, and how many fleets were made on them."""

    measured: Side
    bare: Side
    fleets: int = 0
    empty: float = 0.0
    """MiB of the operator with nothing in the cluster."""
    present: int = 0
    """Deployments on the operator's cluster."""
    records: list[Record] = field(default_factory=list)

    def fleet(self, count: int) -> Fleet:
        self.fleets += 1
        return Fleet(f"fleet-{self.fleets}", count, self.measured.cluster.store)


@contextlib.asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    clusters = []
    try:
        for name in ("measured", "bare"):
            (folder / name).mkdir()
            clusters.append(Cluster(folder / name))
            clusters[-1].start()
        measured, bare = clusters
        measured.start_operator()
        async with await connect(measured.kubeconfig) as one, await connect(bare.kubeconfig) as two:
            found = Stage(Side(measured, one), Side(bare, two))
            # What comes with the first deployment, such as the client of S3, counts for none.
            await operated(found, FIRST)
            found.empty, found.present = measured.memory(), 0
            yield found
    except BaseException:
        for cluster in clusters:
            print(cluster.logs(), file=sys.stderr)
        raise
    finally:
        for cluster in clusters:
            cluster.stop()


@contextlib.asynccontextmanager
async def following(side: Side, namespace: str) -> AsyncIterator[Statuses]:
    statuses = Statuses(side.client, namespace)
    task = asyncio.create_task(statuses.follow())
    await statuses.begun()
    try:
        yield statuses
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def operated(on: Stage, count: int) -> Pace:
    """A fleet that the operator brings up."""
    fleet, side = on.fleet(count), on.measured
    before = side.cluster.writes()
    await ensure(side.client, fleet.surroundings())
    await in_parallel(put(side.client, each) for each in fleet.models())
    await side.cluster.steady()
    seeded = side.cluster.writes()
    async with following(side, fleet.namespace) as statuses:
        cpu = {name: side.cluster.cpu(name) for name in ("operator", "cluster")}
        began = time.monotonic()
        await in_parallel(put(side.client, each) for each in fleet.deployments())
        ended = await statuses.until(count)
        await side.cluster.steady()
        used = {name: side.cluster.cpu(name) - cpu[name] for name in cpu}
    writes = side.cluster.writes() - seeded
    on.present += count
    await check_children(side.client, fleet)
    on.records = await recorded(side.client, fleet, writes=writes)
    return Pace(ended - began, writes, seeded - before, used["operator"], used["cluster"])


async def check_children(client: HttpClient, fleet: Fleet) -> None:
    """Every deployment has its Deployment and its two Services."""
    for resource, each in ((DEPLOYMENTS, 1), (SERVICES, 2)):
        found = (await client.list(resource, fleet.namespace)).items
        if len(found) != each * fleet.count:
            raise RuntimeError(f"{len(found)} {resource.plural} for {fleet.count} deployments")


async def bare(on: Stage, count: int) -> tuple[Pace, int]:
    """The writes of the last fleet once more, by a client that does nothing else."""
    side, namespace = on.bare, f"fleet-{on.fleets}"
    fleet = Fleet(namespace, count, side.cluster.store)
    await ensure(side.client, fleet.surroundings())
    await in_parallel(put(side.client, each) for each in fleet.models())
    cpu = side.cluster.cpu("cluster")
    async with following(side, namespace):
        began = time.monotonic()
        made = await repeat(side.client, on.records, namespace)
        seconds = time.monotonic() - began
    return Pace(seconds, made, 0, 0.0, side.cluster.cpu("cluster") - cpu), made


async def bring_up(on: Stage, count: int, rounds: int) -> list[Row]:
    with_operator, without = [], []
    for _ in range(rounds):
        with_operator.append(await operated(on, count))
        without.append((await bare(on, count))[0])
        print(
            f"{count:,}: {with_operator[-1].seconds:.1f} s, "
            f"the same writes alone {without[-1].seconds:.1f} s",
            file=sys.stderr,
        )
    of = f"{count:,} deployments"
    seconds = median(each.seconds for each in with_operator)
    alone = median(each.seconds for each in without)
    per = 1000 / count
    return [
        Row(f"{of}: until all have children and status", seconds, "s", "bare client", alone),
        Row(f"{of}: rate", count / seconds, "1/s", "bare client", count / alone, RATE),
        Row(
            f"{of}: writes for each",
            median(e.writes for e in with_operator) / count,
            "requests",
            aim=WRITES,
        ),
        Row(f"{of}: and for its Model", with_operator[-1].model_writes / count, "requests"),
        Row(
            f"{of}: operator's CPU", per * median(e.operator_cpu for e in with_operator), "ms each"
        ),
        Row(
            f"{of}: embedded cluster's CPU",
            per * median(e.cluster_cpu for e in with_operator),
            "ms each",
            "bare client",
            per * median(e.cluster_cpu for e in without),
        ),
    ]


async def restart(on: Stage) -> list[Row]:
    """The operator is killed and started again with everything in place."""
    cluster, of = on.measured.cluster, f"{on.present:,} deployments"
    cluster.kill("operator")
    cluster.operator_flags = (*cluster.operator_flags, "--resync", str(SOON))
    server = cluster.cpu("cluster")
    began = time.monotonic()
    cluster.start_operator()
    ready = time.monotonic() - began
    ended = await cluster.steady(looked_at=2 * on.present)
    used, writes = cluster.cpu("operator"), cluster.writes()
    return [
        Row(f"{of}: restart to ready", ready, "s"),
        Row(f"{of}: restart to steady", ended - began, "s"),
        Row(f"{of}: restart, writes", writes, "requests", aim=NONE),
        Row(f"{of}: restart, operator's CPU", used, "s"),
        Row(f"{of}: restart, embedded cluster's CPU", cluster.cpu("cluster") - server, "s"),
        Row(
            f"{of}: memory of the operator for 1,000",
            (cluster.memory() - on.empty) * 1000 / on.present * 1.048576,
            "MB",
            aim=MEMORY,
        ),
    ]


async def resync(on: Stage) -> float:
    """Processor seconds of one resync: it comes by itself, and looks at a part of all objects."""
    cluster = on.measured.cluster
    before, used = cluster.gauge("beamlit_reconciles_total"), cluster.cpu("operator")
    await cluster.steady(looked_at=int(before) + on.present // LOOKS)
    return cluster.cpu("operator") - used


async def rest(on: Stage, seconds: float) -> list[Row]:
    """Nothing is asked of it."""
    cluster, of = on.measured.cluster, f"{on.present:,} deployments"
    one = await resync(on)
    writes, used, began = cluster.writes(), cluster.cpu("operator"), time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    burnt, made = cluster.cpu("operator") - used, cluster.writes() - writes
    # A resync began just before.
    calm = max(0.0, burnt - elapsed // SOON * one) / elapsed
    return [
        Row(f"{of}: writes in {elapsed:.0f} s at rest", made, "requests", aim=NONE),
        Row(f"{of}: CPU at rest", 100 * calm, "% of a core", aim=CPU),
        Row(f"{of}: one resync, operator's CPU", one, "s"),
        Row(
            f"{of}: CPU at rest with a resync every {RESYNC:.0f} s",
            100 * (calm + one / RESYNC),
            "% of a core",
            aim=CPU,
        ),
        Row(
            f"{of}: memory of the operator for 1,000, after that",
            (cluster.memory() - on.empty) * 1000 / on.present * 1.048576,
            "MB",
            aim=MEMORY,
        ),
    ]


async def at_size(count: int, rounds: int, seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as folder:
        async with stage(Path(folder)) as on:
            rows = await bring_up(on, count, rounds)
            rows += await restart(on)
            rows += await rest(on, seconds)
            return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.operator")
    parser.add_argument("--deployments", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--rounds", type=int, default=0, help="default: 3 up to 1,000, else 1")
    parser.add_argument("--rest", type=float, default=20.0, metavar="SECONDS")
    given = parser.parse_args()
    rows: list[Row] = []
    notes: list[str] = []
    for count in given.deployments:
        rounds = given.rounds or (3 if count <= 1000 else 1)
        found, quiet = quiet_round(
            lambda count=count, rounds=rounds: asyncio.run(at_size(count, rounds, given.rest)),
            root=os.getpid(),
            tries=1,
        )
        rows += found
        if not quiet:
            notes.append(f"other processes were busy while {count:,} were measured")
    publish("operator", rows, notes)


if __name__ == "__main__":
    main()
