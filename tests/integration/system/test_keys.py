"""Keys that change: what sleeps wakes with the new ones, what fails heals, and none is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.identitystore import IdentityStore

from .conftest import Workspace, ready

pytestmark = pytest.mark.xdist_group("system")

KINDS = "models,modeldeployments,environments,policies,events,deployments,replicasets,pods"


@pytest.fixture
def store(stack: Any) -> Iterator[IdentityStore]:
    with IdentityStore(stack.store) as store:
        yield store


async def key(workspace: Workspace, number: int) -> None:
    """Puts the keys of that number into the Secret."""
    values = {
        "AWS_ACCESS_KEY_ID": f"AKIAROTATED{number}",
        "AWS_SECRET_ACCESS_KEY": f"never-to-be-seen-{number}",
    }
    await workspace.apply("Secret", "store", stringData=values, type="Opaque")


async def test_keys_are_read_anew_at_each_start_and_shown_nowhere(
    workspace: Workspace, store: IdentityStore
) -> None:
    store.keys = {"AKIAROTATED1"}
    await key(workspace, 1)
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.model(store=store.endpoint)
    await workspace.deployment()
    await workspace.until_ready("Idle")

    # The old key is gone before anything ran with it: what wakes has the new one.
    store.keys = {"AKIAROTATED2"}
    await key(workspace, 2)
    store.callers.clear()
    assert (await workspace.call())[0] == 200
    assert set(store.callers) == {"AKIAROTATED2"}

    # A key that is withdrawn while pods are replaced: the start fails, says so, and heals when the
    # Secret has the next one. Nobody deletes the pod.
    store.keys = {"AKIAROTATED3"}
    (pod,) = await workspace.pods()
    await asyncio.to_thread(
        workspace.stack.kubectl,
        *("delete", "pod", pod["metadata"]["name"], "-n", workspace.name, "--wait=false"),
    )
    failed = await workspace.until(
        lambda md: "AKIA" not in str(md) and "does not accept the key" in ready(md)["message"]
    )
    assert "AWS_SECRET_ACCESS_KEY in the Secret" in ready(failed)["message"]
    (waiting,) = [
        each["metadata"]["name"]
        for each in await workspace.pods()
        if each["metadata"]["name"] != pod["metadata"]["name"]
        and not each["metadata"].get("deletionTimestamp")
    ]
    await key(workspace, 3)
    await workspace.until_ready("Serving")
    assert waiting in [each["metadata"]["name"] for each in await workspace.pods()]
    assert (await workspace.call())[0] == 200

    shown = await asyncio.to_thread(
        workspace.stack.kubectl, "get", KINDS, "-n", workspace.name, "-o", "yaml"
    )
    logs = "".join(
        path.read_text(errors="replace")
        for path in workspace.stack.folder.rglob("*.log")
        if path.is_file()
    )
    for number in (1, 2, 3):
        assert f"never-to-be-seen-{number}" not in shown + logs
