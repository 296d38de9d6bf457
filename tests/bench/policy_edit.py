"""One edit of a Policy that holds for thousands of deployments: how long, and how many writes.

Part of ``make bench-policy``. The embedded cluster and the operator as processes; idle deployments
of a few Models that share one origin, in many Environments, of which most carry the Policy.
Measured from the edit until the last deployment has its new status. ``--deployments N`` for another
number.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.quiet import cpu_seconds, tree
from tests.bench.report import Row, publish
from tests.support.stack import ACCESS_KEY, ROOT, SECRET_KEY, SERVER, Stack

from beamlit_operator.kube import DEPLOYMENTS, MODEL_DEPLOYMENTS, HttpClient, Json, connect
from beamlit_operator.kube.client import KubeClient
from beamlit_operator.kube.resources import Resource, resource_of

API = "beamlit.com/v1alpha1"
WORKSPACE = "default"
PER_ENVIRONMENT = 100
"""Deployments in one Environment: as many as there are Models."""
AT_ONCE = 16
FREE = 0.1
"""The part of the deployments that is in Environments without the Policy."""
PATIENCE = 900.0
"""Seconds that seeding may take."""

US, EU = (
    {"type": "location", "locations": [{"type": kind, "name": name}]}
    for kind, name in (("country", "us"), ("continent", "eu"))
)


class Bench(Stack):
    """The embedded cluster and the operator; no gateway, because nothing runs."""

    def start(self) -> None:
        self._store.start()
        host, port = self._store.get_host_and_port()
        self.store = f"http://{host}:{port}"
        self.s3().create_bucket(Bucket="models")
        self.s3().upload_file(str(SERVER), "models", "tiny/server.py")
        self._spawn("cluster", "devcluster", "--data-dir", str(self.folder / "cluster"))
        self.until(self.kubeconfig.exists, "the API server")
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            self.kubectl("apply", "-f", str(crd))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self.start_operator()

    def cpu(self, name: str) -> float:
        """Seconds of processor time a part has used."""
        return cpu_seconds(tree(self._processes[name].pid))

    def writes(self) -> int:
        """Write requests that the operator has made."""
        url = f"http://127.0.0.1:{self._operator_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            text = response.read().decode()
        found = re.search(r"^beamlit_api_writes ([\d.e+]+)", text, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))


@dataclass
class Watched:
    """What happened to the objects of one kind since it began to look."""

    client: KubeClient
    resource: Resource
    changes: Counter[str] = field(default_factory=Counter)
    latest: dict[str, Json] = field(default_factory=dict)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        listing = await self.client.list(self.resource, WORKSPACE)
        self.latest = {each["metadata"]["name"]: each for each in listing.items}
        self.heard.set()
        async for event in self.client.watch(
            self.resource,
            WORKSPACE,
            resource_version=listing.resource_version,
            timeout_seconds=3600,
        ):
            if event.type in ("ADDED", "MODIFIED"):
                name = event.object["metadata"]["name"]
                self.changes[name] += 1
                self.latest[name] = event.object
                self.heard.set()

    async def until(self, good: str, count: int, *, within: float) -> float:
        """Waits until so many objects are held to ``good``; the monotonic time when they were."""
        async with asyncio.timeout(within):
            while True:
                self.heard.clear()
                if sum(allowed(each) == good for each in self.latest.values()) >= count:
                    return time.monotonic()
                await self.heard.wait()
                # Not after every one of thousands of events.
                await asyncio.sleep(0.05)


def allowed(deployment: Json) -> str:
    """What a deployment's status says that it is held to; empty when it has none yet."""
    status = deployment.get("status") or {}
    if not status.get("conditions") or status.get("phase") != "Idle":
        return ""
    location = (status.get("effectivePolicy") or {}).get("location") or {}
    return " ".join(location.get("allowed") or ["anything"])


async def in_parallel(work: Iterable[Awaitable[object]]) -> None:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: Awaitable[object]) -> None:
        async with free:
            await each

    await asyncio.gather(*(one(each) for each in work))


async def put(client: HttpClient, kind: str, name: str, spec: Json, **top: object) -> None:
    version = "v1" if kind == "Secret" else API
    body: Json = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **top}
    if spec:
        body["spec"] = spec
    body["metadata"]["namespace"] = WORKSPACE
    await client.apply(resource_of(version, kind), body, field_manager="bench")


