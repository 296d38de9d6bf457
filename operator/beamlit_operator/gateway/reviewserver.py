"""Where Envoy asks the agent who calls: HTTP on loopback, behind Envoy's own check of tokens.

Questions and answers are headers: the script in Envoy reads those without taking a body apart.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

from aiohttp import web

from beamlit_operator.gateway.gate import CLAIMS_HEADER, TOKEN_HEADER
from beamlit_operator.gateway.issuers import CLUSTER
from beamlit_operator.gateway.keyindex import KeyIndex
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.reviews import Answer, Question, Reviewer
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.signingkeys import Documents, SigningKeys
from beamlit_operator.kube import KubeClient, Reflector

log = logging.getLogger(__name__)

READY_WITHIN = 10.0
"""Seconds that a gateway waits for what it needs to authenticate, before it says it is ready."""

ANSWERS_WITHIN = 3.0
"""Seconds that a question waits in an agent that has just started; Envoy waits five."""

_LINE_LIMIT = 96 * 1024
"""Bytes of one header: the token, and the claims of it once more."""


class ReviewServer:
    """Keys, index and reviewer together. Use :meth:`running`."""

    def __init__(
        self,
        client: KubeClient,
        settings: GatewaySettings,
        *,
        documents: Documents | None,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._signing = SigningKeys(settings.issuers, documents=documents)
        self._index = KeyIndex(client, stale=settings.decision_stale)
        self._reviewer = Reviewer(
            client,
            keys=self._index,
            issuers=settings.issuers,
            audiences=settings.audiences,
            cluster_issuer=lambda: self._signing.cluster_issuer,
            # Half of what Envoy goes by: its workers ask one after the other.
            fresh=settings.decision_ttl / 2,
            stale=settings.decision_stale,
            metrics=metrics,
        )

    @property
    def watch(self) -> Reflector:
        """What follows the API keys."""
        return self._index.reflector

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves for the length of the block."""
        app = web.Application()
        app.router.add_get("/keys/{name}", self._keys)
        app.router.add_post("/token", self._token)
        app.router.add_post("/key", self._key)
        runner = web.AppRunner(
            app, access_log=None, max_field_size=_LINE_LIMIT, max_line_size=_LINE_LIMIT
        )
        await runner.setup()
        address = self._settings.authentication_listen
        await web.TCPSite(runner, address.host, address.port).start()
        tasks = [
            asyncio.create_task(self._signing.run(), name="fetch signing keys"),
            asyncio.create_task(self._index.run(), name="watch API keys"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()

    async def until_ready(self) -> None:
        """Until callers can be told apart. Not for ever: a right that is missing must not keep
        public deployments from being served."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._index.reflector.wait_synced()
                await self._signing.fetched.wait()
        except TimeoutError:
            log.error(
                "the API server's signing keys or API keys could not be read: callers with tokens "
                "get 503 until they are; are the gateway's roles those of this version?"
            )

    @staticmethod
    async def _until(ready: Awaitable[object]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN):
                await ready

    async def _keys(self, request: web.Request) -> web.Response:
        if request.match_info["name"] == CLUSTER:
            await self._until(self._signing.fetched.wait())
        found = self._signing.get(request.match_info["name"])
        if found is None:
            return web.Response(status=503)
        return web.Response(text=found, content_type="application/json")

    async def _token(self, request: web.Request) -> web.Response:
        await self._until(self._signing.fetched.wait())
        claims = _claims(request.headers.get(CLAIMS_HEADER, ""))
        token = request.headers.get(TOKEN_HEADER, "")
        return _response(await self._reviewer.token(token, claims, _question(request)))

    async def _key(self, request: web.Request) -> web.Response:
        await self._until(self._index.reflector.wait_synced())
        return _response(
            self._reviewer.key(request.headers.get(TOKEN_HEADER, ""), _question(request))
        )


def _question(request: web.Request) -> Question:
    headers = request.headers
    return Question(
        headers.get("x-beamlit-workspace", ""),
        headers.get("x-beamlit-deployment", ""),
        headers.get("x-beamlit-asked", ""),
    )


def _claims(encoded: str) -> Mapping[str, Any]:
    """What jwt_authn read: Base64 for URLs, without padding. Empty: it did not look."""
    try:
        found = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _response(answer: Answer) -> web.Response:
    headers = {
        "x-beamlit-verdict": answer.verdict,
        "x-beamlit-expires": f"{answer.expires:.0f}",
        "x-beamlit-age": f"{answer.age:.1f}",
        # Goes into a JSON text and a log line.
        "x-beamlit-user": _plain(answer.user),
    }
    return web.Response(headers=headers)


def _plain(name: str) -> str:
    """The name, fit for a header and for the inside of a JSON text."""
    return json.dumps(name[:512])[1:-1]
