"""The OpenAI-compatible address of a workspace, through a real Envoy."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
from aiohttp import web
from tests.integration.gateway.conftest import Gateway, ModelServer, until
from yarl import URL

CHAT = "/demo/openai/v1/chat/completions"
JSON = {"content-type": "application/json"}

Answer = tuple[int, dict[str, object], dict[str, str]]


async def post(gateway: Gateway, body: object, *, path: str = CHAT, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = URL(f"{gateway.url}{path}", encoded=True)
    sent = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with gateway.http.post(url, data=io.BytesIO(data), headers=sent) as response:
        return response.status, await response.json(), dict(response.headers)


def reason(answer: Answer) -> tuple[int, object]:
    status, body, _ = answer
    error = body["error"]
    assert isinstance(error, dict)
    assert error["code"] == status
    assert error["message"]
    return status, error["reason"]


async def serve(gateway: Gateway, server: ModelServer, *environments: str) -> None:
    for environment in environments:
        name = await gateway.cluster.deploy("iris", environment=environment)
        await gateway.cluster.ready(f"{name}-1", server)
        await gateway.routed(f"/demo/models/iris?environment={environment}")


@pytest.mark.parametrize(
    ("model", "environment", "path"),
    [
        ("iris", "production", "chat/completions"),
        ("iris@production", "production", "completions"),
        ("iris@staging", "staging", "embeddings?a=b%2Fc"),
        ("iris@staging", "staging", "a/way/that/comes/later"),
    ],
)
async def test_the_model_in_the_body_says_who_answers_and_the_server_sees_its_own_path(
    gateway: Gateway, server: ModelServer, model: str, environment: str, path: str
) -> None:
    await serve(gateway, server, "production", "staging")
    sent = {"messages": [{"role": "user", "content": "\u00e4" * 50}], "model": model}
    status, body, _ = await post(gateway, sent, path=f"/demo/openai/v1/{path}")
    assert status == 200
    assert body["target"] == f"/v1/{path}"
    assert body["bytes"] == len(json.dumps(sent))
    headers = body["headers"]
    assert isinstance(headers, dict)
    assert headers["x-beamlit-cluster"] == f"demo/iris-{environment}/iris-{environment}-1"
    assert not any("openai" in name for name in headers)


async def test_a_sleeping_deployment_is_woken_by_the_model_in_a_body(
    gateway: Gateway, server: ModelServer
) -> None:
    name = await gateway.cluster.deploy("iris")
    await until(lambda: gateway.exists(f"{name}-1"), what="the gateway knows it")

    async def known() -> bool:
        async with gateway.http.get(f"{gateway.url}/demo/openai/v1/models/iris") as response:
            return response.status == 200

    await until(known, what="it is listed")
    asked = asyncio.create_task(post(gateway, {"model": "iris", "stream": True, "x": "y" * 70_000}))
    await until(lambda: gateway.held() == 1, what="the request is held")
    await gateway.cluster.ready(f"{name}-1", server)
    status, body, _ = await asked
    assert (status, body["target"]) == (200, "/v1/chat/completions")
    assert body["bytes"] > 70_000  # type: ignore[operator]
    assert gateway.cluster.scales == 1


async def test_an_answer_streams_chunk_by_chunk(gateway: Gateway, server: ModelServer) -> None:
    """The body of the request is held until it is read, the answer never."""
    more = asyncio.Event()

    async def tokens(request: web.Request) -> web.StreamResponse:
        assert (await request.json())["stream"] is True
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: one\n\n")
        await more.wait()
        await answer.write(b"data: [DONE]\n\n")
        return answer

    app = web.Application()
    app.router.add_get("/", server.answer)
    app.router.add_post("/v1/chat/completions", tokens)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, server.host, server.port + 1).start()
    try:
        name = await gateway.cluster.deploy("iris")
        streaming = ModelServer(server.host, server.port + 1, "streaming")
        await gateway.cluster.ready(f"{name}-1", streaming)
        await gateway.routed()
        sent = {"model": "iris", "stream": True}
        async with gateway.http.post(f"{gateway.url}{CHAT}", json=sent) as response:
            assert await response.content.readline() == b"data: one\n"
            more.set()
            assert (await response.content.read()).endswith(b"[DONE]\n\n")
    finally:
        await runner.cleanup()


async def test_what_is_wrong_with_a_call_is_said_in_both_shapes(
    gateway: Gateway, server: ModelServer
) -> None:
    await gateway.cluster.deploy("mnist", environment="staging")
    await gateway.cluster.deploy("off", enabled=False)
    await gateway.cluster.deploy("new", revisions={}, problem=("SecretNotFound", "no secret s3"))
    await serve(gateway, server, "production")
    await gateway.routed("/demo/models/new", status=503)
    for body, expected in [
        ({"model": "IRIS"}, (404, "UnknownModel")),
        ({"model": "iris@nowhere"}, (404, "UnknownModel")),
        ({"model": "org/iris"}, (404, "UnknownModel")),
        ({"model": "iris\n"}, (404, "UnknownModel")),
        ({"model": "iris" + "s" * 1000}, (404, "UnknownModel")),
        ({"model": "i" * 519 + "@"}, (404, "UnknownModel")),
        ({"model": 5}, (404, "UnknownModel")),
        ({"model": "mnist"}, (404, "UnknownEnvironment")),
        ({"model": "off"}, (404, "Deactivated")),
        ({"model": "off@production"}, (404, "Deactivated")),
        ({"model": "new"}, (503, "SecretNotFound")),
        ({"model": ""}, (400, "BadRequest")),
        ({"model": None}, (400, "BadRequest")),
        ({"model": ["iris"]}, (400, "BadRequest")),
        ({"model": "i" * 1_000_000}, (400, "BadRequest")),
        ({"input": {"model": "iris"}}, (400, "BadRequest")),
        (["iris"], (400, "BadRequest")),
        (b"", (400, "BadRequest")),
        (b"model=iris", (400, "BadRequest")),
        (b'{"model": "iris", "deep": ' + b"[" * 1_000_000, (400, "BadRequest")),
    ]:
        answer = await post(gateway, body)
        assert reason(answer) == expected, str(body)[:80]
        error = answer[1]["error"]
        assert isinstance(error, dict)
        kind = "invalid_request_error" if expected[0] < 500 else "server_error"
        assert (error["type"], error["param"]) == (kind, None)
    for content_type, expected in [("text/plain", (415, "UnsupportedMediaType"))]:
        answer = await post(gateway, {"model": "iris"}, content_type=content_type)
        assert reason(answer) == expected
    for content_type in (
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x+json",
    ):
        answer = await post(gateway, {"model": "iris"}, content_type=content_type)
        assert answer[0] == 200, content_type
    answer = await post(gateway, {"model": "iris"}, path="/nowhere/openai/v1/completions")
    assert reason(answer) == (404, "UnknownWorkspace")
    async with gateway.http.get(f"{gateway.url}{CHAT}") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
    assert [target for target in server.requests if target.startswith("/v1/chat")] == [
        "/v1/chat/completions"
    ] * 3
    assert gateway.cluster.scales == 0


async def test_the_list_of_models_is_what_the_workspace_serves(
    gateway: Gateway, server: ModelServer
) -> None:
    await gateway.cluster.deploy("off", enabled=False)
    await gateway.cluster.deploy("rose", workspace="other")
    await serve(gateway, server, "production", "staging")

    async def get(path: str) -> tuple[int, dict[str, object]]:
        async with gateway.http.get(f"{gateway.url}/demo/openai/v1/{path}") as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    def entry(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": 1735689600, "owned_by": "demo"}

    both = [entry("iris"), entry("iris@staging")]
    for path in ("models", "models?limit=5"):
        assert await get(path) == (200, {"object": "list", "data": both})
    assert await get("models/iris") == (200, entry("iris"))
    assert await get("models/iris@staging") == (200, entry("iris@staging"))
    for path in (
        "models/off",
        "models/irises",
        "models/iris@dev",
        "models/",
        "models/a/b",
        "models/zzz",
    ):
        status, body = await get(path)
        assert (status, body["error"]["reason"]) == (404, "UnknownModel"), path  # type: ignore[index]
    assert reason(await post(gateway, {}, path="/demo/openai/v1/models")) == (
        405,
        "MethodNotAllowed",
    )


async def test_a_body_above_the_limit_is_a_413_here_and_nowhere_else(
    gateway: Gateway, server: ModelServer
) -> None:
    await serve(gateway, server, "production")
    limit = gateway.settings.openai_body_limit
    within, above = ({"model": "iris", "pad": "x" * size} for size in (limit - 100, limit))
    assert (await post(gateway, within))[0] == 200
    answer = await post(gateway, above)
    assert reason(answer) == (413, "PayloadTooLarge")
    error = answer[1]["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["param"]) == ("invalid_request_error", None)
    assert (await post(gateway, above, path="/demo/models/iris/v1/chat"))[0] == 200
