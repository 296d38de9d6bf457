"""A steady load on one deployment, and what the API server tells of it meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from tests.bench.rolloutledger import PROPAGATION, Answer, Weights

from beamlit_operator.api import labels
from beamlit_operator.kube import (
    MODEL_DEPLOYMENTS,
    PODS,
    ApiError,
    HttpClient,
    Json,
    Resource,
)

RATE = 200.0
"""Requests a second."""
SESSIONS = 50
BY_HEADER, BY_SESSION = 20, 4
"""Every so many requests one names its revision, or belongs to a session."""


@dataclass(slots=True)
class Seen:
    """What the API server has told so far; times are monotonic seconds."""

    weights: Weights = field(default_factory=Weights)
    deployment: Json = field(default_factory=dict)
    listed: dict[str, float] = field(default_factory=dict)
    """Revisions with ready replicas, since when."""
    born: dict[str, float] = field(default_factory=dict)
    """When the first pod of a revision appeared."""
    ready: dict[str, list[float]] = field(default_factory=dict)
    """When each of its pods became ready."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ready_pods: set[str] = field(default_factory=set)

    async def follow(self, client: HttpClient, workspace: str, name: str) -> None:
        """Follows the deployment and the pods, for ever."""
        await asyncio.gather(
            self._watch(client, MODEL_DEPLOYMENTS, workspace, self._note_deployment, name=name),
            self._watch(client, PODS, workspace, self._note_pod),
        )

    async def until(self, condition: Callable[[Json], object], what: str, within: float) -> None:
        """Waits until the deployment is so."""
        try:
            async with asyncio.timeout(within), self.changed:
                await self.changed.wait_for(lambda: condition(self.deployment))
        except TimeoutError:
            told = json.dumps(self.deployment.get("status"), indent=1)
            raise SystemExit(f"not within {within:g} s: {what}\n{told}") from None

    async def _watch(
        self,
        client: HttpClient,
        resource: Resource,
        workspace: str,
        note: Callable[[Json], None],
        *,
        name: str = "",
    ) -> None:
        while True:
            there = await client.list(resource, workspace)
            for item in there.items:
                note(item)
            try:
                async for event in client.watch(
                    resource, workspace, resource_version=there.resource_version
                ):
                    if event.type in ("ADDED", "MODIFIED") and (
                        name in ("", event.object["metadata"]["name"])
                    ):
                        note(event.object)
                        async with self.changed:
                            self.changed.notify_all()
            except ApiError as error:
                if not error.gone and error.status != 0:
                    raise

    def _note_deployment(self, item: Json) -> None:
        self.deployment = item
        now = time.monotonic()
        revisions = (item.get("status") or {}).get("revisions") or ()
        self.weights.note({each["name"]: each.get("traffic", 0) for each in revisions}, now)
        up = {
            each["name"]
            for each in revisions
            if each.get("readyReplicas") and each.get("role") != "retiring"
        }
        self.listed = {name: self.listed.get(name, now) for name in up}

    def _note_pod(self, pod: Json) -> None:
        revision = (pod["metadata"].get("labels") or {}).get(labels.REVISION, "")
        now, name = time.monotonic(), pod["metadata"]["name"]
        self.born.setdefault(revision, now)
        conditions = (pod.get("status") or {}).get("conditions") or ()
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if is_ready and name not in self._ready_pods:
            self._ready_pods.add(name)
            self.ready.setdefault(revision, []).append(now)


class Load:
    """Sends requests at an even pace, whatever becomes of them, and keeps every answer."""

    def __init__(self, http: aiohttp.ClientSession, url: str, seen: Seen, *, seed: int) -> None:
        self.answers: list[Answer] = []
        self.first: dict[str, float] = {}
        """When each revision first answered a request that did not ask for it."""
        self._http = http
        self._url = url
        self._seen = seen
        self._chance = random.Random(seed)

    async def run(self, over: asyncio.Event) -> None:
        """Sends until it is over, and waits for the last answers."""
        due = time.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                due = max(due + 1 / RATE, time.monotonic() - 0.5)
                await asyncio.sleep(max(due - time.monotonic(), 0))
                number += 1
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        asked = session = ""
        if number % BY_HEADER == 0:
            settled = time.monotonic() - PROPAGATION
            there = sorted(name for name, since in self._seen.listed.items() if since < settled)
            asked = self._chance.choice(there) if there else ""
        elif number % BY_SESSION == 1:
            session = f"session-{self._chance.randrange(SESSIONS)}"
        await self.send(asked=asked, session=session)

    async def send(self, *, asked: str = "", session: str = "") -> Answer:
        """One request."""
        headers = {"x-beamlit-revision": asked} if asked else {}
        if session:
            headers["x-session"] = session
        began = time.monotonic()
        try:
            async with self._http.post(self._url, data=b"{}", headers=headers) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, body = 0, f"{type(error).__name__}: {error}".encode()
        ended = time.monotonic()
        revision = str(json.loads(body)["revision"]) if status == 200 else ""
        fault = "" if status == 200 else body.decode(errors="replace")[:300]
        answer = Answer(began, ended, status, revision, asked, session, fault)
        self.answers.append(answer)
        if revision and not asked:
            self.first.setdefault(revision, ended)
        return answer
