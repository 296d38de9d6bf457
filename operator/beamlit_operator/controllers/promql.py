"""Asks Prometheus for the value of an analysis' query, by its HTTP API.

| Prometheus says                                  | the answer                                    |
|--------------------------------------------------|-----------------------------------------------|
| a scalar, or a vector with one series            | its value                                     |
| an empty vector                                  | no value: nothing matches, or not yet         |
| a vector with several series                     | no value: make one of them with ``sum``       |
| NaN or infinite                                  | no value                                      |
| another type (a range)                           | no value                                      |
| 400 or 422: the query is wrong                   | no value, and its words                       |
| 401, 403                                         | no value: the token                           |
| anything else, nothing at all, or no JSON        | no value: it cannot be reached                |

Nobody waits for an answer: :meth:`Queries.latest` gives the last one and has the next one asked.
Prometheus' own words are cut, and what looks like a secret is taken out of them
(https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from beamlit_operator.controllers.redaction import redacted
from beamlit_operator.kube import ObjectKey
from beamlit_operator.rollout.analysis import Answer

log = logging.getLogger(__name__)

ASK_AGAIN = 10.0
"""Seconds after which a query is asked again: Prometheus has new samples no sooner, commonly."""

TIMEOUT = 10.0
"""Seconds that Prometheus may take for one query."""

AT_ONCE = 4
"""Queries on their way at the same time, of all rollouts."""

KEEP = 300.0
"""Seconds after which the answer to a query that nobody asks any more is forgotten."""

LARGEST = 1 << 20
"""Bytes of the longest answer that is read: one series has some hundred."""

MAX_MESSAGE = 300

_PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def filled(query: str, *, workspace: str, name: str, canary: str, stable: str) -> str:
    """The query with its placeholders replaced. Names of Kubernetes need no quoting in a label's
    value; what is no placeholder of ours stays as it is."""
    values = {"workspace": workspace, "name": name, "canary": canary, "stable": stable}
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), query)


def answer_of(status: int, document: Any) -> Answer:
    """What Prometheus' answer says; ``document`` is decoded JSON, or None if it was none."""
    if status in (401, 403):
        return Answer(problem=f"Prometheus refuses the operator's token ({status})")
    known = document if isinstance(document, dict) else {}
    if status in (400, 422) and known.get("status") == "error":
        return Answer(problem=f"Prometheus does not take the query: {_short(known.get('error'))}")
    if status != 200 or known.get("status") != "success":
        return Answer(problem=f"Prometheus answers {status} and no result")
    data = known.get("data")
    return _value(data if isinstance(data, dict) else {})


def _value(data: dict[str, Any]) -> Answer:
    kind, result = data.get("resultType"), data.get("result")
    if kind == "vector" and isinstance(result, list):
        if not result:
            return Answer(problem="nothing in Prometheus matches the query")
        if len(result) > 1:
            return Answer(
                problem=f"the query gives {len(result)} series; make it one, with sum() for example"
            )
        sample = result[0].get("value") if isinstance(result[0], dict) else None
    elif kind == "scalar":
        sample = result
    else:
        return Answer(problem=f"the query gives a {_short(kind)}; it has to give one number")
    try:
        value = float(sample[1])  # type: ignore[index]
    except (TypeError, ValueError, IndexError):
        return Answer(problem="Prometheus' answer has no number")
    if not math.isfinite(value):
        return Answer(problem=f"the query gives {value}, which is no number to judge by")
    return Answer(value)


def _short(words: object) -> str:
    line = " ".join(redacted(str(words)).split())
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


@dataclass(slots=True)
class _Asked:
    """One query of one step."""

    wanted: float
    at: float = -math.inf
    answer: Answer | None = None
    task: asyncio.Task[None] | None = None


class Queries:
    """The last answers, by deployment, query and step."""

    def __init__(
        self,
        url: str,
        *,
        token_file: str = "",
        ca_file: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url`` is Prometheus', without ``/api``; empty: there is none. The token is read again
        for each query, so that one that is exchanged counts."""
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._ca_file = ca_file
        self._clock = clock
        self._asked: dict[tuple[ObjectKey, str, str], _Asked] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def latest(self, deployment: ObjectKey, query: str, step_id: str) -> Answer | None:
        """The last answer to this query in this step; None until there is one."""
        if not self._url:
            return Answer(
                problem="the operator knows no Prometheus: its option --prometheus-url is not set"
            )
        now = self._clock()
        self._forget(now)
        asked = self._asked.setdefault((deployment, query, step_id), _Asked(now))
        asked.wanted = now
        if asked.task is None and now - asked.at >= ASK_AGAIN:
            asked.task = asyncio.create_task(self._ask(asked, query), name=f"query {deployment}")
        return asked.answer

    async def close(self) -> None:
        """Ends what is on its way."""
        tasks = [asked.task for asked in self._asked.values() if asked.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, now: float) -> None:
        for key, asked in list(self._asked.items()):
            if now - asked.wanted > KEEP and asked.task is None:
                del self._asked[key]

    async def _ask(self, asked: _Asked, query: str) -> None:
        try:
            async with self._turns:
                asked.answer = await self._fetch(query)
        finally:
            asked.at, asked.task = self._clock(), None

    async def _fetch(self, query: str) -> Answer:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            headers, trust = await asyncio.to_thread(self._credentials)
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(
                    f"{self._url}/api/v1/query",
                    data={"query": query},
                    headers=headers,
                    ssl=trust,
                    allow_redirects=False,
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_chunked(65_536):
                    body += chunk
                    if len(body) > LARGEST:
                        return Answer(problem="Prometheus' answer is too long to be one number")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The words may name the URL, with what stands in it.
            log.warning("prometheus cannot be asked: %s", type(error).__name__)
            return Answer(problem=f"Prometheus cannot be asked ({_kind(error)})")
        return answer_of(response.status, _decoded(bytes(body)))

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | bool]:
        headers = {}
        if self._token_file:
            token = Path(self._token_file).read_text("utf-8").strip()
            headers["authorization"] = f"Bearer {token}"
        trust = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
        return headers, trust


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _kind(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, FileNotFoundError | PermissionError):
        return "the file with its token or its authorities cannot be read"
    return type(error).__name__
