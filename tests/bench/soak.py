"""Minutes of mixed traffic with scale cycles, rollouts and kills: what was lost, and what grew.

``make soak``, or ``python -m tests.bench.soak --minutes 5 --seed 7``. Every answer is checked
(`soakledger`). Until two fifths of the time, the agent, the operator, Envoy and pods are killed;
after that only pods, so that memory, descriptors and queues of the others can be compared: the
last quarter of that time with its first. Fails when an answer was lost or wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.report import Row, publish
from tests.bench.soakgrowth import Growth
from tests.bench.soakledger import Ledger
from tests.bench.soakstage import (
    SERVER,
    WORKSPACE,
    SoakStack,
    deploy,
    edit,
    is_settled,
)
from tests.bench.soaktraffic import Caller, Place

from beamlit_operator.kube import ApiError, HttpClient, Json, connect

WARM: dict[str, Json] = {"steady": {"minNumReplicas": 2, "maxNumReplicas": 3}}
CYCLING: dict[str, Json] = {
    f"cycling-{number}": {"stableWindow": "6s", "maxNumReplicas": 2} for number in range(4)
}
"""They sleep between bursts: 6 s of stable window and 30 s of grace."""

MODELS = {**WARM, **CYCLING}
STEADY_CALLERS, BURST_CALLERS = 4, 6
BURST, SILENCE = (6.0, 14.0), (40.0, 60.0)
ROLLOUT_EVERY, POD_KILL_EVERY, PART_KILL_EVERY, SAMPLE_EVERY = 60.0, 15.0, 20.0, 5.0
KILLS_UNTIL = 0.4
"""The part of the time in which whole processes are killed."""


class Soak:
    """One run."""

    def __init__(self, stack: SoakStack, client: HttpClient, *, seconds: float, seed: int) -> None:
        self.ledger = Ledger()
        self.growth = Growth()
        self._stack = stack
        self._client = client
        self._seed = seed
        self._began = time.monotonic()
        self._ends = self._began + seconds
        self.quiet_from = self._began + seconds * KILLS_UNTIL
        self._callers: list[Caller] = []
        self._versions = dict.fromkeys(MODELS, 1)
        self._killed_pods: set[str] = set()

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Calls, edits and kills until the time is over; then waits for the last answers."""
        place = Place(self._stack.gateway, WORKSPACE)
        async with asyncio.TaskGroup() as group:
            for number in range(STEADY_CALLERS):
                group.create_task(self._steady(self._caller(http, place), number))
            for model in CYCLING:
                callers = [self._caller(http, place) for _ in range(BURST_CALLERS)]
                group.create_task(self._bursts(model, callers))
            for every, deed in (
                (ROLLOUT_EVERY, self._roll_out),
                (POD_KILL_EVERY, self._kill_pod),
                (PART_KILL_EVERY, self._kill_part),
                (SAMPLE_EVERY, self._sample),
            ):
                group.create_task(self._every(every, deed))

    def _caller(self, http: aiohttp.ClientSession, place: Place) -> Caller:
        self._callers.append(Caller(http, place, self.ledger))
        return self._callers[-1]

    def _chance(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._ends

    async def _steady(self, caller: Caller, number: int) -> None:
        chance = self._chance(f"steady {number}")
        while not self._over:
            await caller.call("steady", chance)
            await asyncio.sleep(chance.uniform(0.0, 0.1))

    async def _bursts(self, model: str, callers: list[Caller]) -> None:
        """Bursts with silences between that are long enough to fall asleep."""
        chance = self._chance(model)
        await asyncio.sleep(chance.uniform(0, SILENCE[0]))
        while not self._over:
            until = min(time.monotonic() + chance.uniform(*BURST), self._ends)

            async def burst(caller: Caller, until: float) -> None:
                while time.monotonic() < until:
                    await caller.call(model, chance)
                    await asyncio.sleep(chance.uniform(0.0, 0.2))

            self.ledger.counts["bursts"] += 1
            await asyncio.gather(*(burst(caller, until) for caller in callers))
            await self._sleep(chance.uniform(*SILENCE))

    async def _every(self, seconds: float, deed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._sleep(seconds)
            if self._over:
                return
            await deed()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(min(seconds, self._ends - time.monotonic()), 0.0))

    async def _roll_out(self) -> None:
        model = min(self._versions, key=lambda name: (self._versions[name], name))
        self._versions[model] += 1
        try:
            await edit(self._client, model, MODELS[model], version=self._versions[model])
        except ApiError as error:
            self.ledger.counts["edits that failed"] += 1
            print(f"editing {model}: {error}", file=sys.stderr)
        else:
            self.ledger.counts["rollouts"] += 1

    async def _kill_pod(self) -> None:
        """Kills the server of a pod that answered; each pod once, for a second time within minutes
        makes the kubelet wait, which is its right."""
        found = {pod: (model, pid) for c in self._callers for model, (pod, pid) in c.pods.items()}
        candidates = sorted(set(found) - self._killed_pods)
        if not candidates:
            return
        pod = self._chance(f"{time.monotonic()}").choice(candidates)
        self._killed_pods.add(pod)
        model, pid = found[pod]
        try:
            # The pod may be gone, and its process's number be another's.
            if "server.py" not in Path(f"/proc/{pid}/cmdline").read_text():
                return
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return
        self.ledger.pod_killed(model)

    async def _kill_part(self) -> None:
        if time.monotonic() > self.quiet_from:
            return
        stack, turn = self._stack, self.ledger.counts["parts killed"]
        part = ("agent", "operator", "envoy")[turn % 3]
        self.ledger.counts["parts killed"] += 1
        if part == "envoy":
            self.ledger.envoy_away(time.monotonic())
        await asyncio.to_thread(stack.kill, part)
        start = {
            "agent": stack.start_agent,
            "operator": stack.start_operator,
            "envoy": stack.start_envoy,
        }[part]
        await asyncio.to_thread(start)
        if part == "envoy":
            self.ledger.envoy_back()

    async def _sample(self) -> None:
        await self.growth.sample(
            {name: self._stack.pid(name) for name in ("agent", "envoy", "operator", "cluster")},
            {
                "agent": (f"{self._stack.admin}/metrics", "beamlit_gateway_requests_held"),
                "operator": (f"{self._stack.operator}/metrics", "beamlit_queue_depth"),
            },
        )


def rows(soak: Soak) -> list[Row]:
    """The table: losses first."""
    counts = soak.ledger.counts
    told = [
        Row("answers that were lost", counts["lost"], ""),
        Row("answers that were wrong", counts["wrong"], ""),
        Row("requests", counts["requests"], ""),
        *(Row(f"requests: {kind}", count, "") for kind, count in sorted(soak.ledger.kinds.items())),
        Row(
            "POSTs and streams told that their pod was killed",
            counts["told: the pod was killed"],
            "",
        ),
        Row("sent again, for Envoy was away", counts["sent again: Envoy was away"], ""),
        Row("slowest answer, a cold start", soak.ledger.slowest, "s"),
        *(
            Row(what, counts[what], "")
            for what in ("bursts", "rollouts", "pods killed", "parts killed")
        ),
    ]
    return [*told, *soak.growth.rows(soak.quiet_from)]


async def run(folder: Path, *, seconds: float, seed: int) -> tuple[Soak, bool]:
    """The whole run; also whether everything had settled at its end."""
    stack = SoakStack(folder)
    try:
        await asyncio.to_thread(stack.start)
        stack.s3().upload_file(str(SERVER), "models", "soak/server.py")
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=90)
        async with (
            await connect(stack.kubeconfig) as client,
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        ):
            await deploy(client, stack, MODELS)
            await _until_settled(client)
            # The gateway hears of a status some milliseconds after it is written.
            await asyncio.sleep(1)
            soak = Soak(stack, client, seconds=seconds, seed=seed)
            # Nothing may hang for ever: a request ends by its own limit, and so does this.
            async with asyncio.timeout(seconds + 300):
                await soak.run(http)
            settled = await _until_settled(client)
    except BaseException:
        print(stack.logs(), file=sys.stderr)
        raise
    finally:
        await asyncio.to_thread(stack.stop)
    if stack.left_over:
        print(f"processes were left: {stack.left_over}", file=sys.stderr)
    return soak, settled and not stack.left_over


async def _until_settled(client: HttpClient, within: float = 120.0) -> bool:
    deadline = time.monotonic() + within
    while not all([await is_settled(client, name) for name in MODELS]):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.2)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # The store in this process logs every request.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="beamlit-soak-") as folder:
        work: Coroutine[Any, Any, tuple[Soak, bool]] = run(
            Path(folder), seconds=given.minutes * 60, seed=given.seed
        )
        soak, settled = asyncio.run(work)
    notes = [
        "the embedded cluster keeps 4,096 changes of each kind: it grows until it has as many",
        *soak.ledger.bad,
    ]
    if not settled:
        notes.append("not every deployment came to rest, or a process was left")
    publish("soak", rows(soak), notes)
    counts = soak.ledger.counts
    return 0 if settled and not counts["lost"] and not counts["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
