"""Twenty rollouts under a steady load: nothing fails, nothing goes astray, and how soon it serves.

``make bench-rollout``, or ``python -m tests.bench.rollout --rounds 1`` for a short one. Everything
runs as `beamlit dev` runs it. Each round is five rollouts of one deployment at 200 requests a
second: two blue-green, a canary that is approved step by step and keeps sessions together, a canary
that is too slow and is rolled back by its analysis, and one without surge. At the end a canary
stands at 20 percent for 10,000 requests. Fails when a request failed or went astray
(`rolloutledger`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
from tests.bench.report import Row, publish
from tests.bench.rolloutledger import Findings, judged
from tests.bench.rolloutload import RATE, Load, Seen
from tests.support.stack import ACCESS_KEY, SECRET_KEY, Stack, running_stack

from beamlit_operator.api import labels
from beamlit_operator.kube import MODEL_DEPLOYMENTS, HttpClient, Json, connect, resource_of

API = "beamlit.com/v1alpha1"
WORKSPACE, NAME = "default", "tiny"
ROUNDS = 4
REPLICAS = 2
REST = 1.0
"""Seconds of load before each edit, so that the state before it is seen, too."""
SPLIT, SPLIT_WEIGHT, SPLIT_CALLERS = 10_000, 20, 8
WITHIN = 120.0

BLUE_GREEN: Json = {"strategy": "BlueGreen"}
APPROVED: Json = {
    "strategy": "Canary",
    "sticky": {"header": "x-session"},
    "steps": [{"weight": 20}, {"weight": 60}],
}
ANALYSED: Json = {
    "strategy": "Canary",
    "steps": [
        {"weight": SPLIT_WEIGHT, "analysis": {"minimumRequests": 40, "maxLatencyPercent": 300}}
    ],
}
NO_SURGE: Json = {"strategy": "Canary", "surge": 0, "steps": [{"weight": 50, "pause": "1s"}]}
HELD: Json = {"strategy": "Canary", "steps": [{"weight": SPLIT_WEIGHT}]}
ROUND = (
    ("blue-green", BLUE_GREEN),
    ("canary, approved", APPROVED),
    ("canary, rolled back", ANALYSED),
    ("surge 0", NO_SURGE),
    ("blue-green", BLUE_GREEN),
)


@dataclass(slots=True)
class Result:
    """What all rollouts came to."""

    requests: int = 0
    findings: list[Findings] = field(default_factory=list)
    rollouts: Counter[str] = field(default_factory=Counter)
    overheads: list[float] = field(default_factory=list)
    """Seconds from an edit to the new revision's first answer, less its pods' start."""
    waits: list[float] = field(default_factory=list)
    """The same without surge, where an old pod has to end before a new one may start."""
    starts: list[float] = field(default_factory=list)
    share: float = 0.0
    """Percent of the split's requests that the canary got."""


