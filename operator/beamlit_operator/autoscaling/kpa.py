"""How many replicas a deployment should have: Knative's pod autoscaler (KPA).

Pure: averages over two windows, the time, and the state of the last decision in; the wanted number
and the next state out. The algorithm and its numbers are Knative Serving's, as published in its
``docs/scaling/SYSTEM.md``, ``pkg/autoscaler/scaling/autoscaler.go`` (``Scale``) and
``pkg/reconciler/autoscaling/kpa/scaler.go`` (``handleScaleToZero``). Three things differ. A request
in progress always keeps one replica, because here a stream may outlive every window of a rate. A
deployment is watched for one whole stable window before it may go to zero, which also covers the
autoscaler's own restart. And there is no target burst capacity: with Knative it decides whether a
burst finds the activator's queue in its way, and here the gateway is always in the way
(docs/autoscaling.md lists what else differs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Metric = Literal["concurrency", "rps", "resource"]
"""`resource`: something else scales it, and only zero is decided here (``awake``)."""

# Averages are sums of floats: 2.1 / 0.7 must not need a fourth replica.
_ROUNDING = 1e-9

# Knative's TargetMin (pkg/apis/autoscaling): the least that a replica can be given.
_LEAST_PER_REPLICA = 0.01


@dataclass(frozen=True, slots=True)
class ScalingConfig:
    """How one deployment scales. The defaults are Knative's ``config-autoscaler``.

    Attributes:
        metric: what ``target`` and the averages count.
        target: what one replica should carry at most: requests in progress, or per second.
        target_utilization: the part of ``target`` that is aimed at.
        min_replicas: never fewer.
        max_replicas: never more; 0 is no limit.
        max_concurrency: what a gateway gives one replica at most, requests beyond wait there; 0 is
            no limit.
        activation_replicas: never fewer while there is demand (``scaleUpMinimum``).
        stable_window_seconds: averages over this decide in quiet times.
        panic_window_fraction: of the stable window; averages over this detect bursts.
        panic_threshold: panic when the burst needs this many times the ready replicas.
        max_scale_up_rate: at most so many times the ready replicas at once.
        max_scale_down_rate: at least the ready replicas divided by this.
        scale_down_delay_seconds: the highest wish of so long a time counts.
        scale_to_zero_grace_seconds: the last replica stays so long after the decision.
        last_pod_retention_seconds: the same, set per deployment; the longer one counts.
        start_deadline_seconds: a start is not given up earlier, though nobody waits any more.
    """

    metric: Metric = "concurrency"
    target: float = 100.0
    target_utilization: float = 0.7
    min_replicas: int = 0
    max_replicas: int = 10
    max_concurrency: int = 0
    activation_replicas: int = 1
    stable_window_seconds: float = 60.0
    panic_window_fraction: float = 0.1
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_seconds: float = 0.0
    scale_to_zero_grace_seconds: float = 30.0
    last_pod_retention_seconds: float = 0.0
    start_deadline_seconds: float = 300.0

    @property
    def per_replica(self) -> float:
        """What one replica is given."""
        return max(self.target * self.target_utilization, _LEAST_PER_REPLICA)

    @property
    def panic_window_seconds(self) -> float:
        """Whole seconds, at least one: the finest the metric is kept in. As Knative rounds it."""
        return max(math.floor(self.stable_window_seconds * self.panic_window_fraction + 0.5), 1.0)


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at the moment of the decision.

    Attributes:
        stable: average of the metric over the stable window.
        panic: average over the panic window.
        busy: a request is in progress or held right now.
        full_window: the metric has been watched for a whole stable window.
        replicas: what the workload is set to.
        ready_replicas: how many of them serve.
    """

    stable: float
    panic: float
    busy: bool
    full_window: bool
    replicas: int
    ready_replicas: int


@dataclass(frozen=True, slots=True)
class State:
    """What one decision hands to the next. Times are monotonic seconds.

    Attributes:
        panic_seconds: when the load was last over the panic threshold; ``None`` when calm.
        panic_replicas: the most that was wanted during this panic.
        wishes: (when, replicas), falling: what the scale-down delay still has to honour.
        idle_seconds: since when zero replicas are wanted; ``None`` if they are not.
        starting_seconds: since when there are replicas, but none that serves.
    """

    panic_seconds: float | None = None
    panic_replicas: int = 0
    wishes: tuple[tuple[float, int], ...] = ()
    idle_seconds: float | None = None
    starting_seconds: float | None = None


class DecisionReason(StrEnum):
    """Why the decision is what it is: the last rule that changed the number."""

    LOAD = "Load"
    """The average of the stable window asks for it."""
    PANIC = "Panic"
    """A burst, or one that is not a stable window past yet: nothing is removed."""
    SCALE_DOWN_DELAYED = "ScaleDownDelayed"
    """Fewer would do, but not for long enough yet."""
    MINIMUM = "Minimum"
    """The configured minimum is above what the load asks for."""
    MAXIMUM = "Maximum"
    """The load asks for more than the configured maximum."""
    BUSY = "Busy"
    """The averages ask for none, but a request is in progress."""
    WATCHING = "Watching"
    """No load yet, but it has not been watched for a whole stable window."""
    STARTING = "Starting"
    """No load, but the replica is on its way: whoever asked will most likely ask again."""
    LAST_REPLICA_RETAINED = "LastReplicaRetained"
    """No load; the last replica stays for the grace or retention period."""
    IDLE = "Idle"
    """No load for long enough: none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be.

    Attributes:
        desired: the number.
        reason: why.
        panicking: in panic.
        state: for the next decision.
    """

    desired: int
    reason: DecisionReason
    panicking: bool
    state: State


