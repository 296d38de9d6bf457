"""A deployment's whole life, as the one who deploys and the one who calls see it."""

import asyncio
from datetime import UTC, datetime, timedelta

from beamlit_operator.kube import Json

from .conftest import SETTLED, ready, reason_of


async def test_a_sleeping_deployment_wakes_once_for_many_callers(workspace):
    await workspace.quickstart()
    resting = await workspace.until_ready("Idle")
    assert resting["status"]["phase"] == "Idle"
    assert await workspace.pods() == []
    answers = await asyncio.gather(*(workspace.call() for _ in range(20)))
    assert [status for status, _ in answers] == [200] * 20
    assert {body["path"] for _, body in answers} == {"/predict"}
    assert len(await workspace.pods()) == 1
    active = await workspace.until_ready("Serving")
    assert active["status"]["phase"] == "Active"
    assert active["status"]["url"].endswith(f"/{workspace.name}/models/tiny?environment=production")


async def test_the_request_reaches_the_model_server_as_it_was_sent(workspace):
    await workspace.quickstart()
    body = bytes(range(256)) * 4096
    status, answer = await workspace.call("/a%2Fb//c", query="?environment=production", body=body)
    assert status == 200
    assert answer["path"].startswith("/a%2Fb//c")
    assert answer["received"] == len(body)


async def test_load_adds_replicas_and_idleness_removes_them(workspace):
    await workspace.quickstart(
        serverlessConfig={"target": "2", "stableWindow": "6s", "maxNumReplicas": 3}
    )
    stop = asyncio.Event()

    async def keep_calling() -> set[int]:
        seen = set()
        while not stop.is_set():
            status, _ = await workspace.call(query="?seconds=0.2")
            seen.add(status)
        return seen

    callers = [asyncio.create_task(keep_calling()) for _ in range(8)]
    grown = await workspace.until(lambda md: md.get("status", {}).get("readyReplicas", 0) >= 2)
    assert grown["status"]["readyReplicas"] <= 3
    stop.set()
    assert set().union(*await asyncio.gather(*callers)) == {200}
    await workspace.until(lambda md: md["status"]["phase"] == "Idle", within=90)


async def test_a_new_version_takes_over_without_a_failed_request(workspace):
    await workspace.quickstart(envs={"VERSION": "1"})
    assert (await workspace.call())[1]["version"] == "1"
    stop = asyncio.Event()

    async def keep_calling() -> list[tuple[int, str]]:
        answers = []
        while not stop.is_set():
            status, body = await workspace.call()
            answers.append((status, body.get("version")))
        return answers

    callers = [asyncio.create_task(keep_calling()) for _ in range(4)]
    await workspace.deployment(envs={"VERSION": "2", "START_SECONDS": "1"})
    await workspace.until(
        lambda md: (
            len(md["status"]["revisions"]) == 1
            and md["metadata"]["generation"] == md["status"]["observedGeneration"]
            and ready(md)["status"] == "True"
        )
    )
    stop.set()
    for answers in await asyncio.gather(*callers):
        assert {status for status, _ in answers} == {200}
        versions = [version for _, version in answers]
        assert versions == sorted(versions), "the old version answered after the new one"
    assert (await workspace.call())[1]["version"] == "2"


async def test_a_deactivated_deployment_says_so_and_comes_back(workspace):
    await workspace.quickstart()
    assert (await workspace.call())[0] == 200
    await workspace.deployment(enabled=False)
    await workspace.until(lambda md: md["status"]["phase"] == "Deactivated")
    body = await not_found(workspace)
    assert "deactivated" in body["error"]["message"]
    await workspace.deployment(enabled=True)
    await workspace.until(lambda md: md["status"]["phase"] in ("Idle", "Active"))
    assert (await workspace.call())[0] == 200


async def not_found(workspace) -> Json:
    """The gateway's answer, which hears a moment after the status was written."""
    async with asyncio.timeout(SETTLED):
        while (answer := await workspace.call(known=False))[0] != 404:
            await asyncio.sleep(0.05)
    return answer[1]


async def test_an_unknown_name_is_answered_with_what_is_unknown(workspace):
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    async with asyncio.timeout(SETTLED):
        while (
            reason_of((await workspace.call(model="nobody", known=False))[1]) == "UnknownWorkspace"
        ):
            await asyncio.sleep(0.1)
    for arguments, word in [
        ({"model": "nobody"}, "has no deployment of this model"),
        ({"query": "?environment=staging"}, "environment"),
    ]:
        status, body = await workspace.call(**arguments, known=False)
        assert (status, body["error"]["code"]) == (404, 404)
        assert word in body["error"]["message"]


async def test_a_deleted_deployment_leaves_nothing(workspace):
    await workspace.quickstart()
    assert (await workspace.call())[0] == 200
    await workspace.delete("ModelDeployment", "tiny")
    for _ in range(600):
        left = await asyncio.to_thread(
            workspace.stack.kubectl,
            *("get", "deployments,services,pods,replicasets", "-o", "name", "-n", workspace.name),
        )
        if not left:
            break
        await asyncio.sleep(0.05)
    assert left == ""
    await not_found(workspace)


async def test_a_second_deployment_of_the_same_model_and_environment_is_a_duplicate(workspace):
    await workspace.quickstart()
    first = await workspace.until_ready("Idle")
    # Creation times have whole seconds, and which of two is the older must be clear.
    created = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
    while datetime.now(UTC) <= created + timedelta(seconds=1):
        await asyncio.sleep(0.05)
    await workspace.apply("ModelDeployment", "copy", {"model": "tiny"})
    copy = await workspace.until_ready("Duplicate", "copy")
    assert "tiny" in ready(copy)["message"]
    assert ready(await workspace.get("tiny"))["status"] == "True"
