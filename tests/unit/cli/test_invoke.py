"""``beamlit invoke`` against an API server and a gateway made for the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from beamlit_operator.cli.cluster import Target
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.invoke import invoke_command

Json = dict[str, Any]

REFUSAL = {"error": {"code": 503, "reason": "StartFailed", "message": "the server crashed"}}


async def _list(request: web.Request) -> web.Response:
    deployment = {
        "metadata": {"name": "iris-production", "namespace": "default"},
        "spec": {"model": "iris", "environment": "production"},
        "status": {"url": f"http://{request.host}/default/models/iris?environment=production"},
    }
    return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [deployment]})


async def _infer(request: web.Request) -> web.Response:
    assert request.query["environment"] == "production"
    sent = await request.json()
    if sent.get("fail") == "json":
        return web.json_response(REFUSAL, status=503)
    if sent.get("fail") == "text":
        return web.Response(text="no such thing", status=500)
    return web.json_response({"outputs": sent["inputs"]})


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    app = web.Application()
    group = "/apis/beamlit.com/v1alpha1/namespaces/default/modeldeployments"
    app.router.add_get(group, _list)
    app.router.add_post("/default/models/iris/v2/models/iris/infer", _infer)
    async with TestServer(app) as server:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("/"))}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )
        yield Target(kubeconfig, "default")


async def invoke(target: Target, data: str, *, environment: str = "production") -> int:
    async with asyncio.timeout(60):
        return await invoke_command("iris", target, environment=environment, data=data, path=None)


async def test_the_answer_is_printed(
    target: Target, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    body = tmp_path / "request.json"
    body.write_text('{"inputs": [7]}')
    assert await invoke(target, f"@{body}") == 0
    assert json.loads(capsys.readouterr().out) == {"outputs": [7]}


async def test_a_refusal_is_a_sentence_with_its_reason(target: Target) -> None:
    with pytest.raises(CommandError, match="answered 503: StartFailed: the server crashed"):
        await invoke(target, '{"fail": "json"}')


async def test_any_other_failure_is_shown_as_it_came(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match="answered 500: see above"):
        await invoke(target, '{"fail": "text"}')
    assert capsys.readouterr().out == "no such thing\n"


async def test_an_environment_without_the_model_is_said_and_the_others_are_named(
    target: Target,
) -> None:
    with pytest.raises(CommandError, match="it is deployed in: production"):
        await invoke(target, "{}", environment="development")
