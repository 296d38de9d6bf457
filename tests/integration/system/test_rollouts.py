"""Rollouts as a user makes them, with kubectl, while callers go on: nobody sees an error."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.traffic import steady

from .conftest import ready

ORDER = "beamlit.com/rollout"


def endpoint(workspace) -> str:
    return f"{workspace.stack.gateway}/{workspace.name}/models/tiny/predict"


def weights(deployment) -> dict[str, int]:
    rows = deployment["status"].get("revisions", ())
    return {row["name"]: row["traffic"] for row in rows if row["traffic"]}


def run_of(deployment) -> dict:
    return deployment["status"].get("rollout") or {}


def outcomes(deployment) -> list[str]:
    return [each["outcome"] for each in deployment["status"].get("history", ())]


async def serve(workspace, version: str, *, first: bool = False, **spec) -> None:
    """Applies the deployment with this version."""
    envs = {"VERSION": version, **spec.pop("envs", {})}
    if first:
        await workspace.quickstart(envs=envs, **spec)
    else:
        await workspace.deployment(envs=envs, **spec)


async def order(workspace, kind: str, value: str) -> None:
    """As a person would; the value ``-`` takes the annotation away."""
    change = f"{ORDER}-{kind}-" if value == "-" else f"{ORDER}-{kind}={value}"
    await asyncio.to_thread(
        workspace.stack.kubectl,
        *("annotate", "--overwrite", "modeldeployment", "tiny", change, "-n", workspace.name),
    )


async def settled(workspace):
    """Waits until no rollout is under way and all traffic is with one revision."""
    return await workspace.until(
        lambda md: (
            "rollout" not in md["status"]
            and ready(md)["reason"] in ("Serving", "Idle")
            and md["status"]["observedGeneration"] == md["metadata"]["generation"]
        )
    )


async def versions(workspace, count: int = 40) -> set[str]:
    answers = await asyncio.gather(*(workspace.call() for _ in range(count)))
    assert {status for status, _ in answers} == {200}
    return {body["version"] for _, body in answers}


async def only(workspace, version: str) -> None:
    """Waits until this version alone answers: gateways hear a moment after the status says so."""
    async with asyncio.timeout(60):
        while await versions(workspace, 10) != {version}:
            await asyncio.sleep(0.05)


async def test_a_canary_is_approved_survives_an_operator_and_goes_back_at_once(workspace):
    spec = {
        "serverlessConfig": {"minNumReplicas": 2, "maxNumReplicas": 2},
        "rollout": {
            "strategy": "Canary",
            "retention": "10m",
            "steps": [{"weight": 25}, {"weight": 50, "pause": "1s"}],
        },
    }
    await serve(workspace, "1", first=True, **spec)
    await workspace.until(lambda md: md["status"]["readyReplicas"] == 2)
    async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
        await serve(workspace, "2", **spec)
        there = await workspace.until(lambda md: run_of(md).get("phase") == "Paused")
        run = run_of(there)
        assert (run["step"], run["steps"], run["weight"]) == (1, 2, 25)
        assert weights(there) == {run["stable"]: 75, run["canary"]: 25}
        assert ready(there)["reason"] == "RolloutPaused"
        await workspace.until(lambda md: md["status"]["readyReplicas"] == 3)
        async with asyncio.timeout(60):
            while await versions(workspace) != {"1", "2"}:
                await asyncio.sleep(0.05)
        workspace.stack.kill("operator")
        await order(workspace, "promote", f"{run['canary']}/1")
        workspace.stack.start_operator()
        done = await settled(workspace)
        assert weights(done) == {run["canary"]: 100}
        assert outcomes(done) == ["Serving", "Superseded"]
        await only(workspace, "2")
        # Its pods are there still: no step, no start.
        await serve(workspace, "1", **spec)
        back = await settled(workspace)
        assert weights(back) == {run["stable"]: 100}
        await only(workspace, "1")
    assert tally.wrong == []
    assert tally.total > 50


async def test_a_canary_is_aborted_and_an_edit_restarts_one(workspace):
    spec = {
        "serverlessConfig": {"minNumReplicas": 1},
        "rollout": {"strategy": "Canary", "steps": [{"weight": 50}]},
    }
    await serve(workspace, "1", first=True, **spec)
    await workspace.until_ready("Serving")
    async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
        await serve(workspace, "2", **spec)
        there = await workspace.until(lambda md: run_of(md).get("phase") == "Paused")
        second = run_of(there)["canary"]
        await serve(workspace, "3", **spec)
        there = await workspace.until(
            lambda md: run_of(md).get("phase") == "Paused" and run_of(md)["canary"] != second
        )
        run = run_of(there)
        assert weights(there) == {run["stable"]: 50, run["canary"]: 50}
        await order(workspace, "abort", run["canary"])
        there = await workspace.until(lambda md: run_of(md).get("phase") == "Aborted")
        assert weights(there) == {run["stable"]: 100}
        assert (ready(there)["status"], ready(there)["reason"]) == ("True", "RolloutAborted")
        assert "Stalled" in {each["type"] for each in there["status"]["conditions"]}
        await serve(workspace, "1", **spec)
        done = await settled(workspace)
    assert tally.wrong == []
    assert outcomes(done) == ["Aborted", "Aborted", "Serving"]


async def test_a_canary_that_answers_with_errors_rolls_back_by_itself(workspace):
    analysis = {"minimumRequests": 10, "maxErrorPercent": 5}
    spec = {
        "serverlessConfig": {"minNumReplicas": 1},
        "rollout": {"strategy": "Canary", "steps": [{"weight": 50, "analysis": analysis}]},
    }
    await serve(workspace, "1", first=True, **spec)
    await workspace.until_ready("Serving")
    async with steady(workspace.http, lambda: endpoint(workspace), callers=2):
        await serve(workspace, "2", envs={"STATUS": "500"}, **spec)
        there = await workspace.until(lambda md: run_of(md).get("phase") == "RolledBack")
    seen = run_of(there)["analysis"]
    assert (seen["verdict"], seen["errorPercent"]) == ("Bad", 100.0)
    assert weights(there) == {run_of(there)["stable"]: 100}
    assert (ready(there)["status"], ready(there)["reason"]) == ("True", "AnalysisFailed")
    # One that answers is promoted by the same numbers.
    async with steady(workspace.http, lambda: endpoint(workspace), callers=2):
        await serve(workspace, "3", **spec)
        done = await settled(workspace)
    assert outcomes(done) == ["Serving", "RolledBack", "Superseded"]


async def test_with_surge_zero_no_more_replicas_run_than_the_load_needs(workspace):
    spec = {
        "serverlessConfig": {"minNumReplicas": 2, "maxNumReplicas": 2},
        "rollout": {"surge": 0},
    }
    await serve(workspace, "1", first=True, **spec)
    await workspace.until(lambda md: md["status"]["readyReplicas"] == 2)
    most = 0

    def seen(deployment) -> bool:
        nonlocal most
        rows = deployment["status"]["revisions"]
        most = max(most, sum(row["replicas"] for row in rows))
        return (
            "rollout" not in deployment["status"]
            and outcomes(deployment) == ["Serving", "Superseded"]
            and deployment["status"]["readyReplicas"] == 2
        )

    async with steady(workspace.http, lambda: endpoint(workspace)) as tally:
        await serve(workspace, "2", **spec)
        await workspace.until(seen, within=60)
        await only(workspace, "2")
    assert tally.wrong == []
    assert most == 2


async def test_a_trial_start_proves_a_new_revision_and_refuses_a_bad_one(workspace):
    spec = {"rollout": {"retention": "0s"}}
    await serve(workspace, "1", first=True, **spec)
    await workspace.until_ready("Idle")
    await serve(workspace, "2", **spec)
    proven = await workspace.until(lambda md: outcomes(md) == ["Serving", "Superseded"])
    (good,) = weights(proven)
    await workspace.until(lambda md: md["status"]["replicas"] == 0)
    spec["rollout"]["startDeadline"] = "8s"
    await serve(workspace, "3", envs={"CRASH": "no such weights"}, **spec)
    failed = await workspace.until(lambda md: run_of(md).get("phase") == "Failed")
    assert weights(failed) == {good: 100}
    assert ready(failed)["reason"] == "TrialStartFailed"
    assert "no such weights" in ready(failed)["message"]
    await workspace.until(lambda md: len(md["status"]["revisions"]) == 1)
    await only(workspace, "2")


@pytest.mark.parametrize("how", ["deactivated", "deleted"])
async def test_requests_under_way_end_when_a_deployment_is(workspace, under_way, how):
    spec = {"serverlessConfig": {"minNumReplicas": 1}}
    await serve(workspace, "1", first=True, **spec)
    await workspace.until_ready("Serving")
    url = f"{endpoint(workspace)}?{under_way.begins}&{under_way.ends}"
    call = asyncio.create_task(workspace.http.post(url, data=b"{}"))
    await under_way.begun()
    if how == "deleted":
        await workspace.delete("ModelDeployment", "tiny")
    else:
        await serve(workspace, "1", enabled=False, **spec)
        await workspace.until_ready("Deactivated")
    async with asyncio.timeout(60):
        while (await workspace.call(known=False))[0] != 404:
            await asyncio.sleep(0.05)
    assert not call.done()
    under_way.end()
    async with await call as response:
        assert (response.status, (await response.json())["version"]) == (200, "1")
    if how == "deactivated":
        kept = await workspace.get()
        assert outcomes(kept) == ["Serving"]
        await serve(workspace, "1", **spec)
        await only(workspace, "1")
