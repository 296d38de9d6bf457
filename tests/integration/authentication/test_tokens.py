"""Who may call: every kind of token, through a real Envoy and an API server with RBAC."""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.integration.authentication.conftest import ROLE_BINDINGS, Scene
from tests.integration.gateway.conftest import until

from beamlit_operator.kube import SECRETS, SERVICE_ACCOUNTS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ready(scene: Scene, model: str, **more: object) -> str:
    """A deployment that answers; its path."""
    await scene.deploy(model, scene.server, **more)  # type: ignore[arg-type]
    path = f"/demo/models/{model}"
    await scene.until_status(200, path, token=scene.prober)
    return path


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def bad_tokens(scene: Scene) -> dict[str, str]:
    now = int(time.time())
    good = scene.issuer.token()
    head, body, signature = good.split(".")
    claims = {"iss": scene.issuer.url, "aud": "beamlit-test", "sub": "ada", "exp": now + 600}
    none = _base64(json.dumps({"alg": "none"}).encode())
    public = scene.issuer.key.as_pem(private=False)
    hmac_head = _base64(json.dumps({"alg": "HS256", "kid": "1"}).encode())
    forged = hmac.digest(public, f"{hmac_head}.{body}".encode(), "sha256")
    stranger = RSAKey.generate_key(2048, {"kid": "1"})
    other = jwt.encode({"alg": "RS256"}, {**claims, "sub": "eve"}, stranger).split(".")[1]
    return {
        "no token": "",
        "text": "let-me-in",
        "two dots": "a.b.c",
        "expired": scene.issuer.token(exp=now - 60),
        "not valid yet": scene.issuer.token(nbf=now + 600),
        "for somebody else": scene.issuer.token(aud="another"),
        "of another issuer": scene.issuer.token(iss="https://elsewhere.test"),
        "without an end": jwt.encode(
            {"alg": "RS256", "kid": "1"},
            {k: v for k, v in claims.items() if k != "exp"},
            scene.issuer.key,
        ),
        "signed by somebody else": jwt.encode({"alg": "RS256", "kid": "1"}, claims, stranger),
        "with another body": f"{head}.{other}.{signature}",
        "without a signature": f"{head}.{body}.",
        "alg none": f"{none}.{body}.",
        "public key taken for a secret": f"{hmac_head}.{body}.{_base64(forged)}",
        "nobody's name": scene.issuer.token(sub=7),
        "a name of Kubernetes' own, cut off": scene.issuer.token(sub=""),
        "no API key": "blk_0123456789abcdef_short",
        "an API key that never was": "blk_00000000000000ff_" + "A" * 43,
        "too long": "a" * 20_000,
    }


async def test_bad_tokens_are_401_and_neither_reach_nor_wake_a_model(scene: Scene):
    awake, asleep = await ready(scene, "strict"), "/demo/models/asleep-strict"
    await scene.deploy("asleep-strict")
    await scene.permit("oidc:ada")
    await scene.until_status(200, awake, token=scene.issuer.token())
    scene.server.requests.clear()
    answers = set()
    for what, token in bad_tokens(scene).items():
        for path in (awake, asleep):
            status, body = await scene.call(path, token=token)
            assert status == 401, what
            answers.add(json.dumps(body))
    assert len(answers) == 1
    assert "Unauthenticated" in answers.pop()
    assert not scene.server.requests
    assert await scene.replicas("asleep-strict-production") == 0


async def test_an_account_with_the_right_calls_and_its_token_stays_at_the_gateway(scene: Scene):
    path = await ready(scene, "open")
    await scene.permit(await scene.account("one"), deployments=("open-production",))
    token = await scene.token("one")
    answer = await scene.until_status(200, path, token=token)
    assert "authorization" not in answer["headers"]
    ours = {"X-Beamlit-Authorization": f"bearer {token}", "Authorization": "Basic bW9kZWw6b3du"}
    status, answer = await scene.call(path, headers=ours)
    assert status == 200
    assert answer["headers"]["authorization"] == "Basic bW9kZWw6b3du"
    assert "x-beamlit-authorization" not in answer["headers"]
    wrong = {"X-Beamlit-Authorization": "Bearer wrong", "Authorization": f"Bearer {token}"}
    assert (await scene.call(path, headers=wrong))[0] == 401


async def test_a_token_for_the_api_server_is_none_for_the_gateway(scene: Scene):
    path = await ready(scene, "audience")
    await scene.permit(await scene.account("two"))
    api = await scene.token("two", audience="https://kubernetes.default.svc.cluster.local")
    assert (await scene.call(path, token=api))[0] == 401
    assert (await scene.call(path, token=await scene.token("two")))[0] == 200


async def test_another_issuers_groups_have_rights(scene: Scene):
    path = await ready(scene, "grouped")
    token = scene.issuer.token(sub="bob", groups=["data", "system:masters"])
    status, body = await scene.call(path, token=token)
    assert status == 403
    assert "oidc:bob" in body["error"]["message"]
    await scene.permit("oidc:data", kind="Group", deployments=("grouped-production",))
    await scene.until_status(200, path, token=token)


