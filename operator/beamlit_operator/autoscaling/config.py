"""From a deployment's ``serverlessConfig`` to the numbers the decision works with. Pure."""

from __future__ import annotations

import math

from beamlit_operator.api.duration import seconds
from beamlit_operator.api.modeldeployment import ServerlessConfig
from beamlit_operator.autoscaling.kpa import Metric, ScalingConfig

# Knative's container-concurrency-target-default and requests-per-second-target-default.
_DEFAULT_TARGETS: dict[Metric, float] = {"concurrency": 100.0, "rps": 200.0, "resource": 100.0}

_METRICS: dict[str | None, Metric] = {"rps": "rps", "cpu": "resource", "memory": "resource"}

DEFAULT_GRACE_SECONDS = 30.0


def scaling_config(
    serverless: ServerlessConfig | None,
    *,
    max_concurrency: int | None = None,
    grace_seconds: float = DEFAULT_GRACE_SECONDS,
) -> ScalingConfig:
    """How a deployment scales here; by `cpu` and `memory`, only to and from zero.

    Args:
        serverless: the spec's block; ``None`` is all defaults.
        max_concurrency: the endpoint's limit for one replica, if there is one. A replica never has
            more in progress than that, so a higher target would never be met and the requests that
            wait would start nothing (Knative bounds its target by containerConcurrency likewise).
        grace_seconds: the operator's setting for how long the last replica stays.
    """
    given = serverless or ServerlessConfig()
    metric = _METRICS.get(given.metric, "concurrency")
    # The target of a resource is percent or MiB, and the HorizontalPodAutoscaler's alone.
    target = (None if metric == "resource" else _target(given.target)) or _DEFAULT_TARGETS[metric]
    if metric == "concurrency" and max_concurrency:
        target = min(target, float(max_concurrency))
    return ScalingConfig(
        metric=metric,
        target=target,
        min_replicas=given.min_num_replicas,
        max_replicas=given.max_num_replicas,
        max_concurrency=max_concurrency or 0,
        activation_replicas=given.scale_up_minimum or 1,
        stable_window_seconds=max(_seconds(given.stable_window, 60.0), 1.0),
        scale_down_delay_seconds=_seconds(given.scale_down_delay, 0.0),
        scale_to_zero_grace_seconds=grace_seconds,
        last_pod_retention_seconds=_seconds(given.last_pod_retention_period, 0.0),
    )


def _target(value: int | str | None) -> float | None:
    """A positive number, or nothing: the schema and the webhook complain, the decision goes on."""
    try:
        number = float(value) if value is not None else 0.0
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None


def _seconds(text: str | None, default: float) -> float:
    try:
        return seconds(text) if text else default
    except ValueError:
        return default
