"""Rollouts that the gateway's own numbers end, one way or the other, while callers go on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from .conftest import ready

ANALYSIS = {"minimumRequests": 20, "maxErrorPercent": 10, "maxLatencyPercent": 100_000}


def spec(analysis: dict[str, object]) -> dict[str, object]:
    steps = [{"weight": 50, "analysis": analysis}]
    return {
        "serverlessConfig": {"minNumReplicas": 1},
        "rollout": {"strategy": "Canary", "steps": steps, "retention": "0s"},
    }


async def calls(workspace, seen: Counter[tuple[int, str]]) -> None:
    url = f"{workspace.stack.gateway}/{workspace.name}/models/tiny/predict"
    while True:
        async with workspace.http.post(url, data=b"{}") as response:
            body = await response.json()
            seen[response.status, body["version"]] += 1


def run_of(deployment) -> dict:
    return deployment["status"].get("rollout") or {}


def weights(deployment) -> list[int]:
    return sorted(row["traffic"] for row in deployment["status"]["revisions"] if row["traffic"])


@pytest.mark.long
async def test_a_canary_that_fails_goes_back_and_a_good_one_goes_through_by_themselves(workspace):
    await workspace.quickstart(envs={"VERSION": "1"}, **spec(ANALYSIS))
    await workspace.until_ready("Serving")
    seen: Counter[tuple[int, str]] = Counter()
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(calls(workspace, seen)) for _ in range(3)]
        # Good in everything but one thing: its answers.
        await workspace.deployment(envs={"VERSION": "2", "STATUS": "500"}, **spec(ANALYSIS))
        back = await workspace.until(lambda md: run_of(md).get("phase") == "RolledBack", within=60)
        assert weights(back) == [100]
        assert ready(back)["status"] == "True"
        assert run_of(back)["analysis"]["errorPercent"] > 90
        failed = seen[500, "2"]
        assert failed >= ANALYSIS["minimumRequests"]
        await workspace.deployment(envs={"VERSION": "3"}, **spec(ANALYSIS))
        done = await workspace.until(
            lambda md: "rollout" not in md["status"] and weights(md) == [100], within=60
        )
        for caller in callers:
            caller.cancel()
    assert [each["outcome"] for each in done["status"]["history"]] == [
        "Serving",
        "RolledBack",
        "Superseded",
    ]
    assert seen[200, "3"] >= ANALYSIS["minimumRequests"]
    # Nobody met an error but those who were given to the one that failed.
    assert {key for key in seen if key[0] != 200} == {(500, "2")}
