"""Callers of the gateways as they come through a Service or an Ingress, and what became of them.

Where a request goes is chosen among the endpoints that are ready, as those who follow
EndpointSlices do. What is counted:

| what happens to a request                                 | counted as                          |
|-----------------------------------------------------------|-------------------------------------|
| answered 200 by the model's server, which got it whole    | answered                            |
| no connection could be made: nothing was sent             | elsewhere: sent to another endpoint |
| the connection ended after it was sent, before any answer | broken                              |
| answered in another way, or half an answer                | wrong                               |

``broken`` and ``wrong`` are lost. Only for a gateway that is killed in the middle of requests, no
one can save those that it had: a test allows at most as many as there are callers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from beamlit_operator.kube import ENDPOINT_SLICES, Json, KubeClient, Reflector

PATIENCE = 20.0
"""Seconds in which some endpoint must take a connection."""

PAUSE = 0.02
"""Seconds between two calls of one caller: the tests share few cores with what they test."""


@dataclass
class Calls:
    """What became of the requests."""

    answered: int = 0
    elsewhere: int = 0
    broken: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    versions: set[str] = field(default_factory=set)
    """The versions of the model's server that answered."""

    @property
    def lost(self) -> list[str]:
        return [*self.broken, *self.wrong]


class FrontDoor:
    """Follows the endpoints of a Service."""

    def __init__(self, client: KubeClient, namespace: str, service: str, *, port: str) -> None:
        """``port`` is the name of the Service's port."""
        self._port = port
        self._turn = itertools.count()
        self._slices = Reflector(
            client,
            ENDPOINT_SLICES,
            namespace=namespace,
            label_selector=f"kubernetes.io/service-name={service}",
        )

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[FrontDoor]:
        following = asyncio.create_task(self._slices.run())
        try:
            await self._slices.wait_synced()
            yield self
        finally:
            following.cancel()
            await asyncio.wait({following})

    @property
    def ready(self) -> list[str]:
        """The addresses that take callers now."""
        return sorted(
            f"http://{endpoint['addresses'][0]}:{port}"
            for each in self._slices.values()
            for port in (_port(each, self._port),)
            for endpoint in each.get("endpoints") or ()
            if endpoint.get("conditions", {}).get("ready")
        )

    def __call__(self) -> str:
        """Where the next request goes; empty while nobody is ready."""
        ready = self.ready
        return ready[next(self._turn) % len(ready)] if ready else ""


def _port(item: Json, name: str) -> int:
    (found,) = [port["port"] for port in item["ports"] if port.get("name") == name]
    return int(found)


async def one_call(
    http: aiohttp.ClientSession,
    choose: Callable[[], str],
    path: str,
    calls: Calls,
    *,
    headers: Mapping[str, str],
    body: bytes = b"{}",
) -> None:
    """One POST; see the table above."""
    began = time.monotonic()
    try:
        while True:
            base = choose()
            try:
                if not base:
                    raise ConnectionRefusedError("no endpoint is ready")
                url = URL(f"{base}{path}", encoded=True)
                async with http.post(url, data=body, headers=headers) as response:
                    text = await response.text()
                    answer = await response.json() if response.status == 200 else {}
                break
            except (aiohttp.ClientConnectorError, ConnectionRefusedError) as error:
                if time.monotonic() - began > PATIENCE:
                    calls.wrong.append(f"{path}: {error}")
                    return
                calls.elsewhere += 1
                await asyncio.sleep(0.01)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        calls.broken.append(f"{base}{path}: {type(error).__name__}: {error}")
    else:
        if response.status == 200 and answer.get("received") == len(body):
            calls.answered += 1
            calls.versions.add(str(answer.get("version")))
        else:
            calls.wrong.append(f"{base}{path}: {response.status} {text[:300]}")
    finally:
        calls.slowest = max(calls.slowest, time.monotonic() - began)


@asynccontextmanager
async def load(
    choose: Callable[[], str],
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    callers: int = 4,
) -> AsyncIterator[Calls]:
    """Calls until the end of the block; then waits for the last answers."""
    calls, stop = Calls(), asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=60)

    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def keep_calling() -> None:
            while not stop.is_set():
                await one_call(http, choose, path, calls, headers=headers or {})
                await asyncio.sleep(PAUSE)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(keep_calling())
            try:
                yield calls
            finally:
                stop.set()
