"""A steady load on one endpoint: what was answered, when, and from where."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.integration.system.conftest import Workspace

CALLERS = 4
PAUSE = 0.02
"""Seconds between two requests of one caller."""

PATIENCE = 120.0
"""Seconds for what has to happen some time: pods start, on a slow machine too. What has to happen
*soon* is measured by when the last forbidden answer came, however long this took."""


@dataclass(frozen=True)
class Answer:
    """One response. ``node`` is empty when no pod answered."""

    at: float
    status: int
    node: str
    reason: str


@dataclass
class Load:
    """Callers that ask again and again."""

    workspace: Workspace
    model: str = "tiny"
    answers: list[Answer] = field(default_factory=list)

    async def _call(self) -> None:
        while True:
            status, body = await self.workspace.call(model=self.model, known=False)
            reason = str((body.get("error") or {}).get("reason", ""))
            node = str(body.get("node") or "")
            self.answers.append(Answer(time.monotonic(), status, node, reason))
            await asyncio.sleep(PAUSE)

    def since(self, moment: float) -> list[Answer]:
        return [each for each in self.answers if each.at >= moment]

    def last_from(self, nodes: set[str], *, since: float) -> float:
        """Seconds from a moment to the last answer from one of the nodes; 0 if there was none."""
        found = [each.at - since for each in self.since(since) if each.node in nodes]
        return max(found, default=0.0)

    async def until(
        self, condition: Callable[[Answer], bool], *, within: float = PATIENCE
    ) -> Answer:
        """The next answer that is so."""
        start = time.monotonic()
        while time.monotonic() - start < within:
            for each in self.since(start):
                if condition(each):
                    return each
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.answers[-5:]}{self.workspace.stack.logs()}")

    async def watch(self, seconds: float) -> None:
        """Lets the load go on for a while: only time shows that something does not happen."""
        await asyncio.sleep(seconds)

    def errors(self, *, since: float) -> list[Answer]:
        return [each for each in self.since(since) if each.status != 200]


@contextlib.asynccontextmanager
async def load_on(workspace: Workspace, model: str = "tiny") -> AsyncIterator[Load]:
    """Calls the endpoint until the end of the block."""
    load = Load(workspace, model)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(load._call()) for _ in range(CALLERS)]
        try:
            await load.until(lambda answer: answer.status == 200)
            yield load
        finally:
            for caller in callers:
                caller.cancel()
