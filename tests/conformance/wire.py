"""Requests as they go over the wire, for what a well-behaved client would never send."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp

from beamlit_operator.kube import HttpClient

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Answer(NamedTuple):
    """What came back; ``body`` is decoded if it is JSON, ``warnings`` are the header's texts."""

    status: int
    body: Any
    text: str
    headers: Mapping[str, str]
    warnings: list[str]

    @property
    def message(self) -> str:
        return self.body["message"] if isinstance(self.body, dict) else self.text

    @property
    def causes(self) -> list[tuple[str, str]]:
        """Field and reason of every cause."""
        details = self.body.get("details") or {}
        return [(c.get("field", ""), c["reason"]) for c in details.get("causes") or ()]


async def ask(
    client: HttpClient,
    method: str,
    path: str,
    body: Any = None,
    *,
    kind: str = "application/json",
    accept: str = "application/json",
) -> Answer:
    """Sends ``body``: bytes and text as they are, anything else as JSON."""
    config = client._api.configuration
    context = ssl.create_default_context(cafile=config.ssl_ca_cert)
    headers = {"Content-Type": kind, "Accept": accept}
    if config.api_key.get("BearerToken"):
        headers["Authorization"] = await config.get_api_key_with_prefix("BearerToken")
    if config.cert_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    plain = body is None or isinstance(body, (str, bytes)) or hasattr(body, "read")
    data = body if plain else json.dumps(body)
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, config.host + path, data=data, headers=headers, ssl=context
        ) as answer,
    ):
        text = await answer.text()
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        warnings = [w.split(" - ", 1)[-1] for w in answer.headers.getall("Warning", [])]
        return Answer(answer.status, found, text, answer.headers, [json.loads(w) for w in warnings])
