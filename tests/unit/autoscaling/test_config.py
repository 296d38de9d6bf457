"""From the spec's serverlessConfig to the decision's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.api.modeldeployment import ServerlessConfig
from beamlit_operator.autoscaling import ScalingConfig, scaling_config


def test_nothing_given_is_knatives_defaults() -> None:
    assert scaling_config(None) == ScalingConfig()


def test_every_field_arrives() -> None:
    given = ServerlessConfig.model_validate(
        {
            "minNumReplicas": 1,
            "maxNumReplicas": 0,
            "metric": "rps",
            "target": "50",
            "scaleUpMinimum": 2,
            "scaleDownDelay": "1m30s",
            "stableWindow": "20s",
            "lastPodRetentionPeriod": "5m",
        }
    )
    assert scaling_config(given, grace_seconds=7) == ScalingConfig(
        metric="rps",
        target=50.0,
        min_replicas=1,
        max_replicas=0,
        activation_replicas=2,
        scale_down_delay_seconds=90.0,
        stable_window_seconds=20.0,
        last_pod_retention_seconds=300.0,
        scale_to_zero_grace_seconds=7,
    )


@pytest.mark.parametrize("metric", ["cpu", "memory"])
def test_resources_are_left_to_the_horizontal_pod_autoscaler(metric: Any) -> None:
    config = scaling_config(ServerlessConfig(metric=metric, target=5))
    assert config == ScalingConfig(metric="resource")


@pytest.mark.parametrize("target", ["0", "-3", "many", "nan"])
def test_a_target_that_is_no_quantity_is_the_default(target: str) -> None:
    given = ServerlessConfig.model_construct(metric="rps", target=target)
    config = scaling_config(given)
    assert config.target == 200.0


@pytest.mark.parametrize(
    ("target", "limit", "aimed_at"),
    [(None, 4, 4.0), ("2", 4, 2.0), ("8", 4, 4.0), ("8", 0, 8.0), ("8", None, 8.0)],
)
def test_a_replica_is_never_expected_to_carry_more_than_its_limit(
    target: str | None, limit: int | None, aimed_at: float
) -> None:
    config = scaling_config(ServerlessConfig(target=target), max_concurrency=limit)
    assert config.max_concurrency == (limit or 0)
    assert config is not None
    assert config.target == aimed_at


def test_a_limit_of_concurrency_is_no_limit_of_rate() -> None:
    config = scaling_config(ServerlessConfig(metric="rps", target="50"), max_concurrency=4)
    assert config is not None
    assert config.target == 50.0
