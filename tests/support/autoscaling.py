"""The autoscaler in virtual time: pretend pods that take their time, pretend gateways that fail.

The real loop, merger, windows and decision run; only the clock, the pods and the gateways are
pretended. One second is one step; the autoscaler ticks every other second. The same simulation
always gives the same trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from beamlit_operator.autoscaling.kpa import DecisionReason, ScalingConfig
from beamlit_operator.autoscaling.loads import DeploymentKey, DeploymentLoad, GatewayLoad
from beamlit_operator.autoscaling.loop import Autoscaler, Target

KEY = DeploymentKey("team/iris-production")
START = 10_000
"""The virtual clock does not begin at zero: nothing may depend on it."""

TICK = 2
REQUEST_SECONDS = 0.1
"""How long a request of the `rps` scenarios takes."""

Demand = Callable[[int], float]
"""Requests in progress at a second of the simulation; with `rps`, requests that arrive in it."""

Span = tuple[int, int]
"""Seconds of the simulation, the second one excluded."""


@dataclass(frozen=True)
class Gateway:
    """One gateway. Its part of the traffic goes to the others while it is gone."""

    gone: Span = (0, 0)
    silent: Span = (0, 0)
    """It serves, but the autoscaler does not hear of it."""
    late: int = 0
    """Its figures are so many seconds old."""


@dataclass(frozen=True)
class Row:
    """What was so at one tick."""

    second: int
    demand: float
    needed: float
    """The demand in replicas: what a perfect autoscaler would run."""
    held: float
    """Requests that wait at the gateways, for the first pod or for a place at one."""
    desired: int
    replicas: int
    ready: int
    panicking: bool
    reason: DecisionReason | None


@dataclass(frozen=True)
class Simulation:
    """What is simulated."""

    demand: Demand
    seconds: int
    scaling: ScalingConfig = field(
        default_factory=lambda: ScalingConfig(target=10.0, max_replicas=100)
    )
    gateways: tuple[Gateway, ...] = (Gateway(),)
    start_seconds: int = 8
    """From the scale call to a pod that serves."""
    replicas: int = 0
    """Pods that serve at the beginning."""
    max_concurrency: int = 0
    """What a gateway gives one pod at most; the rest waits there, and no report tells of it."""
    restarts: tuple[int, ...] = ()
    """When the autoscaler is replaced by a new one, which remembers nothing."""

    def run(self) -> list[Row]:
        """The trace."""
        return asyncio.run(_World(self).run())


@dataclass
class _Figures:
    """What a gateway counts."""

    concurrency: float = 0.0
    held: float = 0.0
    total: float = 0.0


class _World:
    def __init__(self, plan: Simulation) -> None:
        self._plan = plan
        self._second = 0
        self._ready_at = [0] * plan.replicas
        self._history: list[list[_Figures]] = []
        self._totals = [0.0] * len(plan.gateways)
        self._waiting = 0.0
        self._autoscaler = self._new()

    def _new(self) -> Autoscaler:
        return Autoscaler(
            read_targets=self._targets,
            fetch_loads=self._loads,
            scale=self._scale,
            clock=lambda: float(START + self._second),
        )

    @property
    def _ready(self) -> int:
        return sum(1 for at in self._ready_at if at <= self._second)

    async def run(self) -> list[Row]:
        rows = []
        while self._second < self._plan.seconds:
            if self._second in self._plan.restarts:
                self._autoscaler = self._new()
            demand = self._plan.demand(self._second)
            self._serve(demand)
            if self._second % TICK == 0:
                await self._autoscaler.tick()
                rows.append(self._row(demand))
            self._second += 1
        return rows

    def _row(self, demand: float) -> Row:
        decision = self._autoscaler.decisions().get((KEY, "iris-1"))
        return Row(
            second=self._second,
            demand=demand,
            needed=round(demand / self._plan.scaling.per_replica, 3),
            held=round(self._waiting, 3),
            desired=decision.desired if decision is not None else len(self._ready_at),
            replicas=len(self._ready_at),
            ready=self._ready,
            panicking=decision.panicking if decision is not None else False,
            reason=decision.reason if decision is not None else None,
        )

    def _serve(self, demand: float) -> None:
        """One second of traffic: to the pods, or held while there are none, which wakes one."""
        alive = [not _within(self._second, each.gone) for each in self._plan.gateways]
        share = demand / sum(alive) if any(alive) else 0.0
        rps = self._plan.scaling.metric == "rps"
        if share and not self._ready_at:
            self._set(max(self._plan.scaling.activation_replicas, 1))
        limit = self._plan.max_concurrency * self._ready
        if self._ready:
            self._waiting = sum(alive) * max(share - limit, 0.0) if limit else 0.0
        else:
            self._waiting = self._waiting + share * sum(alive) if rps else share * sum(alive)
        figures = []
        for index, there in enumerate(alive):
            if there and rps:
                self._totals[index] += share
            carried = share * REQUEST_SECONDS if rps else share
            figures.append(
                _Figures(
                    concurrency=(min(carried, limit) if limit else carried)
                    if there and self._ready
                    else 0.0,
                    held=self._waiting / sum(alive) if there and not self._ready else 0.0,
                    total=self._totals[index],
                )
            )
        self._history.append(figures)

    def _targets(self) -> Iterable[Target]:
        replicas = len(self._ready_at)
        yield Target("team", "iris-production", "iris-1", self._plan.scaling, replicas, self._ready)

    async def _loads(self) -> Mapping[str, GatewayLoad]:
        reports = {}
        for index, gateway in enumerate(self._plan.gateways):
            if _within(self._second, gateway.gone) or _within(self._second, gateway.silent):
                continue
            at = self._second - gateway.late
            seen = self._history[at][index] if at >= 0 else _Figures()
            load = DeploymentLoad(seen.concurrency, int(seen.total), int(seen.held))
            reports[f"http://gateway-{index}/load"] = GatewayLoad(f"gateway-{index}", {KEY: load})
        return reports

    async def _scale(self, _target: Target, replicas: int) -> None:
        self._set(replicas)

    def _set(self, replicas: int) -> None:
        """As a ReplicaSet: new pods start together; those not ready yet go first."""
        self._ready_at.sort()
        missing = replicas - len(self._ready_at)
        if missing > 0:
            self._ready_at += [self._second + self._plan.start_seconds] * missing
        else:
            del self._ready_at[replicas:]


def _within(second: int, span: Span) -> bool:
    return span[0] <= second < span[1]
