"""The HorizontalPodAutoscaler of a revision that scales by cpu or memory.

Pure. One for each revision that gets traffic; it never goes below one replica, and does not touch
a workload that has none, so waking and going to zero stay with the gateways and our own loop.

| serverlessConfig         | HorizontalPodAutoscaler (autoscaling/v2)                              |
|--------------------------|-----------------------------------------------------------------------|
| `metric: cpu`            | Resource cpu, averageUtilization: percent of the request; 80 if unset |
| `metric: memory`         | Resource memory, averageValue: MiB per replica                        |
| `minNumReplicas`         | minReplicas, at least 1                                               |
| `maxNumReplicas`         | maxReplicas; 0, no limit, is 10000: the field must have a number      |
| `scaleDownDelay`,        | behavior.scaleDown.stabilizationWindowSeconds: the longer of the two, |
| `stableWindow` (60s)     | at most an hour, which is Kubernetes' limit                           |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from beamlit_operator.api import ModelDeployment
from beamlit_operator.api.duration import seconds
from beamlit_operator.api.modeldeployment import ServerlessConfig
from beamlit_operator.workloads import names

Json = dict[str, Any]

NO_LIMIT = 10_000
"""The most replicas of a deployment without a maximum: the most that the field itself takes."""

DEFAULT_CPU_PERCENT = 80
"""Kubernetes' own default, of a HorizontalPodAutoscaler that names no metric."""

_LONGEST_WINDOW = 3600
_MEBIBYTE = 2**20


def scales_by_resource(deployment: ModelDeployment) -> bool:
    """Whether a HorizontalPodAutoscaler scales the deployment, and not our own loop."""
    return _config(deployment).metric in ("cpu", "memory")


def scaling_problem(deployment: ModelDeployment) -> str | None:
    """Why no HorizontalPodAutoscaler can be made for the deployment, if so."""
    config = _config(deployment)
    if not scales_by_resource(deployment) or (config.metric == "cpu" and config.target is None):
        return None
    if _target(config) is not None:
        return None
    unit = "percent of the requested cpu" if config.metric == "cpu" else "MiB per replica"
    return (
        f"spec.serverlessConfig.target must be a positive number, {unit}, with metric "
        f"{config.metric}: it is {config.target if config.target is not None else 'not set'}"
    )


def without_request(deployment: ModelDeployment, workload: Mapping[str, Any]) -> list[str]:
    """The containers of a revision's Deployment whose use of cpu cannot be told in percent, because
    they request none. A LimitRange of the namespace may still give them a request."""
    if _config(deployment).metric != "cpu":
        return []
    pod = workload["spec"]["template"]["spec"]
    sidecars = [c for c in pod.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [
        str(each.get("name"))
        for each in (*pod.get("containers", ()), *sidecars)
        # A limit without a request is one.
        if not any(
            "cpu" in ((each.get("resources") or {}).get(kind) or {})
            for kind in ("requests", "limits")
        )
    ]


def horizontal_pod_autoscaler(deployment: ModelDeployment, workload: Mapping[str, Any]) -> Json:
    """The HorizontalPodAutoscaler of a revision.

    Args:
        deployment: one for which `scaling_problem` finds nothing and that scales by a resource.
        workload: the revision's Deployment.
    """
    config = _config(deployment)
    least = max(1, config.min_num_replicas)
    metadata = workload["metadata"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": metadata["name"],
            "namespace": deployment.metadata.namespace,
            "labels": dict(metadata["labels"]),
            "ownerReferences": [names.owner_reference(deployment)],
        },
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": metadata["name"],
            },
            "minReplicas": least,
            "maxReplicas": max(config.max_num_replicas or NO_LIMIT, least),
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": config.metric, "target": _metric_target(config)},
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _window(config)}},
        },
    }


def _metric_target(config: ServerlessConfig) -> Json:
    target = _target(config)
    if config.metric == "cpu":
        percent = math.ceil(target) if target is not None else DEFAULT_CPU_PERCENT
        return {"type": "Utilization", "averageUtilization": percent}
    assert target is not None
    whole = target.is_integer()
    amount = f"{int(target)}Mi" if whole else str(math.ceil(target * _MEBIBYTE))
    return {"type": "AverageValue", "averageValue": amount}


def _target(config: ServerlessConfig) -> float | None:
    try:
        target = float(config.target) if config.target is not None else 0.0
    except ValueError:
        return None
    return target if target > 0 and math.isfinite(target) else None


def _window(config: ServerlessConfig) -> int:
    longest = max(_windows(config))
    return min(math.ceil(longest), _LONGEST_WINDOW)


def _windows(config: ServerlessConfig) -> Iterator[float]:
    for text, default in ((config.scale_down_delay, 0.0), (config.stable_window, 60.0)):
        try:
            yield seconds(text) if text else default
        except ValueError:  # the schema complains about it
            yield default


def _config(deployment: ModelDeployment) -> ServerlessConfig:
    return deployment.spec.serverless_config or ServerlessConfig()
