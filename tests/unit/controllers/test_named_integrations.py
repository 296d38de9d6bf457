"""An origin that names an integration's Secret itself gets no more of it than one that does not,
and nobody gets a ServiceAccount's token."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.api import labels
from beamlit_operator.api.model import Origin
from beamlit_operator.controllers.credentials import (
    HTTP_KEYS,
    Integrations,
    SecretProblemError,
    SecretUse,
    read_credentials,
)
from beamlit_operator.controllers.stores import secret_for
from beamlit_operator.kube import SECRETS, Change, ObjectKey

MIRROR = "https://hub.example.com"
HUB = {"repo": "acme/chat", "tokenSecretRef": {"name": "hub"}}
S3 = {"uri": "s3://models/chat", "credentialsSecretRef": {"name": "hub"}}
HTTP = {
    "files": [{"url": "https://evil.example.com/f", "sha256": "0" * 64}],
    "credentialsSecretRef": {"name": "hub"},
}


def integrations(kind: str = "huggingface", *, endpoint: str = "", allowed: str = "") -> Any:
    secret = {
        "metadata": {
            "name": "hub",
            "namespace": "team",
            "labels": {labels.INTEGRATION: kind},
            "annotations": {labels.ALLOWED: allowed} if allowed else {},
        },
        "data": {"endpoint": base64.b64encode(endpoint.encode()).decode()} if endpoint else {},
    }
    found = Integrations(FakeKube(), on_change=lambda *_: None)
    found._changed(Change(ObjectKey("team", "hub"), None, secret))
    return found


@pytest.mark.parametrize(
    ("known", "origin", "withheld"),
    [
        (integrations(), {"huggingFace": HUB}, ""),
        (integrations(), {"huggingFace": HUB | {"endpoint": MIRROR}}, f"is not sent to {MIRROR}"),
        (integrations(endpoint=MIRROR), {"huggingFace": HUB | {"endpoint": MIRROR}}, ""),
        (integrations(allowed="other/*"), {"huggingFace": HUB}, "does not cover acme/chat"),
        (integrations(), {"http": HTTP}, "an integration of this workspace for huggingface"),
        (integrations("s3"), {"huggingFace": HUB}, "an integration of this workspace for s3"),
        (integrations("s3"), {"s3": S3 | {"endpoint": MIRROR}}, ""),
        (integrations("s3", allowed="x"), {"s3": S3}, "does not cover models"),
    ],
)
def test_a_named_integration_is_held_to_what_its_secret_says(
    known: Integrations, origin: dict[str, Any], withheld: str
) -> None:
    opens = secret_for(Origin.model_validate(origin), workspace="team", integrations=known)
    assert withheld in opens.withheld
    assert opens.secret == (None if withheld else SecretUse("hub"))
    # In another workspace a Secret of that name is just a Secret.
    opens = secret_for(Origin.model_validate(origin), workspace="other", integrations=known)
    assert opens.secret == SecretUse("hub")


async def test_a_service_accounts_token_is_sent_nowhere() -> None:
    kube = FakeKube()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "sa", "namespace": "team"},
        "data": {"token": "dA=="},
    }
    await kube.put(SECRETS, secret)
    with pytest.raises(SecretProblemError, match="is the token of a ServiceAccount"):
        await read_credentials(kube, ObjectKey("team", "sa"), HTTP_KEYS)


async def test_integrations_are_followed_and_nothing_that_opens_a_store_is_kept() -> None:
    kube = FakeKube()
    heard: list[tuple[str, str]] = []
    found = Integrations(kube, on_change=lambda *place: heard.append(place))
    (reflector,) = found.reflectors
    running = asyncio.create_task(reflector.run())

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(heard) < count:
                await asyncio.sleep(0.01)

    def secret(kind: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": "team", "labels": {labels.INTEGRATION: kind}},
            "data": {"token": base64.b64encode(b"hf_very_secret").decode()},
        }

    try:
        await reflector.wait_synced()
        await kube.put(SECRETS, secret("huggingface"))
        await until(1)
        assert (found.named("team", "s") or ("", None))[0] == "huggingface"
        assert "data" not in reflector[ObjectKey("team", "s")]
        await kube.put(SECRETS, secret("s3"))
        await until(3)
        assert heard == [("team", "huggingface"), ("team", "huggingface"), ("team", "s3")]
        assert (found.named("team", "s") or ("", None))[0] == "s3"
        assert found.find("team", "huggingface", "acme/chat").name is None
        await kube.delete(SECRETS, "s", "team")
        await until(4)
        assert found.named("team", "s") is None
        assert (found._found, found._kinds) == ({}, {})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
