"""The soak's callers: what they ask, and how they check each answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from dataclasses import dataclass

import aiohttp
from tests.bench.soakledger import Ledger, Result
from yarl import URL

LARGE = 2 * 2**20
CHUNKS = 25


@dataclass(frozen=True, slots=True)
class Place:
    """Where the callers call."""

    gateway: str
    workspace: str
    domain: str = "beamlit.local"


class Caller:
    """One connection's worth of requests, of all kinds in turn."""

    def __init__(self, http: aiohttp.ClientSession, place: Place, ledger: Ledger) -> None:
        self._http = http
        self._place = place
        self._ledger = ledger
        self.pods: dict[str, tuple[str, int]] = {}
        """By model: the pod that answered last, and its process."""

    async def call(self, model: str, chance: random.Random) -> None:
        """One request of some kind; sent again for as long as Envoy is away."""
        kind = chance.choice(
            ["POST small"] * 5 + ["GET host"] * 3 + ["POST large", "GET large", "GET stream"]
        )
        while True:
            result = await self._once(model, kind)
            if result.fault and self._ledger.sends_again(result):
                await asyncio.sleep(0.1)
                continue
            self._ledger.note(result)
            return

    async def _once(self, model: str, kind: str) -> Result:
        began, status, begun = time.monotonic(), 0, False
        method, url, headers, body = self._request(model, kind)
        reason = fault = ""
        try:
            async with self._http.request(
                method, URL(url, encoded=True), data=body, headers=headers
            ) as response:
                status = response.status
                begun = status == 200
                content = await response.read()
            if status == 200:
                begun = False
                fault = self._check(model, kind, content, body)
            else:
                fault = content.decode(errors="replace")
                reason = _reason(content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason, fault = type(error).__name__, f"{type(error).__name__}: {error}"
            status = status if begun else 0
        ended = time.monotonic()
        return Result(model, kind, began, ended, status, reason, bool(fault) and begun, fault)

    def _request(self, model: str, kind: str) -> tuple[str, str, dict[str, str], bytes | None]:
        base = f"{self._place.gateway}/{self._place.workspace}/models/{model}"
        if kind == "POST small":
            return "POST", f"{base}/predict", {}, json.dumps({"model": model}).encode()
        if kind == "POST large":
            return "POST", f"{base}/predict", {}, model.encode() * (LARGE // len(model))
        if kind == "GET large":
            return "GET", f"{base}/weights?size={LARGE}", {}, None
        if kind == "GET stream":
            return "GET", f"{base}/stream?chunks={CHUNKS}", {}, None
        place = self._place
        host = f"{model}-production.{place.workspace}.{place.domain}"
        return "GET", f"{place.gateway}/health", {"Host": host}, None

    def _check(self, model: str, kind: str, content: bytes, sent: bytes | None) -> str:
        """What is wrong with a body; empty if nothing is."""
        if kind == "GET large":
            good = content == (f"{model} " * (LARGE // len(model) + 1)).encode()[:LARGE]
            return "" if good else f"{len(content)} bytes, or others than asked for"
        if kind == "GET stream":
            expected = "".join(f"{model} {number}\n" for number in range(CHUNKS)).encode()
            return "" if content == expected else f"stream of {len(content)} bytes"
        told = json.loads(content)
        if told["model"] != model:
            return f"answered by {told['model']}"
        if told["digest"] != hashlib.sha256(sent or b"").hexdigest():
            return f"the server received {told['received']} bytes, or others than were sent"
        self.pods[model] = (told["pod"], told["pid"])
        return ""


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["reason"])
    except (ValueError, KeyError, TypeError):
        return "not in our shape"
