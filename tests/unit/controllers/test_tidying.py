"""When a cache is tidied, and what is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
from tests.support.fakekube import FakeKube
from tests.unit.workloads.test_cache import GONE, HERE, made, pod
from tests.unit.workloads.test_native import FILES

from beamlit_operator.controllers import tidying
from beamlit_operator.controllers.caches import Claims, Errands
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.tidying import Tidying
from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    Json,
    synced,
)
from beamlit_operator.workloads.cache import place_of
from beamlit_operator.workloads.errands import TIDY

WITHIN = 20.0
START = datetime(2026, 1, 1, tzinfo=UTC)


def claim(name: str = "shared", **metadata: Any) -> Json:
    about = {"name": name, "namespace": "team", "uid": f"uid-{name}", **metadata}
    return {"metadata": about, "spec": {}, "status": {"phase": "Bound"}}


async def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WITHIN
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still waiting until {what}"
        await asyncio.sleep(0.005)
    return found


@dataclass
class Lab:
    kube: FakeKube
    claims: Claims
    errands: Errands
    tidying: Tidying
    ends: list[tuple[str, str]]
    now: datetime = START

    def pods(self) -> list[Json]:
        return self.errands.of("team", TIDY)

    async def pod(self) -> Json:
        found: Json = (await until(self.pods, "a pod tidies"))[0]
        return found

    async def end(self, phase: str) -> None:
        made = await self.pod()
        await self.kube.put(PODS, {**made, "status": {"phase": phase}})
        await until(lambda: not self.pods(), "the pod is removed")

    def kept(self, made: Json) -> set[str]:
        arguments = made["spec"]["containers"][0]["args"]
        return set(arguments[arguments.index("--keep") + 1 :]) if "--keep" in arguments else set()


@asynccontextmanager
async def lab(
    *objects: tuple[Any, Json], limit: str = "1Gi", pause: float = 3600.0
) -> AsyncIterator[Lab]:
    kube = FakeKube()
    for resource, body in objects:
        await kube.put(resource, body)
    ends: list[tuple[str, str]] = []
    claims = Claims(kube, "shared", on_change=lambda space: there.tidying.claim_changed(space))
    errands = Errands(
        kube,
        namespaces=(None,),
        on_change=lambda _: there.tidying.pod_changed(),
        on_end=lambda *end: ends.append(end),
    )
    there = Lab(
        kube,
        claims,
        errands,
        Tidying(
            kube,
            claims=claims,
            errands=errands,
            announcer=Announcer(kube, identity="test", clock=lambda: START),
            image="ours",
            limit=limit,
            clock=lambda: there.now,
            pause=pause,
            settle=0.0,
        ),
        ends,
    )
    reflectors = [*claims.reflectors, *errands.reflectors]
    tasks = [asyncio.create_task(each.run()) for each in reflectors]
    for each in reflectors:
        await each.wait_synced()
    tasks.append(asyncio.create_task(there.tidying.run()))
    try:
        yield there
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def identity_of(item: Json) -> str:
    place = place_of(item["spec"]["template"]["spec"])
    assert place is not None
    return place.identity


async def test_what_any_object_of_the_workspace_uses_is_kept() -> None:
    revision = made(cache=HERE).deployment
    older = replace(FILES, revision="sha256:" + "ee" * 32)
    leaving = {
        "metadata": {**revision["metadata"], "name": "leaving"},
        "spec": pod(made(cache=HERE, files=older)),
    }
    foreign = {
        "metadata": {"name": "foreign", "namespace": "team"},
        "spec": {"template": {"spec": pod(made(cache=HERE, files=replace(FILES, uri="s3://x/y")))}},
    }
    model = {
        "metadata": {"name": "ahead", "namespace": "team"},
        "spec": {"prefetch": True},
        "status": {"prefetch": {"phase": "Done", "folder": "f" * 32}},
    }
    given_up = {
        "metadata": {"name": "given-up", "namespace": "team"},
        "spec": {"prefetch": False},
        "status": {"prefetch": {"phase": "Done", "folder": "a" * 32}},
    }
    objects = [
        (PERSISTENT_VOLUME_CLAIMS, claim()),
        (DEPLOYMENTS, revision),
        (DEPLOYMENTS, foreign),
        (PODS, leaving),
        (MODELS, model),
        (MODELS, given_up),
    ]
    async with lab(*objects) as there:
        tidies = await there.pod()
        own = place_of(leaving["spec"])
        assert own is not None
        assert there.kept(tidies) == {identity_of(revision), own.identity, "f" * 32}
        arguments = tidies["spec"]["containers"][0]["args"]
        assert arguments[:5] == ["cache", "tidy", "/mnt/cache", "--limit", "1Gi"]
        assert arguments[5:7] == ["--then", str(int(START.timestamp()))]
        kubernetes_validate.validate(tidies, "1.34", strict=True)


async def test_one_that_is_done_goes_and_the_next_comes_not_before_the_pause() -> None:
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim())) as there:
        await there.end("Succeeded")
        there.tidying.went("team")
        there.tidying.came("team")
        assert there.kube.calls["create", "pods"] == 1
        assert there.ends == [("tidy", "done")]
        there.tidying._last["team"] -= 3601
        there.tidying.went("team")
        await there.pod()
        assert there.kube.calls["create", "pods"] == 2
        assert there.kube.calls["create", "events"] == 0


async def test_one_that_failed_goes_and_is_told_on_the_claim() -> None:
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim())) as there:
        await there.end("Failed")
        assert there.ends == [("tidy", "failed")]
        (event,) = (await there.kube.list(EVENTS, "team")).items
        assert event["reason"] == "TidyingFailed"
        assert event["involvedObject"]["kind"] == "PersistentVolumeClaim"
        assert event["involvedObject"]["name"] == "shared"


async def test_one_that_never_ends_goes() -> None:
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim())) as there:
        stuck = await there.pod()
        stuck["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        there.now = START + timedelta(seconds=tidying.STUCK_SECONDS + 1)
        await there.kube.put(PODS, stuck)
        await until(lambda: not there.pods(), "the stuck pod is removed")
        assert there.kube.calls["create", "events"] == 1


@pytest.mark.parametrize(
    ("found", "limit"),
    [
        (claim(), ""),
        (claim(deletionTimestamp="2026-01-01T00:00:00Z"), "1Gi"),
        (claim("another"), "1Gi"),
        ({**claim(), "status": {"phase": "Lost"}}, "1Gi"),
    ],
)
async def test_without_a_limit_or_a_claim_that_can_be_used_nothing_is_done(
    found: Json, limit: str
) -> None:
    async with lab((PERSISTENT_VOLUME_CLAIMS, found), limit=limit) as there:
        there.tidying.went("team")
        for _ in range(20):
            await asyncio.sleep(0)
        assert there.kube.calls["create", "pods"] == 0
        if limit:
            await there.kube.put(PERSISTENT_VOLUME_CLAIMS, claim())
            await there.pod()


async def test_a_pod_that_is_refused_is_told_and_tried_with_the_next_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = 0
    plain = FakeKube.create

    async def create(self: FakeKube, resource: Any, *arguments: Any, **options: Any) -> Json:
        nonlocal refusals
        if resource is PODS and not refusals:
            refusals += 1
            raise ApiError(403, "Forbidden", "exceeded quota: pods")
        return await plain(self, resource, *arguments, **options)

    monkeypatch.setattr(FakeKube, "create", create)
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim()), pause=0.0) as there:
        await until(lambda: there.kube.calls["create", "events"], "it is told")
        assert there.kube.calls["create", "pods"] == 0
        there.tidying.went("team")
        await there.pod()


async def test_an_api_server_that_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([ApiError(500, "InternalError", "etcd"), ApiError(0, "Unreachable", "gone")])
    plain = FakeKube.list

    async def listing(self: FakeKube, resource: Any, *arguments: Any, **options: Any) -> Any:
        if resource is MODELS and (failure := next(failures, None)) is not None:
            raise failure
        return await plain(self, resource, *arguments, **options)

    monkeypatch.setattr(FakeKube, "list", listing)
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim()), pause=0.0) as there:
        await there.pod()
        assert next(failures, None) is None


async def test_a_claim_that_is_being_deleted_takes_its_pod_along() -> None:
    async with lab((PERSISTENT_VOLUME_CLAIMS, claim())) as there:
        await there.pod()
        going = claim(deletionTimestamp="2026-01-01T00:00:00Z")
        await there.kube.put(PERSISTENT_VOLUME_CLAIMS, going)
        await until(lambda: there.claims.of("team") == GONE, "the claim is gone")
        await until(lambda: not there.pods(), "its pod is gone")
        assert there.kube.calls["create", "events"] == 0


async def test_as_long_as_claims_cannot_be_read_nothing_is_known_of_them() -> None:
    """A revision that was made with a cache keeps it then; see workloads.cache."""
    kube = FakeKube()
    await kube.set_away(True)
    claims = Claims(kube, "shared", on_change=lambda _: None)
    assert not await synced(claims.reflectors, within=0.01)
    assert claims.of("team") is None
    await kube.set_away(False)
    task = asyncio.create_task(claims.reflectors[0].run())
    assert await synced(claims.reflectors, within=WITHIN)
    assert claims.of("team") == GONE
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert Claims(kube, "", on_change=lambda _: None).of("team") is None
