"""Every address of a deployment is guarded, and none tells what exists."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.authentication.conftest import Scene
from tests.integration.authentication.test_tokens import ready

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/demo/openai/v1/chat/completions"


def addresses(model: str, workspace: str = "demo") -> list[dict[str, object]]:
    """One request for each address that a deployment has, or would have."""

    def host(name: str, path: str = "/v2/models/x/infer") -> dict[str, object]:
        return {"path": path, "headers": {"Host": name}}

    deployment = f"{model}-production"
    chat = {"path": f"/{workspace}/openai/v1/chat/completions", "method": "POST"}
    return [
        {"path": f"/{workspace}/models/{model}"},
        {"path": f"/{workspace}/models/{model}/v2/infer?environment=production"},
        {"path": f"/{workspace}/models/{model}?environment=elsewhere"},
        host(f"{deployment}.{workspace}.models.test"),
        host(f"{deployment}.{workspace}.models.test", "/"),
        host(f"{deployment}.{workspace}"),
        host(f"{deployment}.{workspace}.svc"),
        host(f"{deployment}.{workspace}.svc.cluster.local"),
        {**chat, "json": {"model": model}},
        {**chat, "json": {"model": f"{model}@production"}},
        {"path": f"/{workspace}/openai/v1/models/{model}"},
        {"path": f"/{workspace}/openai/v1/models"},
        {"path": f"/{workspace}/openai/v1/models", "method": "POST"},
        {"path": f"/{workspace}/models/"},
        {"path": f"/{workspace}/models/{model}%2f%ff?environment=%00"},
        host(f"{deployment}.{workspace}_%", "/"),
    ]


async def test_every_address_answers_alike_for_what_exists_and_what_does_not(scene: Scene):
    await ready(scene, "secret")
    await scene.account("stranger")
    token = await scene.token("stranger")
    scene.server.requests.clear()
    for credential, status in (("", 401), (token, 403)):
        here, gone, nowhere = [
            [await answer(scene, request, credential) for request in addresses(*which)]
            for which in (("secret",), ("absent",), ("secret", "missing"))
        ]
        assert [each[0] for each in here] == [status] * len(here), here
        assert here == gone == nowhere
    assert not scene.server.requests


async def answer(scene: Scene, request: dict[str, object], token: str) -> tuple[int, bytes, dict]:
    """Status, body and headers, without those that every answer has of its own."""
    headers = dict(request.get("headers") or {})  # type: ignore[call-overload]
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with scene.http.request(
        str(request.get("method", "GET")),
        f"{scene.url}{request['path']}",
        headers=headers,
        json=request.get("json"),
    ) as found:
        mine = {"date", "x-request-id"}
        rest = {k.lower(): v for k, v in found.headers.items() if k.lower() not in mine}
        return found.status, await found.read(), rest


async def test_who_may_call_one_deployment_reaches_it_by_every_address_and_no_other(scene: Scene):
    await ready(scene, "mine")
    await ready(scene, "theirs")
    await scene.permit(await scene.account("narrow"), deployments=("mine-production",))
    token = await scene.token("narrow")
    await scene.until_status(200, "/demo/models/mine", token=token)
    expected = [200, 200, 403, 200, 200, 200, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403]
    found = [(await answer(scene, each, token))[0] for each in addresses("mine")]
    assert found == expected
    others = [(await answer(scene, each, token))[0] for each in addresses("theirs")]
    assert others == [403] * len(others)


async def test_who_may_call_all_of_a_workspace_is_told_what_is_not_there(scene: Scene):
    await ready(scene, "present")
    await scene.permit(await scene.account("wide"))
    token = await scene.token("wide")
    await scene.until_status(404, "/demo/models/lost", token=token)
    reasons = {
        "/demo/models/lost": "UnknownModel",
        "/demo/models/present?environment=elsewhere": "UnknownEnvironment",
        "/demo/models/presents": "UnknownModel",
        "/other/models/lost": "Forbidden",
        "/": "NotFound",
    }
    found = {path: (await scene.call(path, token=token))[1]["error"]["reason"] for path in reasons}
    assert found == reasons
    status, listed = await scene.call("/demo/openai/v1/models", token=token)
    assert status == 200
    assert "present" in [model["id"] for model in listed["data"]]


async def test_a_hosts_name_that_one_may_not_call_is_as_one_that_does_not_exist(scene: Scene):
    await scene.workspace("own")
    await ready(scene, "hidden")
    await scene.deploy("own", scene.server, workspace="own")
    await scene.permit(await scene.account("insider"), "own")
    token = await scene.token("insider")
    await scene.until_status(200, "/own/models/own", token=token)
    for model in ("hidden", "absent"):
        for name in (f"{model}-production.demo", f"{model}-production.demo.models.test"):
            call = scene.call("/own/models/own/x", token=token, headers={"Host": name})
            status, body = await call
            assert (status, body["target"], body["headers"]["host"]) == (200, "/x", name)
            status, body = await scene.call("/x", token=token, headers={"Host": name})
            assert status == 403


async def test_401_comes_before_the_body_is_read(scene: Scene):
    reader, writer = await asyncio.open_connection(
        scene.settings.listen.host, scene.settings.listen.port
    )
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 5000000\r\n\r\n".encode())
    line = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    assert b" 401 " in line


async def test_what_is_wrong_with_a_body_is_told_to_who_is_authenticated(scene: Scene):
    await scene.account("sloppy")
    token = await scene.token("sloppy")
    reasons = set()
    for workspace in ("demo", "missing"):
        path = f"/{workspace}/openai/v1/chat/completions"
        json_type = {"Content-Type": "application/json"}
        found = (
            await scene.call(path, token=token),
            await scene.call(path, token=token, method="POST", data=b"x"),
            await scene.call(path, token=token, method="POST", data=b"{", headers=json_type),
            await scene.call(path, token=token, method="POST", json={}),
            await scene.call(path, token=token, method="POST", json={"model": ""}),
            await scene.call(path, method="POST", json={"model": ""}),
        )
        reasons.add(tuple(body["error"]["reason"] for _, body in found))
    bad = "BadRequest"
    assert reasons == {
        ("MethodNotAllowed", "UnsupportedMediaType", bad, bad, bad, "Unauthenticated")
    }
