"""What somebody tries who wants in, wants to know what there is, or wants others kept out."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from tests.integration.authentication.conftest import Scene, running_scene
from tests.integration.authentication.test_tokens import ready
from tests.integration.gateway.conftest import until
from tests.support.gatewayobjects import model_deployment
from tests.support.logs import json_lines

from beamlit_operator.gateway import gate
from beamlit_operator.gateway.settings import Address
from beamlit_operator.kube import MODEL_DEPLOYMENTS, SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("credential", ["none", "wrong", "without a right"])
async def test_a_public_path_answers_alike_whatever_host_name_is_guessed(
    scene: Scene, credential: str
):
    suffix = credential.replace(" ", "-")
    await ready(scene, f"covert-{suffix}")
    path = await ready(scene, f"everybodys-{suffix}", endpoint={"public": True})
    await scene.until_status(200, path)
    await scene.account(f"curious-{suffix}")
    tokens = {
        "none": "",
        "wrong": "wrong",
        "without a right": await scene.token(f"curious-{suffix}"),
    }
    for model in (f"covert-{suffix}", "absent"):
        for host in (f"{model}-production.demo", f"{model}-production.demo.models.test"):
            call = scene.call(f"{path}/x", token=tokens[credential], headers={"Host": host})
            status, body = await call
            assert (status, body.get("target")) == (200, "/x"), host
            # Taken from a caller of what is public: nothing.
            assert ("authorization" in body["headers"]) == bool(tokens[credential])


async def test_another_address_of_the_same_is_as_many_questions_for_what_does_not_exist(
    scene: Scene,
):
    await ready(scene, "counted")
    await scene.account("timer")
    token = await scene.token("timer")
    # That nothing of the workspace may be called by them is known from now on.
    assert (await scene.call("/demo/models/other", token=token))[0] == 403
    asked = {}
    for model in ("counted", "absent"):
        found = []
        for request in (
            {"path": f"/demo/models/{model}"},
            {"path": "/", "headers": {"Host": f"{model}-production.demo"}},
            {"path": "/", "headers": {"Host": f"{model}-production.demo.models.test"}},
        ):
            before = _named_reviews(scene)
            status, _ = await scene.call(token=token, **request)
            assert status == 403
            found.append(_named_reviews(scene) - before > 0)
        asked[model] = found
    assert asked == {"counted": [True] * 3, "absent": [True] * 3}


def _named_reviews(scene: Scene) -> float:
    return scene.metric('beamlit_gateway_review_calls_total{kind="SubjectAccessReview"')


async def test_one_who_asks_for_ever_new_names_leaves_room_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # In proportion, so that the flood leaves this process time to answer.
    monkeypatch.setattr(gate, "REVIEWS_AT_ONCE", 64)
    monkeypatch.setattr(gate, "QUESTIONS", 16)
    async with running_scene(tmp_path) as scene:
        path = await ready(scene, "shared")
        await scene.account("greedy")
        token = await scene.token("greedy")
        await scene.permit(await scene.account("honest"))
        honest = [await scene.token("honest") for _ in range(5)]
        assert (await scene.call("/demo/models/none", token=token))[0] == 403
        seen: Counter[int] = Counter()

        async def ask_on(session: aiohttp.ClientSession, number: int) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            for turn in range(10_000):
                url = f"{scene.url}/demo/models/m{number}-{turn}"
                async with session.get(url, headers=headers) as answer:
                    seen[answer.status] += 1

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            flood = [asyncio.create_task(ask_on(session, number)) for number in range(100)]
            try:
                await until(lambda: seen[503] > 200, what="the flood is more than is let through")
                answers = [(await scene.call(path, token=each))[0] for each in honest]
            finally:
                for task in flood:
                    task.cancel()
                await asyncio.gather(*flood, return_exceptions=True)
        assert answers == [200] * 5
        assert set(seen) == {403, 503}


async def test_a_copy_of_a_key_in_another_workspace_takes_nothing_from_it(scene: Scene):
    path = await ready(scene, "copied")
    await scene.workspace("copy")
    key = await scene.api_key("copy", id="00000000000000b1")
    await scene.until_status(403, path, token=key)
    assert await scene.api_key("demo", id="00000000000000b1") == key
    await scene.until_status(200, path, token=key)


async def test_names_without_end_count_as_one(tmp_path: Path):
    async with running_scene(tmp_path, decision_ttl=60.0) as scene:
        await scene.account("wordy")
        token = await scene.token("wordy")
        long = "x" * 2000
        paths = [f"/demo/models/{number}{long}" for number in range(12)]
        assert [(await scene.call(path, token=token))[0] for path in paths] == [403] * 12
        # The first was asked about, and the others are as that one.
        assert scene.metric('beamlit_gateway_reviews_total{kind="token",verdict="deny"') <= 2


@pytest.mark.parametrize("place", ["at once", "after the agent answered"])
async def test_a_script_that_fails_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    broken = "if handle:headers():get('x-break') then error('broken') end"
    start = {
        "at once": r"\nlocal function unknown\([^)]*\)\n",
        "after the agent answered": r"\n  local answer, headers = ask\([^)]*\)\n",
    }
    source, replaced = re.subn(start[place], lambda found: f"{found[0]}{broken}\n", gate._source())
    assert replaced == 1
    monkeypatch.setattr(gate, "_source", lambda: source)
    async with running_scene(tmp_path) as scene:
        await scene.deploy("iris", scene.server)
        await scene.until_status(200, "/demo/models/iris", token=scene.prober)
        scene.server.requests.clear()
        await scene.account("other")
        token = await scene.token("other")
        call = scene.call("/demo/models/iris", token=token, headers={"x-break": "1"})
        status, body = await call
        assert (status, body["error"]["reason"]) == (503, "Undecided")
        assert not scene.server.requests


async def test_a_refusal_tells_nothing_of_a_rollout_and_counts_for_no_revision(tmp_path: Path):
    log = tmp_path / "access.log"
    async with running_scene(tmp_path, access_log=str(log)) as scene:
        path = await ready(scene, "rolling")
        traffic = {"rolling-production-1": 90, "rolling-production-2": 10}
        status = model_deployment("rolling-production", model="rolling", traffic=traffic)["status"]
        await scene.admin.merge_patch(
            MODEL_DEPLOYMENTS,
            "rolling-production",
            {"status": status},
            "demo",
            subresource="status",
        )
        stable = {"x-beamlit-revision": "rolling-production-1"}

        async def told() -> bool:
            headers = {**stable, "Authorization": f"Bearer {scene.prober}"}
            async with scene.http.get(scene.url + path, headers=headers) as answer:
                return answer.headers.get("x-beamlit-revision") == "rolling-production-1"

        await until(told, what="both revisions have routes")
        await scene.account("stranger")
        host = {"Host": "rolling-production.demo"}
        for token in ("", await scene.token("stranger")):
            for asked, headers in (("/demo/models/absent", stable), (path, stable), ("/", host)):
                sent = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
                async with scene.http.get(scene.url + asked, headers=sent) as answer:
                    assert answer.status == (403 if token else 401)
                    assert "x-beamlit-revision" not in answer.headers
        refused = _refused(log)
        await until(lambda: len(_refused(log)) == 6, what="the refusals are logged")
        refused = _refused(log)
        assert [entry["path"] for entry in refused] == ["/demo/models/absent", path, "/"] * 2
        assert not any(entry["deployment"] for entry in refused)
        assert [bool(entry["caller"]) for entry in refused] == [False] * 3 + [True] * 3


def _refused(log: Path) -> list[dict[str, object]]:
    return [entry for entry in json_lines(log) if entry.get("code") in (401, 403)]


async def test_a_flood_of_guesses_keeps_no_key_alive_that_was_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gate, "KEY_REVIEWS", 2)
    async with running_scene(tmp_path) as scene:
        path = await ready(scene, "flooded")
        key = await scene.api_key(id="00000000000000c1")
        await scene.until_status(200, path, token=key)
        seen: set[bytes] = set()
        flood = [
            asyncio.create_task(_guess(number, scene.settings.listen, path, seen))
            for number in range(2)
        ]
        try:
            await until(lambda: b"503" in seen, what="the flood is more than is let through")
            await scene.admin.delete(SECRETS, "beamlit-api-keys", "demo")
            await scene.until_status(401, path, token=key)
            assert not any(task.done() for task in flood)
        finally:
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)


async def _guess(number: int, listen: Address, path: str, seen: set[bytes]) -> None:
    """Tries API keys, a hundred at a time; what answers there were."""
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    try:
        for turn in range(10_000):
            guessed = [f"blk_{number:016x}_{turn * 100 + i:043d}" for i in range(100)]
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
            writer.write("".join(request % one for one in guessed).encode())
            for _ in guessed:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.add(head[9:12])
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
    finally:
        writer.close()
