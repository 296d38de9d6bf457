"""The console's page: what it is told, and what it never tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from tests.support.fakekube import FakeKube

from beamlit_operator.console.board import Board
from beamlit_operator.console.rows import row_of
from beamlit_operator.console.server import application
from beamlit_operator.kube import MODEL_DEPLOYMENTS, MODELS

Json = dict[str, Any]
DEADLINE = 60.0


def deployment(name: str = "iris-production", **status: Any) -> Json:
    return {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"note": "not-for-the-page"},
        },
        "spec": {"model": "iris", "policies": [{"name": "australia"}]},
        "status": {
            "phase": "Idle",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Idle",
                    "message": "No replica runs.",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "effectivePolicy": {
                "location": {
                    "allowed": ["country:us"],
                    "policies": [
                        {
                            "name": "australia",
                            "level": "deployment",
                            "effect": "overridden",
                            "because": "it allows country:au",
                        }
                    ],
                }
            },
            **status,
        },
    }


def model(name: str) -> Json:
    return {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {},
    }


def test_a_model_s_files_are_told_with_what_they_need_and_how_far_they_are() -> None:
    status = {
        "origin": {"uri": "hf://acme/chat", "revision": "0" * 40, "files": 1, "bytes": 2**31},
        "facts": {"architecture": "llama", "format": "gguf", "weightBytes": 2**31},
        "gpuMemoryBytes": 5 * 2**29,
        "prefetch": {"phase": "Done", "message": "the files are in the cache, 2.0 GiB"},
    }
    row = row_of({**model("chat"), "status": status})
    assert row is not None
    assert row["files"] == [
        "1 file, 2.0 GiB",
        "llama, 2.0 GiB of gguf",
        "needs 2.5 GiB of GPU memory at least",
        "prefetch Done: the files are in the cache, 2.0 GiB",
    ]
    claimed = {"origin": {"uri": "pvc://weights", "revision": "sha256:0", "files": 0, "bytes": 0}}
    row = row_of({**model("claimed"), "status": claimed})
    assert row is not None
    assert row["files"] == []


def test_a_rollout_is_told_with_its_step_its_shares_and_what_was_seen() -> None:
    revisions = [
        {"name": "iris-1", "version": "v1", "traffic": 75, "role": "stable"},
        {"name": "iris-2", "version": "v2", "traffic": 25, "role": "canary"},
    ]
    rollout = {
        "phase": "Analyzing",
        "stable": "iris-1",
        "canary": "iris-2",
        "step": 2,
        "steps": 3,
        "weight": 25,
        "startedAt": "2026-01-01T00:00:00Z",
        "since": "2026-01-01T00:01:00Z",
        "message": "watched for a while",
        "analysis": {"requests": 40, "errorPercent": 2.5},
    }
    row = row_of(deployment(revisions=revisions, rollout=rollout))
    assert row is not None
    assert [(r["role"], r["traffic"]) for r in row["revisions"]] == [("stable", 75), ("canary", 25)]
    assert row["rollout"] == {
        "phase": "Analyzing",
        "stable": "iris-1",
        "canary": "iris-2",
        "step": 2,
        "steps": 3,
        "weight": 25,
        "since": "2026-01-01T00:01:00+00:00",
        "message": "watched for a while",
        "analysis": {
            "requests": 40,
            "errorPercent": 2.5,
            "p95Milliseconds": None,
            "stableP95Milliseconds": None,
            "message": "",
        },
    }
    quiet = row_of(deployment())
    assert quiet is not None
    assert quiet["rollout"] is None


@asynccontextmanager
async def page(cluster: FakeKube) -> AsyncIterator[TestClient[Any, Any]]:
    async with (
        Board(cluster).running() as board,
        TestClient(TestServer(application(board))) as client,
    ):
        yield client


async def next_rows(answer: aiohttp.ClientResponse) -> dict[str, Json | None]:
    """The next batch of the stream, by key."""
    async with asyncio.timeout(DEADLINE):
        while True:
            line = (await answer.content.readline()).decode()
            assert line, "the stream ended"
            if line.startswith("data: "):
                return {e["key"]: e["row"] for e in json.loads(line[6:])}


async def test_the_page_may_run_nothing_but_its_own_script() -> None:
    async with page(FakeKube()) as client:
        first, second = await client.get("/"), await client.get("/")
        policy = first.headers["Content-Security-Policy"]
        text = await first.text()
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe" not in policy
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert text.count(f'nonce="{nonce}"') == 2
    assert nonce not in second.headers["Content-Security-Policy"]
    assert "innerHTML" not in text
    assert "http://" not in text
    assert "https://" not in text


async def test_a_page_gets_everything_and_then_what_changes() -> None:
    cluster = FakeKube()
    await cluster.put(MODEL_DEPLOYMENTS, deployment())
    async with page(cluster) as client, client.get("/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        rows = await next_rows(answer)
        row = rows["ModelDeployment/default/iris-production"]
        assert row is not None
        assert (row["phase"], row["policy"]["location"]["allowed"]) == ("Idle", ["country:us"])
        assert row["policy"]["location"]["policies"][0]["effect"] == "overridden"

        await cluster.put(MODEL_DEPLOYMENTS, deployment(phase="Active", readyReplicas=1))
        changed = (await next_rows(answer))["ModelDeployment/default/iris-production"]
        assert changed is not None
        assert (changed["phase"], changed["readyReplicas"]) == ("Active", 1)

        await cluster.remove(MODEL_DEPLOYMENTS, "default", "iris-production")
        assert await next_rows(answer) == {"ModelDeployment/default/iris-production": None}


async def test_a_page_is_not_told_of_what_it_does_not_show() -> None:
    cluster = FakeKube()
    await cluster.put(MODEL_DEPLOYMENTS, deployment())
    async with page(cluster) as client, client.get("/events") as answer:
        first = json.dumps(await next_rows(answer))
        assert "not-for-the-page" not in first
        unseen = deployment()
        unseen["metadata"]["annotations"]["note"] = "changed"
        await cluster.put(MODEL_DEPLOYMENTS, unseen)
        await cluster.put(MODELS, model("wine"))
        assert list(await next_rows(answer)) == ["Model/default/wine"]


async def test_another_host_name_is_refused() -> None:
    async with page(FakeKube()) as client:
        answer = await client.get("/", headers={"Host": "evil.example:8090"})
        assert answer.status == 403


async def test_nothing_can_be_changed_through_the_page() -> None:
    async with page(FakeKube()) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await client.request(method, "/")).status == 405


@pytest.mark.parametrize(
    ("part", "content"),
    [("kind", "Secret"), ("spec", {"model": 7}), ("status", {"phase": "Lost"})],
)
def test_what_cannot_be_read_has_no_row(part: str, content: Any) -> None:
    assert row_of({**deployment(), part: content}) is None