async def test_what_is_revoked_ends(scene: Scene):
    path = await ready(scene, "revoked")
    user = await scene.account("leaving")
    binding = await scene.permit(user)
    token = await scene.token("leaving")
    await scene.until_status(200, path, token=token)
    await scene.admin.delete(ROLE_BINDINGS, binding, "demo")
    await scene.until_status(403, path, token=token)
    await scene.admin.delete(SERVICE_ACCOUNTS, "leaving", "demo")
    await scene.until_status(401, path, token=token)


async def test_an_api_key_is_good_for_its_workspace_until_it_is_revoked(scene: Scene):
    path = await ready(scene, "keyed")
    other = await ready(scene, "unkeyed")
    every = await scene.api_key(id="00000000000000a1")
    some = await scene.api_key(id="00000000000000a2", deployments=["keyed-production"])
    past = await scene.api_key(id="00000000000000a3", expires="2026-01-01T00:00:00Z")
    odd = await scene.api_key(id="00000000000000a4", deployments="keyed-production")
    await scene.workspace("elsewhere")
    foreign = await scene.api_key("elsewhere", id="00000000000000a5")
    # The same id in a workspace of somebody else's is another key.
    twin = await scene.api_key("elsewhere", id="00000000000000a1")
    assert twin == every
    await scene.until_status(200, path, token=some)
    table = {(every, path): 200, (every, other): 200, (some, other): 403, (past, path): 401}
    table |= {(odd, path): 401, (foreign, path): 403, (every[:-1] + "x", path): 401}
    table |= {(every, "/demo/models/none"): 404, (some, "/demo/models/none"): 403}
    found = {key: (await scene.call(key[1], token=key[0]))[0] for key in table}
    assert found == table
    await scene.admin.delete(SECRETS, "beamlit-api-keys", "demo")
    await scene.until_status(401, path, token=some)


async def test_a_public_deployment_needs_no_token(scene: Scene):
    path = await ready(scene, "public", endpoint={"public": True})
    await scene.until_status(200, path)
    status, answer = await scene.call(
        path, token="anything", headers={"X-Beamlit-Authorization": "Bearer x"}
    )
    assert (status, answer["headers"]["authorization"]) == (200, "Bearer anything")
    assert "x-beamlit-authorization" not in answer["headers"]
    chat = "/demo/openai/v1/chat/completions"
    status, _ = await scene.call(chat, method="POST", json={"model": "public"}, token="none")
    assert status == 200
    for model in ("private", "missing"):
        call = scene.call(chat, method="POST", json={"model": model})
        assert (await call)[0] == 401


async def test_a_sleeping_deployment_is_woken_by_who_may_call_it_only(scene: Scene):
    name = await scene.deploy("sleeper")
    user = await scene.account("waker")
    token = await scene.token("waker")
    await scene.until_status(403, "/demo/models/sleeper", token=token)
    assert await scene.replicas(name) == 0
    await scene.permit(user)
    call = asyncio.create_task(scene.until_status(200, "/demo/models/sleeper", token=token))

    async def woken() -> bool:
        return await scene.replicas(name) == 1

    await until(woken, what="it is scaled up")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_a_websocket_needs_a_token_as_well(scene: Scene):
    path = await ready(scene, "socket")
    await scene.permit(await scene.account("socket"))
    headers = {"Authorization": f"Bearer {await scene.token('socket')}"}
    await scene.until_status(200, path, headers=headers)
    refused = {"Connection": "Upgrade", "Upgrade": "websocket"}
    refused |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert (await scene.call(path, headers=refused))[0] == 401
    async with scene.http.ws_connect(scene.url + path, headers=headers) as socket:
        await socket.send_str("hello")
        assert (await socket.receive_str(timeout=60)).endswith("hello")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_waits_for_the_decision_whole(scene: Scene, chunked: bool):
    model = f"large{int(chunked)}"
    path = await ready(scene, model)
    await scene.permit(await scene.account(model))

    async def parts():
        for _ in range(40):
            yield b"x" * 131_072

    # Nobody has seen this token before: the request waits while the agent is asked.
    data = parts() if chunked else io.BytesIO(b"x" * 40 * 131_072)
    status, answer = await scene.call(
        path, token=await scene.token(model), method="POST", data=data
    )
    assert (status, answer.get("bytes")) == (200, 40 * 131_072), answer


async def test_a_flood_of_forged_tokens_never_gets_to_the_agent(scene: Scene):
    path = await ready(scene, "flood")
    stranger = RSAKey.generate_key(2048, {"kid": "1"})
    now = int(time.time())
    claims = {"iss": scene.issuer.url, "aud": "beamlit-test", "sub": "eve", "exp": now + 600}
    before = scene.metric("beamlit_gateway_reviews_total")
    for number in range(30):
        forged = jwt.encode({"alg": "RS256", "kid": "1"}, {**claims, "jti": number}, stranger)
        assert (await scene.call(path, token=forged))[0] == 401
    assert scene.metric("beamlit_gateway_reviews_total") == before
