"""Calls to a model in the Open Inference Protocol, and how long they take."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from beamlit_operator.cli.errors import CommandError

Json = dict[str, Any]

WARM_UP = 5
"""Calls before the first that counts, so that connections exist."""


class TryAgainError(CommandError):
    """The gateway asks to come back shortly."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of calls one after the other, in seconds."""

    calls: int
    median: float
    p95: float


def latencies_of(seconds: list[float]) -> Latencies:
    """What a list of measured times comes to; at least two are needed."""
    return Latencies(
        calls=len(seconds),
        median=statistics.median(seconds),
        p95=statistics.quantiles(seconds, n=20)[-1],
    )


async def infer(session: aiohttp.ClientSession, url: str, body: bytes) -> Json:
    """One inference.

    Raises:
        TryAgainError: the gateway answered 503 with a ``Retry-After``.
        CommandError: the answer was not a success, or there was none; says which.
    """
    try:
        async with session.post(
            url, data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            text = await answer.text()
            if answer.status != 200:
                asked_back = answer.status == 503 and "Retry-After" in answer.headers
                kind = TryAgainError if asked_back else CommandError
                raise kind(f"{url} answered {answer.status}: {text[:500]}")
            reply: Json = json.loads(text)
            return reply
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CommandError(
            f"{url} gave no usable answer: {error or type(error).__name__}"
        ) from error


async def compare(
    session: aiohttp.ClientSession, urls: tuple[str, ...], body: bytes, *, calls: int
) -> tuple[Latencies, ...]:
    """The latency of each URL; they take turns, so that what else runs hits all alike.

    Raises:
        CommandError: a call failed.
    """
    taken: dict[str, list[float]] = {url: [] for url in urls}
    for number in range(WARM_UP + calls):
        for url in urls:
            started = time.perf_counter()
            await infer(session, url, body)
            if number >= WARM_UP:
                taken[url].append(time.perf_counter() - started)
    return tuple(latencies_of(taken[url]) for url in urls)