def first_state(replicas: int, *, now_seconds: float) -> State:
    """The state for a deployment that was not watched before.

    Knative starts in panic when there is more than one replica, so that a restarted autoscaler,
    which knows no history, removes nothing before it has seen a stable window.
    """
    if replicas > 1:
        return State(panic_seconds=now_seconds, panic_replicas=replicas)
    return State()


def decide(
    config: ScalingConfig, seen: Observation, state: State, *, now_seconds: float
) -> Decision:
    """One decision.

    ``stable`` and ``panic`` below are the replicas their averages ask for: average divided by
    ``target x utilisation``, rounded up; at most ``ready x 1000``, at least ``ready / 2``, and
    ``activation_replicas`` if there is any demand. ``ready`` is at least 1. Rules apply in order,
    each to the result of the one before:

    | rule | when                                                | replicas                     |
    |------|-----------------------------------------------------|------------------------------|
    | 1    | always                                              | stable                       |
    | 2    | burst >= 2 x ready now or within a stable window    | most of stable, panic, and   |
    |      |                                                     | what this panic wanted before|
    | 3    | a higher wish within the scale-down delay           | that wish                    |
    | 4    | below minimum / above maximum                       | minimum / maximum            |
    | 5    | 0, and a request in progress or held                | 1                            |
    | 6    | 0, and not watched for a stable window              | 1 (0 if there are none)      |
    | 7    | 0, and none serves yet, within the start deadline   | 1 (0 if there are none)      |
    | 8    | 0, wanted for less than grace or retention          | 1 (0 if there are none)      |
    | 9    | 0, wanted for longer                                | 0                            |
    """
    ready = max(1, seen.ready_replicas)
    stable = _wanted(config, seen.stable, ready)
    panic = _wanted(config, seen.panic, ready)
    desired, reason = stable, DecisionReason.LOAD

    panic_seconds, panic_replicas = _panic(config, seen, state, ready=ready, now=now_seconds)
    if panic_seconds is not None:
        panic_replicas = max(panic_replicas, stable, panic)
        if panic_replicas > desired:
            reason = DecisionReason.PANIC
        desired = panic_replicas

    wishes = _wishes(config, state, desired, now=now_seconds)
    if wishes and wishes[0][1] > desired:
        desired, reason = wishes[0][1], DecisionReason.SCALE_DOWN_DELAYED

    if desired < config.min_replicas:
        desired, reason = config.min_replicas, DecisionReason.MINIMUM
    if 0 < config.max_replicas < desired:
        desired, reason = config.max_replicas, DecisionReason.MAXIMUM

    starting = _starting(seen, state, now=now_seconds)
    idle_seconds = None
    if desired == 0:
        desired, reason, idle_seconds = last_replica(
            config, seen, replace(state, starting_seconds=starting), now=now_seconds
        )
    return Decision(
        desired,
        reason,
        panic_seconds is not None,
        State(panic_seconds, panic_replicas, wishes, idle_seconds, starting),
    )


def _wanted(config: ScalingConfig, average: float, ready: int) -> int:
    """The replicas an average asks for, within the rates of change."""
    asked = math.ceil(average / config.per_replica - _ROUNDING)
    most = math.ceil(config.max_scale_up_rate * ready)
    least = math.floor(ready / config.max_scale_down_rate)
    wanted = min(max(asked, least), most)
    return max(wanted, config.activation_replicas) if asked > 0 else wanted


def _panic(
    config: ScalingConfig, seen: Observation, state: State, *, ready: int, now: float
) -> tuple[float | None, int]:
    """Since when there is panic, if there is, and what it wanted so far."""
    burst = math.ceil(seen.panic / config.per_replica - _ROUNDING)
    if burst / ready >= config.panic_threshold:
        return now, state.panic_replicas
    if state.panic_seconds is None or now - state.panic_seconds > config.stable_window_seconds:
        return None, 0
    return state.panic_seconds, state.panic_replicas


def _wishes(
    config: ScalingConfig, state: State, desired: int, *, now: float
) -> tuple[tuple[float, int], ...]:
    """The wishes of the delay, highest first: a sliding maximum (Knative's ``max.TimeWindow``).

    A wish that a later one exceeds can never count again, so they only fall, and there are at most
    as many as replicas.
    """
    delay = config.scale_down_delay_seconds
    if delay <= 0:
        return ()
    kept = (wish for wish in state.wishes if now - wish[0] < delay and wish[1] > desired)
    return (*kept, (now, desired))


def _starting(seen: Observation, state: State, *, now: float) -> float | None:
    """Since when there are replicas but none that serves."""
    if seen.replicas == 0 or seen.ready_replicas > 0:
        return None
    return now if state.starting_seconds is None else state.starting_seconds


def last_replica(
    config: ScalingConfig, seen: Observation, state: State, *, now: float
) -> tuple[int, DecisionReason, float | None]:
    """Whether the last replica may go: rules 5 to 9. Since when it may, too."""
    if seen.busy:
        return 1, DecisionReason.BUSY, None
    remaining = min(seen.replicas, 1)
    if not seen.full_window:
        return remaining, DecisionReason.WATCHING, None
    starting = state.starting_seconds
    if starting is not None and now - starting < config.start_deadline_seconds:
        return remaining, DecisionReason.STARTING, None
    idle_seconds = now if state.idle_seconds is None else state.idle_seconds
    retention = max(config.scale_to_zero_grace_seconds, config.last_pod_retention_seconds)
    if now - idle_seconds < retention:
        return remaining, DecisionReason.LAST_REPLICA_RETAINED, idle_seconds
    return 0, DecisionReason.IDLE, idle_seconds
