"""The loop around the decision: every two seconds read, decide, scale what has to change.

It keeps the metric of the deployments that run or are asked for, and nothing of those that sleep.
Whatever it does not know, it does not act on:

| known                             | done                                                   |
|-----------------------------------|--------------------------------------------------------|
| no gateway answers                | nothing; and watching begins anew when one does        |
| some gateways answer              | the silent ones count with their last figures a while  |
| a deployment, for the first time  | up at once; down only after a whole stable window      |
| a target that sleeps without load | nothing is computed or kept                            |
| the cluster refuses to scale      | logged; decided anew at the next tick                  |
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from beamlit_operator.autoscaling.awake import decide_awake
from beamlit_operator.autoscaling.kpa import (
    Decision,
    Observation,
    ScalingConfig,
    State,
    decide,
    first_state,
)
from beamlit_operator.autoscaling.loads import (
    DeploymentKey,
    GatewayLoad,
    LoadMerger,
    LoadSample,
)
from beamlit_operator.autoscaling.window import MetricWindow

TICK_SECONDS = 2.0
"""Knative's ``tick-interval``."""

_SCALE_TIMEOUT_SECONDS = 10.0
_SCALES_AT_ONCE = 16

# Of the most that replicas may have: samples are a little below it while requests come and go.
_FULL = 0.9

# So long the caller's view may lag behind a change just made; the same change is not made twice.
_SETTLE_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """One revision that is scaled here.

    Attributes:
        workspace: the namespace.
        name: of the ModelDeployment.
        revision: of the workload that is scaled.
        scaling: how.
        replicas: what the workload is set to.
        ready_replicas: how many of them serve.
        traffic: the part of the deployment's requests that goes to this revision, 0 to 1.
    """

    workspace: str
    name: str
    revision: str
    scaling: ScalingConfig
    replicas: int
    ready_replicas: int
    traffic: float = 1.0

    @property
    def key(self) -> DeploymentKey:
        return DeploymentKey(f"{self.workspace}/{self.name}")


@dataclass(slots=True)
class _Watched:
    """What is kept of one revision between ticks."""

    window: MetricWindow
    state: State
    asked: tuple[int, int, float] | None = None
    """The last change: from, to, when (monotonic seconds)."""
    decision: Decision | None = None


