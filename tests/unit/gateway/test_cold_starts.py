"""The queue of held requests, with a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.gatewayobjects import endpoint_slice, model_deployment

from beamlit_operator.gateway import cold
from beamlit_operator.gateway.catalog import Catalog, Pod
from beamlit_operator.gateway.cold import (
    STALE_FAILURE,
    ColdStarts,
    Outcome,
    Released,
)
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey, RevisionName, Workspace
from beamlit_operator.gateway.replies import Reply
from beamlit_operator.gateway.room import HELD_BASE, HELD_BODY, held_bytes
from beamlit_operator.gateway.settings import GatewaySettings

REVISION = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-1"))
SETTINGS = GatewaySettings(gateway_id="test", start_deadline=5.0, first_backoff=5.0)


class RecordingWaker:
    """Remembers who was woken."""

    def __init__(self) -> None:
        self.woken: list[tuple[RevisionKey, int]] = []

    def trouble(self, revision: RevisionKey) -> str:
        return ""

    def scaled_at(self, revision: RevisionKey) -> float | None:
        return None

    async def keep_awake(
        self,
        revision: RevisionKey,
        replicas: int,
        *,
        asked_at: float,
        checked: Callable[[RevisionKey], None],
    ) -> None:
        self.woken.append((revision, replicas))
        await asyncio.Event().wait()

    async def wake(self, revision: RevisionKey, replicas: int) -> None:
        self.woken.append((revision, replicas))


class World:
    """A queue, and what it sees."""

    def __init__(self, settings: GatewaySettings = SETTINGS) -> None:
        self.now = 1000.0
        self.catalog = Catalog()
        self.waker = RecordingWaker()
        self.cold = ColdStarts(
            self.catalog,
            self.waker,  # type: ignore[arg-type]
            settings=settings,
            metrics=GatewayMetrics(),
            clock=lambda: self.now,
        )
        self.deploy()

    def deploy(self, **fields: object) -> None:
        body = model_deployment("iris", **{"traffic": {"iris-1": 100}, **fields})  # type: ignore[arg-type]
        self.catalog.put_deployment("demo", "iris", body)
        self.cold.changed(REVISION.deployment_key)

    def pods(self, *hosts: str) -> None:
        pods = [(host, 80) for host in hosts]
        self.catalog.put_slice("demo", "s", endpoint_slice("iris-1", pods, deployment="iris"))
        self.cold.changed(REVISION.deployment_key)

    async def ask(
        self, revision: RevisionKey = REVISION, *, pinned: bool = False
    ) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(self.cold.admit(revision, pinned=pinned))
        await self.turns()
        return task

    async def turns(self) -> None:
        """Lets a task, and the wake it starts, run up to where they wait."""
        for _ in range(3):
            await asyncio.sleep(0)


async def refusal(task: asyncio.Task[Outcome]) -> Reply:
    outcome = await task
    assert isinstance(outcome, Reply)
    return outcome


@pytest.fixture
def world() -> World:
    return World()


async def test_a_ready_pod_is_named_at_once_and_nothing_is_woken(world: World) -> None:
    world.pods("127.0.0.1")
    outcome = await (await world.ask())
    assert isinstance(outcome, Released)
    assert str(outcome.pod) == "127.0.0.1:80"
    assert world.waker.woken == []


async def test_holders_are_spread_over_the_pods_that_become_ready(world: World) -> None:
    tasks = [await world.ask() for _ in range(4)]
    assert world.waker.woken == [(REVISION, 1)]
    assert world.cold.held() == {REVISION.deployment_key: 4}
    world.pods("127.0.0.1", "127.0.0.2")
    hosts = [outcome.pod.host for outcome in await asyncio.gather(*tasks)]
    assert sorted(hosts) == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"]
    assert world.cold.held() == {}


async def test_a_deployment_wakes_with_the_replicas_it_asks_for(world: World) -> None:
    body = model_deployment("iris", traffic={"iris-1": 100})
    body["spec"]["serverlessConfig"] = {"scaleUpMinimum": 3}
    world.catalog.put_deployment("demo", "iris", body)
    task = await world.ask()
    assert world.waker.woken == [(REVISION, 3)]
    task.cancel()


def changing_sides(phase: str) -> dict[str, object]:
    """`iris-1` is to get the only place of another revision."""
    body = model_deployment("iris", traffic={"iris-1": 100})
    body["status"]["rollout"] = {"phase": phase, "weight": 100}
    return body


async def test_a_place_that_a_rollout_moves_is_the_operators_to_fill(world: World) -> None:
    world.catalog.put_deployment("demo", "iris", changing_sides("Progressing"))
    task = await world.ask()
    assert world.waker.woken == []
    world.pods("127.0.0.1")
    assert isinstance(await task, Released)


async def test_a_place_that_nobody_fills_for_a_minute_is_filled_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "LOOK_EVERY", 0)
    world.catalog.put_deployment("demo", "iris", changing_sides("Progressing"))
    task = await world.ask()
    world.now += cold.FREE_WITHIN - 1
    await world.turns()
    assert world.waker.woken == []
    world.now += 1
    await world.turns()
    assert world.waker.woken == [(REVISION, 1)]
    task.cancel()


async def test_what_sleeps_at_the_last_step_of_a_rollout_is_woken(world: World) -> None:
    world.catalog.put_deployment("demo", "iris", changing_sides("Waiting"))
    task = await world.ask()
    assert world.waker.woken == [(REVISION, 1)]
    task.cancel()


async def test_failures_grow_the_pause_and_a_success_ends_it(world: World) -> None:
    for count, pause in enumerate((5.0, 10.0, 20.0), start=1):
        task = await world.ask()
        assert len(world.waker.woken) == count
        world.deploy(problem=("StartFailed", "boom"), since=f"t{count}")
        reply = await refusal(task)
        assert (reply.status, reply.reason, reply.message) == (503, "StartFailed", "boom")
        world.deploy()
        world.now += pause - 1
        early = await refusal(await world.ask())
        assert early.retry_after == pytest.approx(1.0)
        world.now += 2
    task = await world.ask()
    world.pods("127.0.0.1")
    assert isinstance(await task, Released)
    world.pods()
    task = await world.ask()
    assert not task.done()
    task.cancel()


async def test_a_failure_of_an_earlier_start_does_not_end_a_new_one(world: World) -> None:
    world.deploy(problem=("StartFailed", "boom"))
    task = await world.ask()
    world.deploy(problem=("StartFailed", "boom"), replicas=1)
    assert not task.done()
    # The operator had time to look, and still says so.
    world.now += STALE_FAILURE + 1
    world.deploy(problem=("StartFailed", "boom"), replicas=2)
    assert (await refusal(task)).message == "boom"


async def test_a_start_that_fails_right_now_is_not_waited_for(world: World) -> None:
    world.deploy(problem=("StartFailed", "boom"), replicas=1)
    assert (await refusal(await world.ask())).message == "boom"
    assert world.waker.woken == []


async def test_without_a_node_one_pod_is_left_waiting_so_that_one_may_be_added(
    world: World,
) -> None:
    world.deploy(problem=("NoPlacement", "no node in us"))
    tasks = [await world.ask() for _ in range(3)]
    assert {(await refusal(task)).reason for task in tasks} == {"NoPlacement"}
    assert world.waker.woken[0] == (REVISION, 1)
    world.deploy(problem=("NoPlacement", "no node in us"), replicas=1)
    asked = len(world.waker.woken)
    assert (await refusal(await world.ask())).reason == "NoPlacement"
    assert len(world.waker.woken) == asked


@pytest.mark.parametrize(
    "reason", ["PolicyNotFound", "EnvironmentNotFound", "FlavorNotAllowed", "PlacementOutdated"]
)
async def test_what_policies_do_not_clearly_allow_is_never_started(
    world: World, reason: str
) -> None:
    world.deploy(problem=(reason, "policy us-only does not exist"))
    reply = await refusal(await world.ask())
    assert (reply.status, reply.reason) == (503, reason)
    assert world.waker.woken == []


async def test_a_place_that_opens_up_ends_the_pause_at_once(world: World) -> None:
    task = await world.ask()
    world.deploy(problem=("NoPlacement", "no node in us"), since="t1")
    assert (await refusal(task)).reason == "NoPlacement"
    world.deploy()
    task = await world.ask()
    assert not task.done()
    task.cancel()


async def test_a_change_by_the_owner_ends_the_pause(world: World) -> None:
    task = await world.ask()
    world.deploy(problem=("StartFailed", "boom"), since="t1")
    await task
    world.deploy(generation=2)
    world.cold.forget(DeploymentKey(Workspace("demo"), "iris"))
    task = await world.ask()
    assert not task.done()
    task.cancel()


async def test_a_deployment_that_is_deactivated_or_deleted_lets_its_callers_go() -> None:
    for change in ({"enabled": False}, None):
        world = World()
        task = await world.ask()
        if change is not None:
            world.deploy(**change)
        else:
            world.catalog.put_deployment("demo", "iris", None)
            world.cold.changed(REVISION.deployment_key)
        assert (await refusal(task)).status == 404


async def test_the_total_of_held_requests_is_limited() -> None:
    world = World(replace(SETTINGS, max_held=1))
    held = await world.ask()
    assert (await refusal(await world.ask())).status == 429
    held.cancel()


async def test_a_caller_that_leaves_frees_its_place_and_the_last_one_ends_the_start(
    world: World,
) -> None:
    task = await world.ask()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.cold.held() == {}
    assert list(world.cold.starting()) == []


async def test_the_memory_of_held_requests_is_limited() -> None:
    upload = held_bytes(10**9)
    world = World(replace(SETTINGS, max_held_bytes=upload + held_bytes(0)))
    held = asyncio.create_task(world.cold.admit(REVISION, size=upload))
    await asyncio.sleep(0)
    second = await world.ask()
    assert not second.done()
    reply = await refusal(await world.ask())
    assert (reply.status, reply.reason) == (429, "TooManyHeld")
    assert reply.retry_after
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    third = await world.ask()
    assert not third.done()
    for task in (second, third):
        task.cancel()


@pytest.mark.parametrize(
    ("length", "more"), [(0, 0), (1000, 1000), (10**12, HELD_BODY), (None, HELD_BODY)]
)
def test_a_body_costs_no_more_than_envoy_takes_in(length: int | None, more: int) -> None:
    assert held_bytes(length) == HELD_BASE + more


async def test_a_deadline_that_passes_says_how_far_the_start_is() -> None:
    world = World(replace(SETTINGS, start_deadline=0.5))
    task = await world.ask()
    world.deploy(problem=("Starting", "fetching 1.2 of 4.0 GiB (30 %)"))
    reply = await refusal(task)
    assert reply.status == 504
    assert "fetching 1.2 of 4.0 GiB (30 %)" in reply.message


async def test_a_change_looks_at_the_starts_of_its_own_deployment_only() -> None:
    world = World()
    looked: list[RevisionKey] = []
    plain = world.catalog.pods

    def pods(revision: RevisionKey) -> tuple[Pod, ...]:
        looked.append(revision)
        return plain(revision)

    tasks = []
    for number in range(50):
        name, revision = f"m{number}", f"m{number}-1"
        body = model_deployment(name, model=name, traffic={revision: 100})
        world.catalog.put_deployment("demo", name, body)
        key = RevisionKey(Workspace("demo"), name, RevisionName(revision))
        tasks.append(await world.ask(key))
    world.catalog.pods = pods  # type: ignore[method-assign]
    world.cold.changed(DeploymentKey(Workspace("demo"), "m7"))
    assert [str(each.revision) for each in looked] == ["m7-1"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert list(world.cold.starting()) == []


async def test_a_node_is_asked_for_once_in_a_while_however_many_callers_come(world: World) -> None:
    world.deploy(problem=("NoPlacement", "no node has room"))
    for _ in range(5):
        assert (await refusal(await world.ask())).status == 503
    assert world.waker.woken == [(REVISION, 1)]
    world.cold.close()


CANARY = RevisionKey(Workspace("demo"), "iris", RevisionName("iris-2"))


async def test_a_request_that_fell_to_an_idle_canary_wakes_the_canary(world: World) -> None:
    world.deploy(traffic={"iris-1": 90, "iris-2": 10})
    await world.ask(CANARY)
    assert world.waker.woken == [(CANARY, 1)]


async def test_a_revision_without_traffic_is_woken_for_who_asks_for_it(world: World) -> None:
    world.deploy(traffic={"iris-1": 100, "iris-2": 0})
    await world.ask(CANARY, pinned=True)
    await world.ask(CANARY)
    assert world.waker.woken == [(CANARY, 1), (REVISION, 1)]


async def test_when_a_rollout_is_aborted_only_who_asked_for_the_canary_waits_on_for_it(
    world: World,
) -> None:
    world.deploy(traffic={"iris-1": 90, "iris-2": 10})
    by_weight, by_name = await world.ask(CANARY), await world.ask(CANARY, pinned=True)
    world.deploy(traffic={"iris-1": 100, "iris-2": 0})
    assert world.cold.waiting() == {REVISION: 1, CANARY: 1}
    world.pods("127.0.0.1")
    outcome = await by_weight
    assert isinstance(outcome, Released)
    assert outcome.revision == REVISION
    assert not by_name.done()
    world.deploy(traffic={"iris-1": 100})
    reply = await refusal(by_name)
    assert (reply.status, reply.reason) == (404, "UnknownRevision")
    assert world.cold.waiting() == {}


async def test_when_the_stable_revision_is_awake_those_who_waited_for_the_canary_go_there_at_once(
    world: World,
) -> None:
    world.pods("127.0.0.1")
    world.deploy(traffic={"iris-1": 90, "iris-2": 10})
    by_weight, by_name = await world.ask(CANARY), await world.ask(CANARY, pinned=True)
    world.deploy(traffic={"iris-1": 100, "iris-2": 0})
    assert isinstance(await by_weight, Released)
    assert world.cold.waiting() == {CANARY: 1}
    by_name.cancel()


async def test_a_revision_that_is_not_listed_is_not_woken_for_who_asks_for_it(world: World) -> None:
    reply = await refusal(await world.ask(CANARY, pinned=True))
    assert (reply.status, reply.reason) == (404, "UnknownRevision")
    assert world.waker.woken == []