class Bench:
    """One deployment, its load, and its edits."""

    def __init__(self, client: HttpClient, load: Load, seen: Seen) -> None:
        self._client = client
        self._load = load
        self._seen = seen
        self._version = 1
        self._generation = 1
        self.result = Result()

    async def roll_out(self, kind: str, rollout: Json) -> None:
        """One rollout, from the edit until its end, under load."""
        self._load.answers.clear()
        over = asyncio.Event()
        load = asyncio.create_task(self._load.run(over))
        await asyncio.sleep(REST)
        before = _serving(self._seen.deployment)
        edited = time.monotonic()
        await self._edit(rollout, slow=rollout is ANALYSED)
        while True:
            await self._seen.until(
                lambda d: self._seen_edit(d) and (_paused(d) or _ended(d, before)),
                f"{kind}: the next step",
                WITHIN,
            )
            if not _paused(self._seen.deployment):
                break
            await self._promote()
        await asyncio.sleep(REST)
        over.set()
        await load
        self._count(kind, before, edited, sticky=rollout is APPROVED)

    async def split(self) -> None:
        """The canary's share of many requests while it stands at one step."""
        await self._edit(HELD)
        await self._seen.until(
            lambda d: self._seen_edit(d) and _paused(d), "a canary that waits", WITHIN
        )
        await asyncio.sleep(REST)
        canary = self._seen.deployment["status"]["rollout"]["canary"]
        self._load.answers.clear()

        async def caller() -> None:
            while len(self._load.answers) < SPLIT:
                await self._load.send()

        await asyncio.gather(*(caller() for _ in range(SPLIT_CALLERS)))
        answers = self._load.answers[:SPLIT]
        self.result.share = 100 * sum(a.revision == canary for a in answers) / len(answers)
        self.result.requests += len(answers)
        self.result.findings.append(judged(answers, self._seen.weights, sticky=False))

    def _count(self, kind: str, before: str, edited: float, *, sticky: bool) -> None:
        result, seen = self.result, self._seen
        answers = list(self._load.answers)
        result.requests += len(answers)
        result.rollouts[kind] += 1
        found = judged(answers, seen.weights, sticky=sticky)
        result.findings.append(found)
        told = (seen.deployment["status"].get("rollout") or {}).get("canary")
        new = told or _serving(seen.deployment)
        first = self._load.first[new]
        # The watch may tell of a pod a moment after it has answered.
        up = [at for at in seen.ready[new] if at <= first] or [first]
        start, took = max(up) - seen.born[new], first - edited
        if kind != "surge 0":
            result.starts.append(start)
        (result.waits if kind == "surge 0" else result.overheads).append(took - start)
        print(
            f"{kind}: {before} -> {new}, {len(answers)} requests, served after {took:.2f} s "
            f"(start {start:.2f} s), {len(found.failed)} failed, {len(found.misrouted)} astray, "
            f"last follower {found.latest:.2f} s late",
            flush=True,
        )
        for sentence in (*found.failed, *found.misrouted, *found.unsteady)[:5]:
            print(f"  {sentence}", file=sys.stderr)

    async def _edit(self, rollout: Json, *, slow: bool = False) -> None:
        self._version += 1
        body = deployment(rollout, version=self._version, delay="0.1" if slow else "0")
        stored = await self._client.apply(MODEL_DEPLOYMENTS, body, field_manager="bench")
        self._generation = stored["metadata"]["generation"]

    def _seen_edit(self, item: Json) -> bool:
        """Whether the operator has looked at the last edit."""
        return (item.get("status") or {}).get("observedGeneration", 0) >= self._generation

    async def _promote(self) -> None:
        told = self._seen.deployment["status"]["rollout"]
        step = told["step"]
        await asyncio.sleep(REST)
        annotations = {labels.ROLLOUT_PROMOTE: f"{told['canary']}/{step}"}
        await self._client.merge_patch(
            MODEL_DEPLOYMENTS, NAME, {"metadata": {"annotations": annotations}}, WORKSPACE
        )

        def on_the_way(item: Json) -> bool:
            now = item["status"].get("rollout") or {}
            return now.get("step") != step or now.get("phase") != "Paused"

        await self._seen.until(on_the_way, "the step is left", WITHIN)


