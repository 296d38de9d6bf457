"""Clusters that refuse pods, or stand still: told in their own words, and recovered from."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request

import pytest
from tests.integration.system.conftest import SETTLED, Workspace, ready, reason_of

from beamlit_operator.kube import Json, Resource

QUOTA = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMITS = Resource("", "v1", "limitranges", "LimitRange")

REFUSALS: dict[str, tuple[Resource, Json, str]] = {
    "a quota": (QUOTA, {"hard": {"pods": "0"}}, "exceeded quota: bound"),
    "a LimitRange": (
        LIMITS,
        {"limits": [{"type": "Pod", "max": {"memory": "1Mi"}}]},
        "maximum memory usage per Pod is 1Mi",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_pods_that_are_refused_are_told_to_callers_and_come_when_they_may(
    workspace: Workspace, what: str
) -> None:
    kind, spec, says = REFUSALS[what]
    body = {
        "apiVersion": "v1",
        "kind": kind.kind,
        "metadata": {"name": "bound", "namespace": workspace.name},
        "spec": spec,
    }
    await workspace.client.create(kind, body, workspace.name)
    await workspace.quickstart()
    await workspace.until(lambda md: ready(md)["reason"] in ("Idle", "StartFailed"))
    status, answer = await workspace.call()
    assert (status, reason_of(answer)) == (503, "StartFailed"), answer
    assert says in answer["error"]["message"]
    told = ready(await workspace.until_ready("StartFailed"))
    assert "the API server refuses the pods: " in told["message"]
    assert says in told["message"]
    # Kubernetes tries again and again with other names; the message stays the same.
    assert "-" not in told["message"].partition("pods are ")[0]
    await workspace.client.delete(kind, "bound", workspace.name)
    deadline = time.monotonic() + SETTLED
    while (await workspace.call())[0] != 200:
        assert time.monotonic() < deadline, workspace.stack.logs()
        await asyncio.sleep(0.1)
    await workspace.until_ready("Serving")


async def test_a_cluster_that_stands_still_takes_nobody_away(workspace: Workspace) -> None:
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
    stack = workspace.stack
    cluster = stack.pid("cluster")
    os.kill(cluster, signal.SIGSTOP)
    try:
        assert (await workspace.call(known=False))[0] == 200
        for port in (stack._admin_port, stack._operator_port):
            for path in ("/livez", "/readyz"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as told:
                    assert told.status == 200
    finally:
        os.kill(cluster, signal.SIGCONT)
    assert (await workspace.call())[0] == 200
