"""How long the API server waits for the admission webhook, with 5,000 deployments and with 50.

``make bench-admission``. The real server over TLS on this machine; what is measured is the whole
call as the API server makes it, client included. Both sizes are asked in turn, every round.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry
from tests.bench.quiet import quiet_round
from tests.bench.report import Row, publish
from tests.support.fakekube import FakeKube
from tests.support.pictures import Workspace, body, location
from tests.support.stack import free_port

from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate
from beamlit_operator.controllers.admission.server import Webhook
from beamlit_operator.controllers.admission.tlscontext import load
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.kube import NAMESPACES, ApiError, Json, ObjectKey, Resource

FULL, SMALL = 5000, 50
ROUNDS = 3
CALLS = 100
"""Of each kind in every round."""
AIM = 20.0

Ask = Callable[[int], Json]


def workspace(deployments: int) -> Workspace:
    """Five environments of three policies each; deployments with a policy of their own, running."""
    made = Workspace()
    for name in ("us", "eu", "own-0", "own-1", "own-2"):
        made.policy(name, location("us", "ca") if name == "us" else location("us", "ie"))
    made.policy("narrow", location("us"))
    for number in range(5):
        made.environment(f"e{number}", us=True, eu=False, narrow=False)
    made.model("free")
    for number in range(deployments):
        model = f"m{number // 5}"
        if number % 5 == 0:
            made.model(model)
        made.deployment(
            f"d{number}",
            model=model,
            on="us",
            environment=f"e{number % 5}",
            policies=[{"name": f"own-{number % 3}"}],
        )
    return made


def request(
    kind: Kind, operation: str, *, new: Json | None = None, old: Json | None = None
) -> Json:
    item = new or old or {}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "bench",
            "kind": {"group": "beamlit.com", "version": "v1alpha1", "kind": str(kind)},
            "operation": operation,
            "namespace": "team",
            "name": item["metadata"]["name"],
            "object": new,
            "oldObject": old,
        },
    }


def asks(made: Workspace) -> dict[str, Ask]:
    """What is asked: a number in, a review out."""

    def create(number: int) -> Json:
        spec = {"model": "free", "environment": "e0", "policies": [{"name": "own-1"}]}
        return request(
            Kind.MODEL_DEPLOYMENT, "CREATE", new=body(Kind.MODEL_DEPLOYMENT, f"n{number}", spec)
        )

    def second(number: int) -> Json:
        spec = {"model": "m1", "environment": f"e{number % 5}"}
        return request(
            Kind.MODEL_DEPLOYMENT, "CREATE", new=body(Kind.MODEL_DEPLOYMENT, f"n{number}", spec)
        )

    def change(number: int) -> Json:
        held = made.indexes.deployments[ObjectKey("team", f"d{number % SMALL}")]
        new = {**held.raw, "spec": {**held.raw["spec"], "enabled": bool(number % 2)}}
        return request(Kind.MODEL_DEPLOYMENT, "UPDATE", new=new, old=held.raw)

    def policy(number: int) -> Json:
        held = made.indexes.policies[ObjectKey("team", "us")]
        new = {**held.raw, "spec": location("us", "mx" if number % 2 else "ie")}
        return request(Kind.POLICY, "UPDATE", new=new, old=held.raw)

    def environment(number: int) -> Json:
        held = made.indexes.environments[ObjectKey("team", "e0")]
        attached = [{"name": "us", "mandatory": bool(number % 2)}, {"name": "narrow"}]
        new = {**held.raw, "spec": {"policies": attached}}
        return request(Kind.ENVIRONMENT, "UPDATE", new=new, old=held.raw)

    return {
        "create a deployment": create,
        "refuse a second deployment": second,
        "change a deployment": change,
        "edit a policy of all": policy,
        "edit an environment of a fifth": environment,
    }


class _Cluster(FakeKube):
    """The API server for second looks: it holds what the operator holds."""

    def __init__(self, made: Workspace) -> None:
        super().__init__()
        self._made = made

    async def get(self, resource: Resource, name: str, *_: Any, **__: Any) -> Json:
        if resource == NAMESPACES:
            return {"metadata": {"name": name}}
        found = self._made.indexes.deployments.get(ObjectKey("team", name))
        if found is None:
            raise ApiError(404, "NotFound", name)
        return found.raw


class _Keeper:
    interval = 3600.0

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.authority = new_authority(now)
        self._pair = new_certificate(self.authority, names=["127.0.0.1"], now=now)

    async def look(self, context: ssl.SSLContext) -> None:
        load(context, self._pair)


class Side:
    """One webhook and what it knows."""

    def __init__(self, deployments: int) -> None:
        self.made = workspace(deployments)
        self.keeper = _Keeper()
        self.listen = f"127.0.0.1:{free_port()}"
        self.times: dict[str, list[float]] = {name: [] for name in asks(self.made)}
        self.webhook = Webhook(
            _Cluster(self.made),
            listen=self.listen,
            picture=self.made.picture,
            keeper=self.keeper,
            synced=lambda: True,
            registry=CollectorRegistry(),
        )

    async def measure(self, calls: int, *, keep: bool) -> None:
        """Asks every kind of question so many times, one after the other."""
        trusted = ssl.create_default_context(cadata=self.keeper.authority.certificate.decode())
        url = f"https://{self.listen}/validate"
        async with aiohttp.ClientSession() as session:
            for name, ask in asks(self.made).items():
                for number in range(calls):
                    question = ask(number)
                    started = time.perf_counter()
                    async with session.post(url, json=question, ssl=trusted) as reply:
                        answer = await reply.json()
                    took = time.perf_counter() - started
                    assert answer["response"]["uid"] == "bench"
                    if keep:
                        self.times[name].append(took * 1000)


async def _round(sides: tuple[Side, Side], calls: int) -> None:
    running = [asyncio.create_task(side.webhook.run()) for side in sides]
    try:
        while not all(side.webhook.serving for side in sides):
            await asyncio.sleep(0.01)
        for side in sides:
            await side.measure(20, keep=False)
            await side.measure(calls, keep=True)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def main() -> None:
    full, small = Side(FULL), Side(SMALL)
    loud = 0
    for _ in range(ROUNDS):
        kept = {id(s): {n: len(t) for n, t in s.times.items()} for s in (full, small)}

        def work(kept: dict[int, dict[str, int]] = kept) -> None:
            for side in (full, small):
                for name, times in side.times.items():
                    # A round that is repeated counts once.
                    del times[kept[id(side)][name] :]
            asyncio.run(_round((full, small), CALLS))

        _, quiet = quiet_round(work, root=os.getpid(), tries=3)
        loud += not quiet
    rows = []
    for name, times in full.times.items():
        other = small.times[name]
        few = f"{SMALL} deployments"
        rows.append(Row(f"{name}: median", median(times), "ms", few, median(other)))
        rows.append(Row(f"{name}: p99", p99(times), "ms", few, p99(other)))
    notes = [
        f"{FULL:,} deployments, {ROUNDS} rounds of {CALLS} calls each; aim: p99 below {AIM} ms"
    ]
    if loud:
        notes.append(f"{loud} rounds were disturbed by other processes")
    publish("admission", rows, notes)


if __name__ == "__main__":
    main()
