"""Steady traffic through a gateway, each answer checked: whose it is, and whether it is whole."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL


@dataclass
class Tally:
    """What became of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """One line for each answer that was lost or not as it should be."""
    slowest: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.statuses.values())


async def one_call(
    http: aiohttp.ClientSession, method: str, url: str, tally: Tally, *, body: bytes = b"{}"
) -> None:
    """One request, which must be answered 200 by a model server that got it whole."""
    began = time.monotonic()
    try:
        async with http.request(method, URL(url, encoded=True), data=body) as response:
            tally.statuses[response.status] += 1
            text = await response.text()
            answer = await response.json() if response.status == 200 else {}
            if response.status != 200 or answer["received"] != len(body):
                tally.wrong.append(f"{method} {url}: {response.status} {text[:300]}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        tally.statuses[0] += 1
        tally.wrong.append(f"{method} {url}: {type(error).__name__}: {error}")
    finally:
        tally.slowest = max(tally.slowest, time.monotonic() - began)


@asynccontextmanager
async def steady(
    http: aiohttp.ClientSession, url: Callable[[], str], *, callers: int = 4, method: str = "POST"
) -> AsyncIterator[Tally]:
    """Calls without a pause until the end of the block; then waits for the last answers."""
    tally, stop = Tally(), asyncio.Event()

    async def keep_calling() -> None:
        while not stop.is_set():
            await one_call(http, method, url(), tally)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(keep_calling())
        try:
            yield tally
        finally:
            stop.set()
