"""Keys that change: what sleeps wakes with the new ones, what fails heals, and none is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.identitystore import IdentityStore

from beamlit_operator.kube import SECRETS

from .conftest import Workspace, ready

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


async def until_idle(workspace: Workspace, store: IdentityStore) -> None:
    """A deployment that sleeps, of a Model that was looked at with the first keys."""
    store.keys = {"AKIAROTATED1"}
    await key(workspace, 1)
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.model(store=store.endpoint)
    await workspace.deployment()
    await workspace.until_ready("Idle")


async def nothing_is_shown(workspace: Workspace) -> None:
    shown = await asyncio.to_thread(
        workspace.stack.kubectl, "get", KINDS, "-n", workspace.name, "-o", "yaml"
    )
    logs = "".join(
        path.read_text(errors="replace")
        for path in workspace.stack.folder.rglob("*.log")
        if path.is_file()
    )
    assert "never-to-be-seen" not in shown + logs


async def test_what_sleeps_wakes_with_the_keys_of_now(
    workspace: Workspace, store: IdentityStore
) -> None:
    await until_idle(workspace, store)
    store.keys = {"AKIAROTATED2"}
    await key(workspace, 2)
    store.callers.clear()
    assert (await workspace.call())[0] == 200
    assert set(store.callers) == {"AKIAROTATED2"}
    await nothing_is_shown(workspace)


async def test_a_secret_that_is_deleted_takes_nothing_from_what_runs_and_is_named_to_who_wakes_it(
    workspace: Workspace, store: IdentityStore
) -> None:
    await until_idle(workspace, store)
    assert (await workspace.call())[0] == 200
    await workspace.client.delete(SECRETS, "store", workspace.name)
    # It has its files, and needs no store.
    assert (await workspace.call())[0] == 200
    (pod,) = await workspace.pods()
    await asyncio.to_thread(
        workspace.stack.kubectl,
        *("delete", "pod", pod["metadata"]["name"], "-n", workspace.name, "--wait=false"),
    )
    told = await workspace.until(lambda md: "store" in ready(md)["message"])
    assert ready(told)["status"] == "False"
    assert "ecret" in ready(told)["message"]
    status, body = await workspace.call()
    assert (status, body["error"]["reason"]) == (503, "StartFailed")
    assert 'secret "store" not found' in body["error"]["message"]
    await key(workspace, 1)
    await workspace.until(lambda md: ready(md)["status"] == "True")
    assert (await workspace.call())[0] == 200
    await nothing_is_shown(workspace)


@pytest.mark.long
async def test_a_start_with_keys_that_were_withdrawn_heals_when_the_secret_has_the_next(
    workspace: Workspace, store: IdentityStore
) -> None:
    await until_idle(workspace, store)
    assert (await workspace.call())[0] == 200
    store.keys = {"AKIAROTATED2"}
    (pod,) = await workspace.pods()
    await asyncio.to_thread(
        workspace.stack.kubectl,
        *("delete", "pod", pod["metadata"]["name"], "-n", workspace.name, "--wait=false"),
    )
    failed = await workspace.until(lambda md: "does not accept the key" in ready(md)["message"])
    assert "AWS_SECRET_ACCESS_KEY in the Secret" in ready(failed)["message"]
    (waiting,) = [
        each["metadata"]["name"]
        for each in await workspace.pods()
        if each["metadata"]["name"] != pod["metadata"]["name"]
        and not each["metadata"].get("deletionTimestamp")
    ]
    await nothing_is_shown(workspace)
    # The same pod: its container that fetches reads the Secret anew whenever it starts again.
    await key(workspace, 2)
    await workspace.until_ready("Serving")
    assert waiting in [each["metadata"]["name"] for each in await workspace.pods()]
    assert (await workspace.call())[0] == 200
    await nothing_is_shown(workspace)
