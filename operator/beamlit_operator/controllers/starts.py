"""Follows the starts that take a while: asks the pods that fetch how far they are.

Costs in proportion to what starts, and nothing when nothing does: only pods whose fetcher has run
for a while are asked, a few at a time, and one that does not answer is asked less and less. That
changes nothing but the message, which then says no bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp

from beamlit_operator.api import labels
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.progress import (
    Fetched,
    Progress,
    Telling,
    fetching_run,
    is_due,
    progress_of,
    told_next,
)
from beamlit_operator.kube import Json
from beamlit_operator.workloads.pods import FETCHING, PROGRESS_PORT_VARIABLE

log = logging.getLogger(__name__)

FIRST_POLL = 3.0
"""Seconds a fetcher runs before it is asked: most are done by then."""

POLL_EVERY = 5.0
SLOWEST_POLL = 80.0
"""Seconds between two questions to one pod; it doubles with each that is not answered."""

AT_ONCE = 32
"""Pods asked at the same time."""

PATIENCE = aiohttp.ClientTimeout(total=2)
MAX_ANSWER = 4096
"""Bytes of an answer that are read; it is about a hundred."""


@dataclass(slots=True)
class _Fetcher:
    """One run of one pod's fetcher."""

    key: Key
    run: str
    url: str
    due: float
    silences: int = 0


class Starts:
    """What is told of each start, by ModelDeployment and revision."""

    def __init__(
        self,
        on_news: Callable[[Key], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        tick: float = 1.0,
    ) -> None:
        """``on_news`` gets the key of a deployment of which there is something new to tell.

        ``tick``: seconds between two looks at which pods are due.
        """
        self._on_news = on_news
        self._clock = clock
        self._tick = tick
        self._tellings: dict[Key, dict[str, Telling]] = {}
        self._fetchers: dict[str, _Fetcher] = {}
        self._uids: dict[Key, set[str]] = {}
        self._fetched: dict[str, Fetched] = {}
        self._wanted = asyncio.Event()

    @property
    def polled(self) -> int:
        """Pods that are asked now and then."""
        return len(self._fetchers)

    def look(self, key: Key, pods: Iterable[Json]) -> tuple[Mapping[str, Progress], float | None]:
        """What to tell of a deployment's starts, by revision, and when to ask again (seconds)."""
        now = self._clock()
        by_revision: dict[str, list[Json]] = defaultdict(list)
        for pod in pods:
            by_revision[(pod["metadata"].get("labels") or {}).get(labels.REVISION, "")].append(pod)
        self._follow(key, [pod for group in by_revision.values() for pod in group], now)
        before = self._tellings.pop(key, {})
        tellings: dict[str, Telling] = {}
        waits: list[float] = []
        for revision, group in by_revision.items():
            seen = progress_of(group, self._fetched)
            if seen is not None:
                tellings[revision], wait = told_next(before.get(revision), seen, now)
                if wait is not None:
                    waits.append(wait)
        if tellings:
            self._tellings[key] = tellings
        told = {name: each.told for name, each in tellings.items() if each.told is not None}
        return told, min(waits, default=None)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._tellings.pop(key, None)
        self._follow(key, (), self._clock())

    def _follow(self, key: Key, pods: Iterable[Json], now: float) -> None:
        current = set()
        for pod in pods:
            run = fetching_run(pod)
            url = _url(pod) if run is not None else None
            if run is None or url is None:
                continue
            uid = pod["metadata"]["uid"]
            current.add(uid)
            known = self._fetchers.get(uid)
            if known is None or known.run != run:
                self._fetched.pop(uid, None)
                self._fetchers[uid] = _Fetcher(key, run, url, now + FIRST_POLL)
                self._wanted.set()
        for uid in self._uids.pop(key, set()) - current:
            self._fetchers.pop(uid, None)
            self._fetched.pop(uid, None)
        if current:
            self._uids[key] = current

    async def run(self) -> None:
        """Asks until cancelled."""
        free = asyncio.Semaphore(AT_ONCE)
        connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=PATIENCE, trust_env=False
        ) as session:
            while True:
                if not self._fetchers:
                    self._wanted.clear()
                    await self._wanted.wait()
                now = self._clock()
                due = [(uid, each) for uid, each in self._fetchers.items() if each.due <= now]
                await asyncio.gather(*(self._ask(session, free, *each) for each in due))
                await asyncio.sleep(self._tick)

    async def _ask(
        self, session: aiohttp.ClientSession, free: asyncio.Semaphore, uid: str, fetcher: _Fetcher
    ) -> None:
        async with free:
            found = await _answer(session, fetcher.url)
        if self._fetchers.get(uid) is not fetcher:
            return
        fetcher.silences = 0 if found is not None else fetcher.silences + 1
        fetcher.due = self._clock() + pause_after(fetcher.silences)
        if found is not None and found != self._fetched.get(uid):
            self._fetched[uid] = found
            if self._is_news(fetcher.key, found):
                self._on_news(fetcher.key)

    def _is_news(self, key: Key, found: Fetched) -> bool:
        """Whether it is worth a look; a phase that was not told yet has its look planned."""
        now = self._clock()
        return any(
            is_due(each, each.told, found, now)
            for each in self._tellings.get(key, {}).values()
            if each.told is not None and each.told.phase == "Fetching"
        )


def pause_after(silences: int) -> float:
    """Seconds until a pod is asked again that did not answer so often in a row."""
    return min(POLL_EVERY * 2.0 ** min(silences, 16), SLOWEST_POLL)


def _url(pod: Json) -> str | None:
    """Where the pod's fetcher answers, if it was told to."""
    address = str((pod.get("status") or {}).get("podIP") or "")
    for container in (pod.get("spec") or {}).get("initContainers") or ():
        if container.get("name") != FETCHING:
            continue
        for variable in container.get("env") or ():
            port = str(variable.get("value") or "")
            if variable.get("name") == PROGRESS_PORT_VARIABLE and port.isdigit():
                host = _host(address)
                return f"http://{host}:{port}/" if host and 0 < int(port) < 65536 else None
    return None


def _host(address: str) -> str | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)


async def _answer(session: aiohttp.ClientSession, url: str) -> Fetched | None:
    """What a fetcher says; None if it says nothing that can be believed."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return None
            body = json.loads(await response.content.read(MAX_ANSWER))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        log.debug("%s says nothing about its progress: %s", url, error)
        return None
    return _fetched(body)


def _fetched(body: object) -> Fetched | None:
    if not isinstance(body, dict):
        return None
    done, total = body.get("fetchedBytes"), body.get("totalBytes")
    if type(done) is int and type(total) is int and 0 <= done <= total < 2**62:
        return Fetched(done, total, elsewhere=bool(body.get("waiting")))
    return None
