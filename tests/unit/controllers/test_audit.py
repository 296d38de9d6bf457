"""The audit trail: what is told of a change, and when."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.support.situations import metadata

from beamlit_operator.controllers.audit import Audit, note_actor
from beamlit_operator.controllers.changes import difference, last_manager
from beamlit_operator.controllers.keys import Key, Kind
from beamlit_operator.controllers.plan import Announcement, Deletion, Plan
from beamlit_operator.kube import PODS, Json, ObjectKey

POLICY = ObjectKey("team", "where")
IRIS, WINE = ObjectKey("team", "iris"), ObjectKey("team", "wine")


def policy(country: str, *, generation: int = 1, observed: int | None = None) -> Json:
    return {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "Policy",
        "metadata": metadata(
            "where",
            generation=generation,
            managedFields=[
                {"manager": "argocd", "time": "2026-01-01T00:00:00Z"},
                {"manager": "kubectl", "time": "2026-01-02T00:00:00Z"},
                {"manager": "x", "time": "2026-01-03T00:00:00Z", "subresource": "status"},
            ],
        ),
        "spec": {"type": "location", "locations": [{"type": "country", "name": country}]},
        "status": {} if observed is None else {"observedGeneration": observed},
    }


def held_to(country: str) -> Json:
    return {"effectivePolicy": {"location": {"allowed": [f"country:{country}"]}}}


class World:
    """An audit trail, what it has told, and the time."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.now = 0.0
        self.events: list[Announcement] = []
        self.audit = Audit(
            held_by=lambda *_: {IRIS, WINE}, announce=self._announce, clock=lambda: self.now
        )

    async def _announce(self, key: Key, about: Json, event: Announcement) -> None:
        assert (key.kind, about["metadata"]["name"]) == (Kind.POLICY, "where")
        self.events.append(event)

    def lines(self, which: str) -> list[dict[str, Any]]:
        return [vars(r) for r in self._caplog.records if getattr(r, "audit", "") == which]

    def moves(self, deployment: ObjectKey, before: str, after: str, *evicted: str) -> None:
        plan = Plan(
            status=held_to(after),
            delete=tuple(Deletion(PODS, uid, uid, "outside") for uid in evicted),
        )
        self.audit.decided(deployment, {"status": held_to(before)}, plan)


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    return World(caplog)


async def test_a_change_is_told_at_once_and_again_when_its_last_pod_is_gone(world: World) -> None:
    world.audit.lead()
    note_actor("uid-where", 2, "alice")
    before, after = policy("us", observed=1), policy("au", generation=2, observed=1)
    world.audit.seen(Kind.POLICY, POLICY, before, after)
    (line,) = world.lines("changed")
    assert (line["actor"], line["manager"], line["deployments"]) == ("alice", "kubectl", 2)
    assert (line["before"], line["after"]) == (before["spec"], after["spec"])
    world.moves(IRIS, "us", "au", "pod-1")
    world.moves(WINE, "eu", "eu")
    assert world.lines("settled") == []
    world.now = 3.5
    world.audit.pod_gone("pod-1")
    (line,) = world.lines("settled")
    assert (line["touched"], line["names"], line["evicted"]) == (1, ["iris"], 1)
    assert (line["seconds"], line["complete"]) == (3.5, True)
    await asyncio.sleep(0)
    (event,) = world.events
    assert event.message == (
        "changed by alice: locations: country:us -> country:au; 1 of 2 deployments are held to "
        "other sets: iris; 1 pods were evicted, 1 are gone after 3.5 s"
    )


async def test_without_a_webhook_the_client_is_told_in_place_of_the_user(world: World) -> None:
    world.audit.lead()
    before, after = policy("us", observed=1), policy("au", generation=2, observed=1)
    world.audit.seen(Kind.POLICY, POLICY, before, after)
    assert "was changed with kubectl: locations" in world.lines("changed")[0]["message"]
    await world.audit.close()


@pytest.mark.parametrize(
    ("generation", "observed", "action"),
    [(1, None, "created"), (2, 1, "changed"), (2, 2, None)],
)
async def test_after_a_restart_only_what_nobody_told_is_told(
    world: World, generation: int, observed: int | None, action: str | None
) -> None:
    item = policy("us", generation=generation, observed=observed)
    world.audit.seen(Kind.POLICY, POLICY, None, item)
    assert world.lines("changed") == [], "only the leader tells"
    world.audit.lead()
    assert [line["action"] for line in world.lines("changed")] == ([action] if action else [])
    await world.audit.close()


async def test_a_follower_does_not_tell_later_what_the_leader_told(world: World) -> None:
    before, after = policy("us", observed=1), policy("au", generation=2, observed=1)
    world.audit.seen(Kind.POLICY, POLICY, before, after)
    world.audit.seen(Kind.POLICY, POLICY, after, policy("au", generation=2, observed=2))
    world.audit.lead()
    assert world.lines("changed") == []


async def test_a_status_and_an_unchanged_spec_are_no_change(world: World) -> None:
    world.audit.lead()
    world.audit.seen(Kind.POLICY, POLICY, policy("us"), policy("us", observed=1))
    world.audit.seen(Kind.POLICY, POLICY, None, policy("us", observed=1))
    assert world.lines("changed") == []


async def test_a_deletion_is_told_and_a_stop_reports_what_is_under_way(world: World) -> None:
    world.audit.lead()
    world.audit.seen(Kind.POLICY, POLICY, policy("us", observed=1), None)
    world.moves(IRIS, "us", "us", "hangs")
    await world.audit.close()
    (line,) = world.lines("settled")
    assert (line["action"], line["complete"], line["evicted"]) == ("deleted", False, 1)


async def test_a_deployment_that_is_gone_is_not_waited_for(world: World) -> None:
    world.audit.lead()
    world.audit.seen(Kind.POLICY, POLICY, policy("us", observed=1), policy("au", generation=2))
    for each in (IRIS, WINE):
        world.audit.decided(each, None, Plan())
    assert world.lines("settled")[0]["complete"] is True
    assert world.audit.under_way == 0


def test_differences_are_short_and_readable() -> None:
    before = {"policies": [{"name": "us", "mandatory": True}], "displayName": "x" * 500}
    after = {"policies": [{"name": "us"}, {"name": "t4", "mandatory": False}]}
    text = difference(before, after)
    assert "policies: us (mandatory) -> us, t4" in text
    assert "displayName: x" in text
    assert "... -> nothing" in text
    assert len(text) < 400
    assert difference(after, after) == ""


def test_the_last_manager_is_not_the_one_of_the_status() -> None:
    assert last_manager(policy("us")) == "kubectl"
    assert last_manager({"metadata": {}}) == ""
