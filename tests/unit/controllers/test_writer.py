"""What is written, above all when the API server does not play along."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fakekube import FakeKube
from tests.support.situations import NOW, metadata

from beamlit_operator.api import labels
from beamlit_operator.controllers.children import CHILD_RESOURCES, Children
from beamlit_operator.controllers.ending import EndingError, is_ending
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.plan import Deletion, Plan
from beamlit_operator.controllers.queue import RetryError
from beamlit_operator.controllers.writer import RefusedError, Writer
from beamlit_operator.kube import PODS, SERVICES, ApiError, Change, Json, ObjectKey, Resource

KEY = Key(Kind.MODEL_DEPLOYMENT, Workspace("team"), "iris")
LIVE: Json = {"apiVersion": "v", "kind": "ModelDeployment", "metadata": metadata("iris")}
SERVICE: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "iris",
        "namespace": "team",
        "labels": {labels.MODEL_DEPLOYMENT: "iris"},
        "ownerReferences": [{"uid": "uid-iris", "controller": True}],
    },
    "spec": {"ports": [{"port": "80"}]},
}
EVICTION = Deletion(PODS, "outside", "uid-outside", "its node is not allowed")
OLD = Deletion(SERVICES, "old", "uid-old", "another revision serves")


class Unwilling(FakeKube):
    """Refuses what it is told to refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, list[ApiError]] = {}

    def _maybe(self, verb: str) -> None:
        if self.refused.get(verb):
            raise self.refused[verb].pop(0)

    async def apply(self, resource: Resource, body: Json, **_: Any) -> Json:
        self._maybe("apply")
        # As a server that keeps numbers where words were sent.
        kept = {**body, "spec": {"ports": [{"port": 80}]}}
        kept["metadata"] = {**body["metadata"], "uid": "uid-service"}
        return await self.put(resource, kept)

    async def delete(self, resource: Resource, name: str, *_: Any, **__: Any) -> None:
        self._maybe("delete")
        await super().delete(resource, name, "team")


class World:
    """A writer, and the cluster it writes to."""

    def __init__(self) -> None:
        self.kube = Unwilling()
        self.children = {
            resource: Children(self.kube, resource, on_change=lambda _: None)
            for resource in CHILD_RESOURCES
        }
        self.writer = Writer(
            self.kube,
            indexes=Indexes(lambda *_: None),
            children=self.children,
            announcer=Announcer(self.kube, identity="me", clock=lambda: NOW),
        )

    async def there(self) -> World:
        for resource, name in ((PODS, "outside"), (SERVICES, "old")):
            await self.kube.put(resource, {"metadata": metadata(name)})
        return self

    async def has(self, resource: Resource) -> set[str]:
        return {item["metadata"]["name"] for item in (await self.kube.list(resource)).items}


async def test_an_eviction_that_failed_is_tried_again_at_once() -> None:
    world = await World().there()
    world.kube.refused["delete"] = [ApiError(500, "InternalError", "try later")]
    plan = Plan(delete=(EVICTION,))
    with pytest.raises(RetryError):
        await world.writer.carry_out(KEY, LIVE, plan)
    await world.writer.carry_out(KEY, LIVE, plan)
    assert await world.has(PODS) == set()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ApiError(403, "Forbidden", "exceeded quota"), RefusedError),
        (
            ApiError(500, "InternalError", "failed to create typed patch object (x): no field"),
            RefusedError,
        ),
        (ApiError(500, "InternalError", "try later"), RetryError),
    ],
)
async def test_pods_outside_the_policies_go_although_a_child_cannot_be_applied(
    error: ApiError, raised: type[Exception]
) -> None:
    world = await World().there()
    world.kube.refused["apply"] = [error]
    with pytest.raises(raised):
        await world.writer.carry_out(KEY, LIVE, Plan(apply=(SERVICE,), delete=(EVICTION, OLD)))
    assert await world.has(PODS) == set()
    assert await world.has(SERVICES) == {"old"}, "what still serves stays"


async def test_a_deletion_is_not_repeated_while_the_watch_lags() -> None:
    world = await World().there()
    for _ in range(2):
        await world.writer.carry_out(KEY, LIVE, Plan(delete=(EVICTION,)))
    assert world.kube.calls[("delete", "pods")] == 1


async def test_nothing_is_kept_of_a_child_that_the_garbage_collector_deleted() -> None:
    world = World()
    await world.writer.carry_out(KEY, LIVE, Plan(apply=(SERVICE,)))
    assert world.writer.remembered == 1
    key = ObjectKey("team", "iris")
    gone = world.children[SERVICES].get(key)
    world.children[SERVICES]._changed(Change(key, gone, None))
    assert world.writer.remembered == 0


def orphan(**metadata_: Any) -> Json:
    marks = {labels.MODEL_DEPLOYMENT: "iris", labels.MANAGED_BY: labels.OPERATOR_NAME}
    annotations = {"beamlit.com/applied": "0123456789abcdef"}
    return {"metadata": metadata("old", labels=marks, annotations=annotations, **metadata_)}


@pytest.mark.parametrize(
    ("child", "deployment", "left"),
    [
        (orphan(), False, set()),
        (orphan(), True, {"old"}),
        (orphan(ownerReferences=[{"uid": "uid-iris", "controller": True}]), False, {"old"}),
        ({"metadata": {**orphan()["metadata"], "annotations": {}}}, False, {"old"}),
    ],
    ids=["left behind", "its deployment is there after all", "still owned", "not applied by us"],
)
async def test_what_a_deleted_deployment_left_without_an_owner_ends(
    child: Json, deployment: bool, left: set[str]
) -> None:
    world = World()
    await world.kube.put(SERVICES, child)
    world.children[SERVICES].wrote(child)
    if deployment:
        await world.kube.put(KEY.kind.resource, LIVE)
    await world.writer.end_orphans(KEY)
    assert await world.has(SERVICES) == left


TERMINATING = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ApiError(403, "Forbidden", "being terminated", details=TERMINATING), True),
        (
            ApiError(
                404, "NotFound", 'namespaces "team" not found', details={"kind": "namespaces"}
            ),
            True,
        ),
        (ApiError(403, "Forbidden", "exceeded quota", details={"kind": "services"}), False),
        (ApiError(404, "NotFound", "no such service", details={"kind": "services"}), False),
        (ApiError(0, "Unreachable", "refused"), False),
    ],
    ids=["terminating", "gone", "quota", "something else", "away"],
)
async def test_only_a_namespace_that_ends_is_left_alone(error: ApiError, ending: bool) -> None:
    assert is_ending(error) is ending
    world = await World().there()
    world.kube.refused["apply"] = [error]
    plan = Plan(apply=(SERVICE,), delete=(EVICTION,))
    with pytest.raises((EndingError, RefusedError, RetryError)) as caught:
        await world.writer.carry_out(KEY, LIVE, plan)
    assert isinstance(caught.value, EndingError) is ending
    # Whatever is so, pods outside the policies go.
    assert world.kube.calls[("delete", "pods")] == 1
