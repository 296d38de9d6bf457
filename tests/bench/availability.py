"""What callers notice of faults and of changes of an installation, and how long nobody leads.

``make bench-availability``; about five minutes. The chart as Helm's engine installs it on the
embedded cluster: two operators, two gateways, every container a process, RBAC on. Four callers call
one model without a pause the whole time. The table says for each fault how many requests were
answered, sent to another gateway because no connection could be made, broken off before an answer,
or answered wrongly (`tests/support/frontdoor.py`). Fails when one was lost that need not be.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import helm_sdkpy
from tests.bench.report import Row, publish
from tests.support import previous, scenarios
from tests.support.chart import SYSTEM, merged
from tests.support.frontdoor import Calls, FrontDoor
from tests.support.release import EMBEDDED, ChartedStack, Release
from tests.support.site import Site
from tests.support.stack import running_stack

from beamlit_operator.kube import LEASES, PODS, connect

VALUES = merged(EMBEDDED, {"gateway": {"drainTime": 5, "drainDelay": 1}})
OPERATOR = "beamlit_operator.controllers"
CALLERS = 4
BROKEN_IMAGE = {"gateway": {"envoy": {"image": {"repository": "nobody/nothing"}}}}


@dataclass
class Fault:
    """Something that happens, and what callers noticed."""

    name: str
    happens: Callable[[Site], Awaitable[float | None]]
    """Gives seconds to tell, if there are any of interest."""
    may_break: int = 0
    """As many requests as a gateway that is killed may have in hand."""
    may_refuse: int = 0
    """As many callers as Envoy may be asking its agent about when that is killed."""


class Bench:
    """One cluster, and the faults on it."""

    def __init__(self, stack: ChartedStack, release: Release, code: Path) -> None:
        self._stack = stack
        self._release = release
        self._code = code
        self.rows: list[Row] = []
        self.lost: list[str] = []

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        async with await connect(self._stack.kubeconfig) as client:
            door = FrontDoor(client, SYSTEM, "beamlit-gateway", port="http")
            async with door.followed():
                yield Site(client, self._release, door, self._stack.store, self._stack.logs)

    async def run(self) -> None:
        async with self.site() as site:
            workspace = await scenarios.quickstart(site)
            for fault in self.faults():
                print(f"{fault.name} ...", file=sys.stderr, flush=True)
                async with site.load(workspace, callers=CALLERS) as calls:
                    told = await fault.happens(site)
                    await asyncio.sleep(1)  # What comes after it belongs to it too.
                self._note(fault, calls, told)
            await scenarios.goes_on(site, workspace, version="2")

    def _note(self, fault: Fault, calls: Calls, told: float | None) -> None:
        if told is not None:
            self.rows.append(Row(fault.name, round(told, 1), "s"))
        counts = (calls.answered, calls.elsewhere, len(calls.broken), len(calls.wrong))
        for what, count in zip(("answered", "elsewhere", "broken", "wrong"), counts, strict=True):
            self.rows.append(Row(f"{fault.name}: {what}", count, ""))
        self.rows.append(Row(f"{fault.name}: slowest answer", round(calls.slowest, 2), "s"))
        told_to_come_back = [each for each in calls.wrong if '"Undecided"' in each]
        others = len(calls.wrong) - len(told_to_come_back)
        refused = len(told_to_come_back) > fault.may_refuse
        if others or refused or len(calls.broken) > fault.may_break:
            self.lost += calls.lost

    def faults(self) -> list[Fault]:
        return [
            Fault("a leader stands still: another leads", self._stopped),
            Fault("a leader is ended: another leads", self._ended),
            Fault("a leader is killed: somebody works on", self._killed),
            Fault("both operators are away for 20 s", self._no_operator),
            Fault("the API server stands still for 15 s", self._frozen),
            Fault("a gateway is killed", self._gateway_killed, may_break=CALLERS),
            Fault("an agent is killed", self._agent_killed, may_refuse=CALLERS),
            Fault("nodes with gateways are drained", self._drained),
            Fault("gateways and operators are restarted", self._restarted),
            Fault("an upgrade that fails, and Helm rolls back", self._failed_upgrade),
            Fault("an upgrade from the version before", self._upgraded),
        ]

    async def _holder(self, site: Site) -> str:
        lease = await site.client.get(LEASES, "beamlit-operator", SYSTEM)
        return str(lease["spec"].get("holderIdentity") or "")

    async def _until_other(self, site: Site, old: str) -> float:
        began = time.monotonic()
        while await self._holder(site) in ("", old):
            if time.monotonic() - began > 60:
                raise TimeoutError(f"{old} still leads\n{site.logs()}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def _stopped(self, site: Site) -> float:
        old = await self._holder(site)
        self._stack.signal(old, signal.SIGSTOP, OPERATOR)
        try:
            took = await self._until_other(site, old)
        finally:
            self._stack.signal(old, signal.SIGCONT, OPERATOR)
        # It ends, and starts again as a follower: the next fault finds two.
        await site.until_restarted(old)
        return took

    async def _ended(self, site: Site) -> float:
        old = await self._holder(site)
        await site.client.delete(PODS, old, SYSTEM)
        took = await self._until_other(site, old)
        await scenarios.rolled_out(site, "beamlit-operator")
        return took

    async def _killed(self, site: Site) -> float:
        """Until the Lease is renewed, by whomever."""
        old = await self._holder(site)
        self._stack.signal(old, signal.SIGKILL, OPERATOR)
        before = await site.client.get(LEASES, "beamlit-operator", SYSTEM)
        began = time.monotonic()
        while (await site.client.get(LEASES, "beamlit-operator", SYSTEM))["spec"] == before["spec"]:
            await asyncio.sleep(0.05)
        took = time.monotonic() - began
        await scenarios.rolled_out(site, "beamlit-operator")
        return took

    async def _no_operator(self, site: Site) -> None:
        pods = await site.pods(SYSTEM, component="operator")
        names = [pod["metadata"]["name"] for pod in pods]
        for name in names:
            self._stack.signal(name, signal.SIGSTOP, OPERATOR)
        await asyncio.sleep(20)
        for name in names:
            self._stack.signal(name, signal.SIGCONT, OPERATOR)
        await scenarios.rolled_out(site, "beamlit-operator")

    async def _frozen(self, site: Site) -> None:
        os.kill(self._stack.pid("cluster"), signal.SIGSTOP)
        await asyncio.sleep(15)
        os.kill(self._stack.pid("cluster"), signal.SIGCONT)
        await scenarios.rolled_out(site, "beamlit-operator")

    async def _gateway_killed(self, site: Site) -> None:
        await self._kill_in_gateway(site, "")

    async def _agent_killed(self, site: Site) -> None:
        await self._kill_in_gateway(site, "beamlit_operator.gateway")

    async def _kill_in_gateway(self, site: Site, program: str) -> None:
        pods = await site.pods(SYSTEM, component="gateway")
        name = pods[0]["metadata"]["name"]
        self._stack.signal(name, signal.SIGKILL, program)
        await site.until_restarted(name)

    async def _drained(self, site: Site) -> None:
        for pod in await site.pods(SYSTEM, component="gateway"):
            await scenarios.evicted(site, pod["metadata"]["name"])
            await scenarios.rolled_out(site, "beamlit-gateway")

    async def _restarted(self, site: Site) -> None:
        await scenarios.restarted(site, "beamlit-gateway", "beamlit-operator")

    async def _failed_upgrade(self, site: Site) -> None:
        await self._release.fail_to_upgrade(BROKEN_IMAGE, timeout=15)
        for name in ("beamlit-gateway", "beamlit-operator"):
            await scenarios.rolled_out(site, name)

    async def _upgraded(self, site: Site) -> None:
        """To the version before, and from it to this one."""
        await self._release.upgrade(previous.running(self._code), chart=previous.CHART)
        await self._release.upgrade()


def main() -> int:
    # The store in this process logs every request.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="beamlit-availability-") as folder,
        running_stack(Path(folder), ChartedStack) as stack,
    ):
        release = Release(helm_sdkpy, stack.kubeconfig, values=VALUES)
        asyncio.run(release.install())
        bench = Bench(stack, release, previous.unpacked(Path(folder) / "previous"))
        asyncio.run(bench.run())
    publish("availability", bench.rows, bench.lost)
    return 1 if bench.lost else 0


if __name__ == "__main__":
    sys.exit(main())
