"""Claims that hold models' files, as the operator finds them at a look."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.api import Reason
from beamlit_operator.api.model import Origin
from beamlit_operator.controllers.claims import CLASSES
from beamlit_operator.controllers.opening import Opener, OpeningProblemError, opening_of
from beamlit_operator.kube import PERSISTENT_VOLUME_CLAIMS, ApiError, Json, Resource
from beamlit_operator.origins.stores.claim import UID

ORIGIN = Origin.model_validate({"pvc": {"claimName": "weights", "path": "a"}})
OPENING = opening_of(ORIGIN, workspace="team", model="m", allow_node=False)


class Cluster(FakeKube):
    """One with a claim."""

    forbidden: frozenset[str] = frozenset()

    async def get(self, resource: Resource, name: str, *args: Any, **more: Any) -> Json:
        if resource.plural in self.forbidden:
            raise ApiError(403, "Forbidden", "no")
        return await super().get(resource, name, *args, **more)

    async def claim(
        self, phase: str, *, of: str = "fast", going: bool = False, **spec: Any
    ) -> None:
        metadata: Json = {"name": "weights", "namespace": "team", "uid": "u-1"}
        if going:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        body: Json = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
        body["spec"] = {"storageClassName": of, **spec}
        body["status"] = {"phase": phase}
        await self.put(PERSISTENT_VOLUME_CLAIMS, body)

    async def storage_class(self, mode: str) -> None:
        body: Json = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
        await self.put(CLASSES, {**body, "metadata": {"name": "fast"}, "volumeBindingMode": mode})


async def _problem(cluster: Cluster) -> tuple[Reason, str] | None:
    try:
        found = await Opener(cluster).open("team", OPENING)
    except OpeningProblemError as error:
        return error.reason, str(error)
    assert found.values == {UID: "u-1"}
    return None


@pytest.mark.parametrize(
    ("claim", "mode", "words"),
    [
        ({"phase": "Bound"}, "Immediate", None),
        ({"phase": "Pending"}, "WaitForFirstConsumer", None),
        ({"phase": "Pending"}, "Immediate", "is not bound to a volume yet"),
        ({"phase": "Pending", "of": "none-such"}, "Immediate", "is not bound to a volume yet"),
        ({"phase": "Pending", "of": ""}, "Immediate", "is not bound to a volume yet"),
        ({"phase": "Lost"}, "Immediate", "has lost its volume"),
        ({"phase": "Bound", "going": True}, "Immediate", "is being deleted"),
        ({"phase": "Bound", "volumeMode": "Block"}, "Immediate", "is a block device"),
    ],
)
async def test_a_claim_that_pods_could_not_mount_says_why(
    claim: dict[str, Any], mode: str, words: str | None
) -> None:
    cluster = Cluster()
    await cluster.storage_class(mode)
    await cluster.claim(**claim)
    found = await _problem(cluster)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] is Reason.CLAIM_NOT_USABLE
        assert f"PersistentVolumeClaim weights in team {words}" in found[1]


async def test_a_claim_that_is_missing_is_found_when_it_is_there() -> None:
    cluster = Cluster()
    assert await _problem(cluster) == (
        Reason.CLAIM_NOT_FOUND,
        "PersistentVolumeClaim weights does not exist in team: create it",
    )
    await cluster.claim("Bound")
    assert await _problem(cluster) is None


async def test_an_older_role_is_told_and_a_class_that_may_not_be_read_stops_nobody() -> None:
    cluster = Cluster()
    await cluster.claim("Pending")
    cluster.forbidden = frozenset({"storageclasses"})
    assert await _problem(cluster) is None
    cluster.forbidden = frozenset({"persistentvolumeclaims"})
    found = await _problem(cluster)
    assert found is not None
    assert found[0] is Reason.CLAIM_NOT_FOUND
    assert "upgrade the chart" in found[1]
