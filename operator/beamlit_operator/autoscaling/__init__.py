"""Autoscaling: how many replicas each deployment has, by its load.

``kpa`` decides (pure), ``window`` keeps the recent past, ``loads`` merges what the gateways report,
``gateways`` asks them, ``loop`` puts these together every two seconds.
"""

from beamlit_operator.autoscaling.config import scaling_config
from beamlit_operator.autoscaling.gateways import GatewayLoads
from beamlit_operator.autoscaling.kpa import Decision, DecisionReason, ScalingConfig
from beamlit_operator.autoscaling.loads import (
    DeploymentKey,
    GatewayLoad,
    LoadSample,
    RevisionOutcome,
    parse_load,
)
from beamlit_operator.autoscaling.loop import Autoscaler, Target

__all__ = [
    "Autoscaler",
    "Decision",
    "DecisionReason",
    "DeploymentKey",
    "GatewayLoad",
    "GatewayLoads",
    "LoadSample",
    "RevisionOutcome",
    "ScalingConfig",
    "Target",
    "parse_load",
    "scaling_config",
]