def deployment(rollout: Json, *, version: int, delay: str = "0") -> Json:
    """The manifest; another version is another revision."""
    revision = {"fieldRef": {"fieldPath": f"metadata.labels['{labels.REVISION}']"}}
    runtime = {
        "image": "beamlit.dev/python:3",
        "command": ["python"],
        "args": ["/mnt/models/server.py"],
        "envs": [
            {"name": "REVISION", "valueFrom": revision},
            {"name": "VERSION", "value": str(version)},
            {"name": "DELAY_SECONDS", "value": delay},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
    }
    spec = {
        "model": NAME,
        "runtime": runtime,
        "serverlessConfig": {"minNumReplicas": REPLICAS, "maxNumReplicas": REPLICAS},
        "rollout": {"retention": "2s", **rollout},
    }
    metadata = {"name": NAME, "namespace": WORKSPACE}
    return {"apiVersion": API, "kind": "ModelDeployment", "metadata": metadata, "spec": spec}


def _serving(item: Json) -> str:
    """The revision with all the traffic; empty while it is shared."""
    revisions = (item.get("status") or {}).get("revisions") or ()
    return next((each["name"] for each in revisions if each.get("traffic") == 100), "")


def _paused(item: Json) -> bool:
    return ((item.get("status") or {}).get("rollout") or {}).get("phase") == "Paused"


def _ended(item: Json, before: str) -> bool:
    """Whether another revision than before serves, or the new one was given up."""
    rollout, serving = (item.get("status") or {}).get("rollout"), _serving(item)
    if rollout is not None:
        return rollout["phase"] in ("Aborted", "RolledBack", "Failed") and serving == before
    return serving not in ("", before)


async def prepare(client: HttpClient, stack: Stack) -> None:
    """A Model and its deployment, with all replicas ready."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    s3 = {
        "uri": "s3://models/tiny",
        "endpoint": stack.store,
        "region": "us-east-1",
        "credentialsSecretRef": {"name": "store"},
    }
    for api_version, kind, name, top in (
        ("v1", "Secret", "store", {"stringData": keys, "type": "Opaque"}),
        (API, "Environment", "production", {"spec": {"policies": []}}),
        (API, "Model", NAME, {"spec": {"origin": {"s3": s3}}}),
    ):
        metadata = {"name": name, "namespace": WORKSPACE}
        body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **top}
        await client.apply(resource_of(api_version, kind), body, field_manager="bench")
    await client.apply(MODEL_DEPLOYMENTS, deployment(BLUE_GREEN, version=1), field_manager="bench")


async def measure(stack: Stack, *, rounds: int) -> Result:
    """All rollouts, one after the other, and the split."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        await connect(stack.kubeconfig) as client,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
    ):
        await prepare(client, stack)
        seen = Seen()
        following = asyncio.create_task(seen.follow(client, WORKSPACE, NAME))
        try:
            await seen.until(
                lambda d: (d.get("status") or {}).get("readyReplicas") == REPLICAS,
                "all replicas ready",
                WITHIN,
            )
            url = f"{stack.gateway}/{WORKSPACE}/models/{NAME}/predict"
            bench = Bench(client, Load(http, url, seen, seed=7), seen)
            for _ in range(rounds):
                for kind, rollout in ROUND:
                    await bench.roll_out(kind, rollout)
            await bench.split()
            return bench.result
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def rows_of(result: Result) -> list[Row]:
    """The table."""
    found = result.findings
    start = ("the pods' own start", median(result.starts))
    return [
        Row(f"rollouts under {RATE:g} requests/s", sum(result.rollouts.values()), "rollouts"),
        Row("requests", result.requests, "requests"),
        Row("failed", sum(len(each.failed) for each in found), "requests"),
        Row("astray", sum(len(each.misrouted) for each in found), "requests"),
        Row("sessions split", sum(len(each.unsteady) for each in found), "sessions"),
        Row("last request after the weight was 0", max(each.latest for each in found), "s"),
        Row("edit to serving, less the start, p50", median(result.overheads), "s", *start),
        Row("edit to serving, less the start, max", max(result.overheads), "s"),
        Row("the same with surge 0, after an old pod ended, max", max(result.waits), "s"),
        Row(
            f"canary's share of {SPLIT:,} requests",
            result.share,
            "%",
            "its weight",
            float(SPLIT_WEIGHT),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="five rollouts each")
    rounds = parser.parse_args().rounds
    # The S3 store's log of every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="beamlit-bench-") as folder,
        running_stack(Path(folder)) as stack,
    ):
        result = asyncio.run(measure(stack, rounds=rounds))
    rows = rows_of(result)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(result.rollouts.items()))
    publish("rollout", rows, [f"rollouts: {kinds}", f"{REPLICAS} replicas of a small server"])
    if any(each.failed or each.misrouted or each.unsteady for each in result.findings):
        raise SystemExit("requests failed or went astray")


if __name__ == "__main__":
    main()
