"""Thousands of objects: what a restart, a lost connection and an origin without rest cost, and that
what is deleted leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from tests.integration.controllers import conftest
from tests.integration.controllers.conftest import TEAM, Lab, Store
from tests.integration.controllers.test_operator import ENVIRONMENT, POLICY, SECRET

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.controllers import objects
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.originbook import AT_ONCE
from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    SERVICES,
    ApiError,
    Json,
    ObjectKey,
    Resource,
)
from beamlit_operator.origins import OriginRef, ResolvedOrigin
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.ref import S3Ref

pytestmark = pytest.mark.long

THOUSAND = 1000
API = "beamlit.com/v1alpha1"


@dataclass
class Stores(Store):
    """A bucket for each Model, and what was asked of which, how many at once."""

    facts: ModelFacts | None = field(default_factory=lambda: ModelFacts(format="safetensors"))
    asked: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most: int = 0
    restless: str = ""
    """A bucket that holds something else each time it is looked at."""

    async def look(self, ref: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
        assert isinstance(ref, S3Ref)
        self.asked[ref.bucket] += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        number = self.asked[ref.bucket] if ref.bucket == self.restless else 0
        files = (OriginFile("model.ubj", 10, "etag", "model.ubj"),)
        return ResolvedOrigin(f"sha256:{ref.bucket}-{number}", files, 10)

    def forget(self) -> None:
        self.asked.clear()
        self.most = self.inspections = 0


@pytest.fixture
async def crowd(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(conftest, "DEADLINE", 90.0)
    lab.store = Stores()
    await lab.apply("---".join((SECRET, POLICY, ENVIRONMENT)))
    return lab


def _stores(lab: Lab) -> Stores:
    assert isinstance(lab.store, Stores)
    return lab.store


def model(name: str) -> Json:
    origin = {"s3": {"uri": f"s3://{name}/files", "credentialsSecretRef": {"name": "s3"}}}
    return _ours("Model", name, {"origin": origin})


def deployment(name: str) -> Json:
    return _ours("ModelDeployment", name, {"model": name})


def _ours(kind: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": TEAM}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


async def put(lab: Lab, resource: Resource, *bodies: Json) -> None:
    for body in bodies:
        await lab.client.apply(resource, body, field_manager="user")


async def count(lab: Lab, resource: Resource, reason: str = "") -> int:
    """How many are there, with this reason of `Ready` if one is given."""
    found = 0

    def each(item: Json) -> Json:
        nonlocal found
        conditions = (item.get("status") or {}).get("conditions") or ()
        found += not reason or any(c.get("reason") == reason for c in conditions)
        return {}

    await lab.client.list(resource, TEAM, each=each)
    return found


async def until_count(lab: Lab, resource: Resource, number: int, reason: str = "") -> None:
    async def so() -> bool:
        await asyncio.sleep(0.3)
        return await count(lab, resource, reason) == number

    await lab.until(so, f"{number} {resource.plural} {reason}")


async def test_a_restart_looks_at_each_of_a_thousand_origins_once_and_writes_nothing(
    crowd: Lab,
) -> None:
    stores = _stores(crowd)
    await crowd.start_operator()
    await put(crowd, MODELS, *(model(f"model-{number}") for number in range(THOUSAND)))
    await until_count(crowd, MODELS, THOUSAND, "OriginResolved")
    await crowd.settle()
    assert stores.inspections == THOUSAND
    await crowd.stop_operator()
    stores.forget()

    operator = await crowd.start_operator()
    await crowd.until(lambda: len(stores.asked) == THOUSAND, "every origin was looked at")
    await crowd.settle()
    assert operator.writer.writes == 0
    assert set(stores.asked.values()) == {1}, "none was looked at before it was due again"
    assert stores.most <= AT_ONCE
    assert stores.inspections == 0, "what files say is known from the status"

    # The API server begins again, and knows nothing of the watches that there were.
    done = operator.queue.idle
    await crowd.restart_server()
    await put(crowd, MODELS, model("late"))
    await until_count(crowd, MODELS, THOUSAND + 1, "OriginResolved")
    await crowd.settle()
    assert done
    # The late one's status, at most in two steps, and its Event.
    assert operator.writer.writes <= 3
    assert sum(stores.asked.values()) == THOUSAND + 1


async def test_an_origin_without_rest_keeps_nobody_else_and_leaves_nothing_behind(
    crowd: Lab,
) -> None:
    stores = _stores(crowd)
    stores.restless = "restless"
    operator = await crowd.start_operator(origin_resync=0.5)
    names = ("restless", *(f"calm-{number}" for number in range(20)))
    await put(crowd, MODELS, *(model(name) for name in names))
    await put(crowd, MODEL_DEPLOYMENTS, *(deployment(name) for name in names))
    # Of the one without rest a revision is on its way, whenever one looks.
    await until_count(crowd, MODEL_DEPLOYMENTS, len(names) - 1, "Idle")

    before, looks = operator.writer.writes, stores.asked["restless"]
    await crowd.until(lambda: stores.asked["restless"] >= looks + 20, "it changed 20 times")
    changes = stores.asked["restless"] - looks
    assert operator.writer.writes - before <= 12 * (changes + 1)
    late = "late"
    await put(crowd, MODELS, model(late))
    await put(crowd, MODEL_DEPLOYMENTS, deployment(late))
    await crowd.until_ready("Idle", late)

    stores.restless = ""
    await crowd.settle()
    last = await crowd.get(MODEL_DEPLOYMENTS, "restless")
    assert last is not None
    assert len(last["status"]["history"]) <= 10
    # One revision for each deployment, and of the restless one a stable and a new one.
    assert await count(crowd, DEPLOYMENTS) <= len(names) + 2
    assert await count(crowd, SERVICES) <= 2 * len(names) + 3


async def test_what_was_deleted_is_not_remembered(crowd: Lab) -> None:
    operator = await crowd.start_operator()

    async def cycle(number: int) -> None:
        names = [f"cycle{number}-{each}" for each in range(40)]
        await put(crowd, MODELS, *(model(name) for name in names))
        await put(crowd, MODEL_DEPLOYMENTS, *(deployment(name) for name in names))
        await until_count(crowd, MODEL_DEPLOYMENTS, len(names), "Idle")
        for name in names:
            await crowd.client.delete(MODEL_DEPLOYMENTS, name, TEAM)
            await crowd.client.delete(MODELS, name, TEAM)
        for resource in (DEPLOYMENTS, SERVICES, EVENTS):
            await _collect_garbage(crowd, resource)
        await until_count(crowd, DEPLOYMENTS, 0)
        await crowd.settle()

    for number in range(2):
        await cycle(number)
    for children in operator.children.values():
        children.audit()
        children.audit()
    await crowd.settle()
    # What the autoscaler does every two seconds, where there are gateways; and those that were
    # looked at last are kept as they were read.
    assert list(operator.scaling.targets()) == []
    objects._open.cache_clear()
    gc.collect()
    left = Counter(
        type(each).__name__
        for each in gc.get_objects()
        if isinstance(each, ObjectKey | Key) and each.name.startswith("cycle")
    )
    assert not left
    assert operator.book._pages == {}


async def _collect_garbage(lab: Lab, resource: Resource) -> None:
    """What Kubernetes' garbage collector would do."""
    for item in (await lab.client.list(resource, TEAM)).items:
        try:
            await lab.client.delete(resource, item["metadata"]["name"], TEAM)
        except ApiError as error:
            if not error.not_found:
                raise
