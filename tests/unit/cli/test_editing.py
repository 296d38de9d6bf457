"""Commands write on what they read: a status that moves meanwhile is no change of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from beamlit_operator.cli.editing import edit
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import ApiError

LIVE: dict[str, Any] = {
    "apiVersion": "beamlit.com/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "tiny", "namespace": "default", "uid": "1", "resourceVersion": "10"},
    "spec": {"model": "tiny", "version": "one"},
}


class Busy:
    """An API in which ``meanwhile`` happens to the object before each of the first writes."""

    def __init__(self, *meanwhile: dict[str, Any]) -> None:
        self.object = copy.deepcopy(LIVE)
        self.meanwhile = list(meanwhile)

    async def get(self, _resource: object, _name: str, _namespace: str | None) -> dict[str, Any]:
        return copy.deepcopy(self.object)

    async def merge_patch(
        self, _resource: object, _name: str, body: dict[str, Any], _namespace: str, **_: Any
    ) -> None:
        if self.meanwhile:
            change = self.meanwhile.pop(0)
            self.object = {**self.object, **change, "metadata": dict(self.object["metadata"])}
            self._written(change.get("metadata", {}))
        if body["metadata"]["resourceVersion"] != self.object["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.object["spec"] = {**self.object["spec"], **body.get("spec", {})}
        self._written(body["metadata"].get("annotations") or {})

    def _written(self, metadata: dict[str, Any]) -> None:
        version = int(self.object["metadata"]["resourceVersion"]) + 1
        self.object["metadata"] |= {**metadata, "resourceVersion": str(version)}


async def wants_two(api: Busy) -> None:
    desired = {**LIVE, "spec": {**LIVE["spec"], "version": "two"}}
    await edit(
        api,  # type: ignore[arg-type]
        copy.deepcopy(LIVE),
        desired,
        instead="edit it there",
        force_conflicts=False,
    )


async def test_a_status_written_meanwhile_does_not_stop_an_edit() -> None:
    api = Busy({"status": {"phase": "Active"}}, {"status": {"phase": "Idle"}})
    await wants_two(api)
    assert api.object["spec"]["version"] == "two"
    assert api.object["status"] == {"phase": "Idle"}


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"model": "tiny", "version": "three"}},
        {"metadata": {"annotations": {"beamlit.com/rollout-abort": "tiny-1"}}},
        {"metadata": {"uid": "2"}},
    ],
    ids=["the spec", "an order", "another object of the name"],
)
async def test_what_a_person_changed_meanwhile_is_not_written_over(change: dict[str, Any]) -> None:
    api = Busy(change)
    with pytest.raises(CommandError, match="changed in this moment by somebody else"):
        await wants_two(api)
    assert api.object["spec"]["version"] != "two"


async def test_a_status_that_never_rests_ends_the_edit_with_a_sentence() -> None:
    api = Busy(*({"status": {"n": number}} for number in range(50)))
    with pytest.raises(CommandError, match="run the command again"):
        await wants_two(api)
