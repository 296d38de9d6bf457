"""Admission webhooks, called over TLS as a real API server calls them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from beamlit_operator.devcluster.apiserver import ApiServer, LocalClient
from beamlit_operator.devcluster.apiserver.tls import load_or_make
from beamlit_operator.kube import CONFIG_MAPS, NAMESPACES, ApiError, Resource

MUTATING = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

Decide = Callable[[dict[str, Any]], dict[str, Any]]


class Hooks:
    """A webhook server whose answer each test decides."""

    def __init__(self, url: str, authority: bytes) -> None:
        self.url = url
        self.bundle = base64.b64encode(authority).decode()
        self.requests: list[dict[str, Any]] = []
        self.decide: Decide = lambda _: {"allowed": True}
        self.delay = 0.0

    def configuration(self, **more: Any) -> dict[str, Any]:
        rule = {
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["configmaps"],
        }
        webhook = {
            "name": "hook.example.com",
            "clientConfig": {"url": self.url, "caBundle": self.bundle},
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }
        return {"metadata": {"name": "hooks"}, "webhooks": [webhook]}

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.requests.append(review["request"])
        await asyncio.sleep(self.delay)
        response = {"uid": review["request"]["uid"], **self.decide(review["request"])}
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return web.json_response({**body, "response": response})


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    identity = load_or_make(tmp_path / "hook")
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    found = Hooks("", identity.authority)
    app.router.add_post("/hook", found.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.server_context())
    await site.start()
    found.url = f"https://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[LocalClient]:
    server = ApiServer(tmp_path / "server")
    await server.start()
    yield server.client
    await server.stop()


def _map(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}}


async def test_a_validating_webhook_refuses_with_its_message(
    hooks: Hooks, client: LocalClient
) -> None:
    hooks.decide = lambda _: {"allowed": False, "status": {"message": "not today", "code": 422}}
    await client.create(VALIDATING, hooks.configuration())
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, _map("one"))
    assert caught.value.status == 422
    wanted = 'admission webhook "hook.example.com" denied the request: not today'
    assert caught.value.message == wanted
    (request,) = hooks.requests
    assert (request["operation"], request["name"], request["namespace"]) == (
        "CREATE",
        "one",
        "default",
    )
    assert request["object"]["kind"] == "ConfigMap"
    assert request["oldObject"] is None


async def test_a_mutating_webhook_changes_what_is_stored(hooks: Hooks, client: LocalClient) -> None:
    patch = [{"op": "add", "path": "/data", "value": {"added": "yes"}}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    hooks.decide = lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}
    await client.create(MUTATING, hooks.configuration())
    made = await client.create(CONFIG_MAPS, _map("one"))
    assert made["data"] == {"added": "yes"}


async def test_updates_and_deletions_are_asked_about_with_the_old_object(
    hooks: Hooks, client: LocalClient
) -> None:
    await client.create(VALIDATING, hooks.configuration())
    await client.create(CONFIG_MAPS, _map("one"))
    await client.merge_patch(CONFIG_MAPS, "one", {"data": {"a": "b"}}, "default")
    await client.delete(CONFIG_MAPS, "one", "default")
    assert [r["operation"] for r in hooks.requests] == ["CREATE", "UPDATE", "DELETE"]
    assert "data" not in hooks.requests[1]["oldObject"]
    assert hooks.requests[2]["object"] is None
    assert hooks.requests[2]["oldObject"]["data"] == {"a": "b"}


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_the_failure_policy_decides_when_a_webhook_hangs(
    hooks: Hooks, client: LocalClient, policy: str
) -> None:
    hooks.delay = 30
    await client.create(VALIDATING, hooks.configuration(failurePolicy=policy, timeoutSeconds=1))
    writing = asyncio.create_task(client.create(CONFIG_MAPS, _map("one")))
    # A hanging webhook disturbs nobody else.
    await client.create(NAMESPACES, {"metadata": {"name": "other"}})
    if policy == "Fail":
        with pytest.raises(ApiError) as caught:
            await writing
        assert (caught.value.status, caught.value.reason) == (500, "InternalError")
        assert "failed calling webhook" in caught.value.message
    else:
        assert (await writing)["metadata"]["name"] == "one"


async def test_a_certificate_of_another_authority_is_not_trusted(
    hooks: Hooks, client: LocalClient, tmp_path: Path
) -> None:
    hooks.bundle = base64.b64encode(load_or_make(tmp_path / "other").authority).decode()
    await client.create(VALIDATING, hooks.configuration())
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, _map("one"))
    assert "failed calling webhook" in caught.value.message
    assert not hooks.requests


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}, False),
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, True),
        ({"objectSelector": {"matchLabels": {"a": "c"}}}, False),
        ({"matchConditions": [{"name": "m", "expression": "object.metadata.name == 'one'"}]}, True),
        ({"matchConditions": [{"name": "m", "expression": "object.metadata.name == 'x'"}]}, False),
    ],
)
async def test_selectors_and_conditions_choose_what_is_asked_about(
    hooks: Hooks, client: LocalClient, more: dict[str, Any], asked: bool
) -> None:
    await client.create(VALIDATING, hooks.configuration(**more))
    await client.create(CONFIG_MAPS, _map("one", a="b"))
    assert bool(hooks.requests) is asked
