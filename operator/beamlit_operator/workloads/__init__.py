"""The Kubernetes objects of a ModelDeployment, from resources, policy and origin. Pure."""

from beamlit_operator.workloads.detection import Suggestion, suggest_runtime
from beamlit_operator.workloads.files import (
    ModelFiles,
    SecretVariable,
    http_credentials,
    hub_credentials,
    pull_credentials,
    s3_credentials,
)
from beamlit_operator.workloads.native import (
    Refusal,
    Settings,
    Workload,
    endpoint_service,
    refused,
    workload,
)
from beamlit_operator.workloads.unsupported import Unsupported, unsupported

__all__ = [
    "ModelFiles",
    "Refusal",
    "SecretVariable",
    "Settings",
    "Suggestion",
    "Unsupported",
    "Workload",
    "endpoint_service",
    "http_credentials",
    "hub_credentials",
    "pull_credentials",
    "refused",
    "s3_credentials",
    "suggest_runtime",
    "unsupported",
    "workload",
]