class Autoscaler:
    """Scales the targets to their load.

    Args:
        read_targets: all revisions to scale; called every tick, so it should read a cache. Leave
            out what must not be scaled: deactivated or failed.
        fetch_loads: the load reports of the gateways that answer, by address.
        scale: sets a target's replicas; raises if that failed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        read_targets: Callable[[], Iterable[Target]],
        fetch_loads: Callable[[], Awaitable[Mapping[str, GatewayLoad]]],
        scale: Callable[[Target, int], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float = TICK_SECONDS,
        loads: LoadMerger | None = None,
    ) -> None:
        self._read_targets = read_targets
        self._fetch_loads = fetch_loads
        self._scale = scale
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._loads = loads or LoadMerger()
        self._watched: dict[tuple[DeploymentKey, str], _Watched] = {}
        self._limit = asyncio.Semaphore(_SCALES_AT_ONCE)
        self._blind = False

    async def run(self) -> None:
        """Ticks until cancelled. An error ends a tick, never the loop."""
        while True:
            started = self._clock()
            try:
                await self.tick()
            except Exception:
                _log.exception("autoscaling failed; it is tried again at the next tick")
            await asyncio.sleep(max(self._tick_seconds - (self._clock() - started), 0.1))

    async def tick(self) -> None:
        """Reads, decides and scales once."""
        reports = await self._fetch_loads()
        now = self._clock()
        for source, load in reports.items():
            self._loads.record(source, load, now_seconds=now)
        if self._is_blind(now):
            return
        targets = list(self._read_targets())
        changes = self._decide(targets, now)
        if changes:
            await asyncio.gather(*(self._change(*change) for change in changes))

    def decisions(self) -> dict[tuple[DeploymentKey, str], Decision]:
        """The last decision for each revision that is watched: for metrics and explanations."""
        return {key: it.decision for key, it in self._watched.items() if it.decision is not None}

    def _is_blind(self, now: float) -> bool:
        blind = self._loads.is_blind(now_seconds=now)
        if blind:
            # What was seen before the gap must not count as watched when it ends.
            self._watched.clear()
        if blind != self._blind:
            self._blind = blind
            if blind:
                _log.warning("no gateway reports load: nothing is scaled until one does")
            else:
                _log.info("gateways report load")
        return blind

    def _decide(self, targets: list[Target], now: float) -> list[tuple[Target, Decision]]:
        self._loads.forget_all_but(target.key for target in targets)
        samples = self._loads.samples(now_seconds=now)
        awake: dict[tuple[DeploymentKey, str], _Watched] = {}
        changes = []
        for target in targets:
            load = samples.get(target.key)
            if load is None and not (target.replicas or target.scaling.min_replicas):
                # Nearly all of thousands.
                continue
            sample = (load or LoadSample()).scaled(target.traffic)
            busy = sample.concurrency + sample.held > 0
            if not (target.replicas or busy or target.scaling.min_replicas):
                continue
            identity = (target.key, target.revision)
            watched = self._watched.get(identity) or _watch(target, now)
            awake[identity] = watched
            decision = _decide_one(target, watched, sample, busy=busy, now=now)
            if decision.desired != target.replicas and not _is_asked(watched, target, now):
                watched.asked = (target.replicas, decision.desired, now)
                changes.append((target, decision))
        self._watched = awake
        return changes

    async def _change(self, target: Target, decision: Decision) -> None:
        about = {
            "workspace": target.workspace,
            "deployment": target.name,
            "revision": target.revision,
            "replicas": target.replicas,
            "desired": decision.desired,
            "reason": decision.reason.value,
        }
        try:
            async with self._limit, asyncio.timeout(_SCALE_TIMEOUT_SECONDS):
                await self._scale(target, decision.desired)
        except Exception as error:
            watched = self._watched.get((target.key, target.revision))
            if watched is not None:
                watched.asked = None
            _log.warning("scaling failed: %s", error, extra=about)
        else:
            _log.info("scaled", extra=about)


def _watch(target: Target, now: float) -> _Watched:
    return _Watched(
        MetricWindow(target.scaling.stable_window_seconds, now_seconds=now),
        first_state(target.replicas, now_seconds=now),
    )


def _decide_one(
    target: Target, watched: _Watched, sample: LoadSample, *, busy: bool, now: float
) -> Decision:
    config = target.scaling
    if watched.window.length_seconds != config.stable_window_seconds:
        watched.window = watched.window.resized(config.stable_window_seconds)
    watched.window.add(_demand(sample, target), now_seconds=now)
    seen = Observation(
        stable=watched.window.average(config.stable_window_seconds, now_seconds=now),
        panic=watched.window.average(config.panic_window_seconds, now_seconds=now),
        busy=busy,
        full_window=watched.window.is_full(now_seconds=now),
        replicas=target.replicas,
        ready_replicas=target.ready_replicas,
    )
    rule = decide_awake if config.metric == "resource" else decide
    watched.decision = rule(config, seen, watched.state, now_seconds=now)
    watched.state = watched.decision.state
    return watched.decision


def _demand(sample: LoadSample, target: Target) -> float:
    """What of a sample is averaged.

    What waits at a gateway because all replicas are at their ``maxConcurrency`` is in no report:
    Envoy counts a request when it gives it to a replica. So the load of replicas that are full is
    taken for twice what it is, which is panic: they double until they are not.
    """
    config = target.scaling
    if config.metric == "rps":
        demand = sample.requests_per_second  # what is held was counted when it arrived
    else:
        # What is held is in progress as soon as a replica is there.
        demand = sample.concurrency + sample.held
    if config.metric == "resource":
        return demand + sample.requests_per_second
    full = config.max_concurrency * target.ready_replicas
    return 2 * demand if full and sample.busiest >= _FULL * full else demand


def _is_asked(watched: _Watched, target: Target, now: float) -> bool:
    """This very change was made a moment ago, and the caller's view does not show it yet."""
    if watched.asked is None or watched.decision is None:
        return False
    before, after, when = watched.asked
    return (
        target.replicas == before
        and watched.decision.desired == after
        and now - when < _SETTLE_SECONDS
    )
