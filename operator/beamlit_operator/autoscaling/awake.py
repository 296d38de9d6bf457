"""Whether a deployment that something else scales should run at all.

A HorizontalPodAutoscaler never goes to zero and never comes back from there. For deployments with
`metric: cpu` or `memory` this decides the rest: zero, and the first replicas. Pure, like ``kpa``.
"""

from __future__ import annotations

from dataclasses import replace

from beamlit_operator.autoscaling.kpa import (
    Decision,
    DecisionReason,
    Observation,
    ScalingConfig,
    State,
    last_replica,
)


def decide_awake(
    config: ScalingConfig, seen: Observation, state: State, *, now_seconds: float
) -> Decision:
    """One decision. ``seen.stable`` is the demand of any kind over the stable window.

    | replicas | when                                              | replicas then                |
    |----------|---------------------------------------------------|------------------------------|
    | none     | there is a minimum, or a request waits            | minimum or activation scale, |
    |          |                                                   | at most the maximum          |
    | none     | else                                              | none                         |
    | some     | there is a minimum, or demand within the window   | as many: not ours            |
    | some     | no demand: rules 5 to 8 of ``kpa.decide`` keep one| as many                      |
    | some     | no demand: rule 9                                 | none                         |
    """
    if seen.replicas == 0:
        first = max(config.min_replicas, config.activation_replicas)
        if config.max_replicas:
            first = min(first, config.max_replicas)
        if seen.busy:
            return Decision(first, DecisionReason.BUSY, False, State())
        wanted = config.min_replicas
        reason = DecisionReason.MINIMUM if wanted else DecisionReason.IDLE
        return Decision(wanted, reason, False, State())
    starting = None
    if seen.ready_replicas == 0:
        starting = now_seconds if state.starting_seconds is None else state.starting_seconds
    state = replace(state, starting_seconds=starting)
    if config.min_replicas or seen.stable > 0:
        kept = replace(state, idle_seconds=None)
        return Decision(seen.replicas, DecisionReason.LOAD, False, kept)
    last, reason, idle_seconds = last_replica(config, seen, state, now=now_seconds)
    desired = seen.replicas if last else 0
    return Decision(desired, reason, False, replace(state, idle_seconds=idle_seconds))
