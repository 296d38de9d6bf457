"""What counts while nobody can be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.authentication.conftest import running_scene
from tests.integration.gateway.conftest import until


@pytest.mark.long
async def test_known_callers_are_served_for_a_while_and_nobody_else_is_let_in(tmp_path: Path):
    # Longer than one request waits for an agent that may start again.
    async with running_scene(tmp_path, decision_stale=9.0) as scene:
        await scene.deploy("iris", scene.server)
        path = "/demo/models/iris"
        # A gateway that says it is ready knows callers from the first request on.
        assert (await scene.call(path, token=scene.prober))[0] != 503
        await scene.permit(await scene.account("known"))
        token, unseen = await scene.token("known"), await scene.token("known")
        await scene.until_status(200, path, token=token)
        await scene.end_agent()
        scene.server.requests.clear()
        seen: list[int] = []

        async def refused() -> bool:
            status, _ = await scene.call(path, token=token)
            seen.append(status)
            return status == 503

        assert not await refused()
        async with scene.http.get(
            scene.url + path, headers={"Authorization": f"Bearer {unseen}"}
        ) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
            assert (await answer.json())["error"]["reason"] == "Undecided"
        assert (await scene.call(path, token="no.token.this"))[0] in (401, 503)
        assert (await scene.call(path))[0] == 401
        await until(refused, what="what was known is too old")
        assert set(seen) == {200, 503}
        assert len(scene.server.requests) == seen.count(200)


async def test_a_caller_that_is_new_waits_for_an_agent_that_starts_again(tmp_path: Path):
    async with running_scene(tmp_path) as scene:
        await scene.deploy("iris", scene.server)
        path = "/demo/models/iris"
        await scene.permit(await scene.account("new"))
        await scene.until_status(200, path, token=scene.prober)
        token = await scene.token("new")
        await scene.end_agent()
        call = asyncio.create_task(scene.call(path, token=token))
        async with scene.another_agent():
            assert (await call)[0] == 200