async def seed(client: HttpClient, bench: Bench, count: int) -> int:
    """Makes the deployments; returns how many of them are under the Policy."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    await put(client, "Secret", "store", {}, stringData=keys, type="Opaque")
    await put(client, "Policy", "where", US)
    environments = -(-count // PER_ENVIRONMENT)
    free = max(1, round(environments * FREE))
    s3 = {
        "uri": "s3://models/tiny",
        "endpoint": bench.store,
        "region": "us-east-1",
        "credentialsSecretRef": {"name": "store"},
    }
    runtime = {"image": "beamlit.dev/python:3", "command": ["python", "/mnt/models/server.py"]}
    names = [f"model-{i}" for i in range(min(count, PER_ENVIRONMENT))]
    await in_parallel(put(client, "Model", name, {"origin": {"s3": s3}}) for name in names)
    policies = [{"name": "where", "mandatory": True}]
    await in_parallel(
        put(client, "Environment", f"e{i}", {"policies": policies if i >= free else []})
        for i in range(environments)
    )
    await in_parallel(
        put(
            client,
            "ModelDeployment",
            f"{names[i % PER_ENVIRONMENT]}-e{i // PER_ENVIRONMENT}",
            {
                "model": names[i % PER_ENVIRONMENT],
                "environment": f"e{i // PER_ENVIRONMENT}",
                "runtime": runtime,
            },
        )
        for i in range(count)
    )
    return count - min(count, free * PER_ENVIRONMENT)


async def settled(bench: Bench) -> int:
    """The operator's writes, once it makes no more."""
    before, since = bench.writes(), time.monotonic()
    while time.monotonic() - since < 3:
        await asyncio.sleep(0.5)
        if (now := bench.writes()) != before:
            before, since = now, time.monotonic()
    return before


async def measure(bench: Bench, count: int) -> list[Row]:
    async with await connect(bench.kubeconfig) as client:
        began = time.monotonic()
        governed = await seed(client, bench, count)
        written = time.monotonic()
        deployments = Watched(client, MODEL_DEPLOYMENTS)
        workloads = Watched(client, DEPLOYMENTS)
        following = [asyncio.create_task(each.follow()) for each in (deployments, workloads)]
        try:
            placed = await deployments.until("country:us", governed, within=PATIENCE)
            print(f"seeded in {written - began:.0f} s, placed in {placed - began:.0f} s")
            before = await settled(bench)
            cpu = {name: bench.cpu(name) for name in ("operator", "cluster")}
            for each in (deployments, workloads):
                each.changes.clear()
            edited = time.monotonic()
            await put(client, "Policy", "where", EU)
            last = await deployments.until("continent:eu", governed, within=300)
            writes = await settled(bench) - before
            used = {name: bench.cpu(name) - cpu[name] for name in cpu}
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
    untouched = [name for name, each in deployments.latest.items() if allowed(each) == "anything"]
    return [
        Row(f"{count} deployments, one policy edit: until the last status", last - edited, "s"),
        Row("deployments that the edit touches", governed, "objects"),
        Row("writes of the operator, all together", writes, "requests", "touched", governed),
        Row(
            "writes for a deployment that it does not touch", writes_of(deployments, untouched), ""
        ),
        Row("statuses written", sum(deployments.changes.values()), "", "touched", governed),
        *(
            Row(f"CPU of the {name}", seconds * 1000 / governed, "ms per deployment")
            for name, seconds in used.items()
        ),
    ]


def writes_of(watched: Watched, names: Iterable[str]) -> int:
    return sum(watched.changes[name] for name in names)


async def main(counts: list[int]) -> None:
    rows: list[Row] = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="beamlit-bench-") as folder:
            bench = Bench(Path(folder))
            try:
                bench.start()
                rows += await measure(bench, count)
            except BaseException:
                print(bench.logs(), file=sys.stderr)
                raise
            finally:
                bench.stop()
    publish("policy-edit", rows, [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policy_edit")
    parser.add_argument("--deployments", type=int, nargs="+", default=[1000, 5000])
    asyncio.run(main(parser.parse_args().deployments))
