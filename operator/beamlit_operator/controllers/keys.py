"""What the queue works on: one object of one of our four kinds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, NewType

from beamlit_operator.kube import ENVIRONMENTS, MODEL_DEPLOYMENTS, MODELS, POLICIES, Resource

Workspace = NewType("Workspace", str)
"""A Kubernetes namespace."""


class Kind(StrEnum):
    """Our four kinds."""

    MODEL = "Model"
    MODEL_DEPLOYMENT = "ModelDeployment"
    ENVIRONMENT = "Environment"
    POLICY = "Policy"

    @property
    def resource(self) -> Resource:
        """Where objects of the kind live in the API."""
        return _RESOURCES[self]


_RESOURCES = {
    Kind.MODEL: MODELS,
    Kind.MODEL_DEPLOYMENT: MODEL_DEPLOYMENTS,
    Kind.ENVIRONMENT: ENVIRONMENTS,
    Kind.POLICY: POLICIES,
}


class Key(NamedTuple):
    """Names one object of ours."""

    kind: Kind
    workspace: Workspace
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.workspace}/{self.name}"
