"""Environment: a named set of policies that every deployment in it inherits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from beamlit_operator.api.conditions import Condition
from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.api.schema import DisplayName, ObjectName, list_map, preserved_conditions


class EnvironmentPolicy(Part):
    """A Policy attached to an Environment."""

    name: ObjectName
    """The name of a Policy in the same namespace."""
    mandatory: bool = False
    """Whether deployments are forbidden to remove or replace it."""


class EnvironmentSpec(Part):
    display_name: DisplayName | None = None
    """A name for people."""
    policies: tuple[EnvironmentPolicy, ...] = Field(
        default=(), max_length=64, json_schema_extra=list_map("name")
    )
    """The policies of the environment. Mandatory ones bind every deployment in it."""


class EnvironmentStatus(Part):
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation the status was computed from."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=preserved_conditions())
    """`Ready`; `Stalled` while a person must act."""
    deployments: int | None = Field(default=None, ge=0)
    """How many ModelDeployments are in the environment."""


class Environment(Part):
    """An Environment of a workspace."""

    api_version: Literal["beamlit.com/v1alpha1"] = "beamlit.com/v1alpha1"
    kind: Literal["Environment"] = "Environment"
    metadata: ObjectMeta
    spec: EnvironmentSpec = EnvironmentSpec()
    status: EnvironmentStatus = EnvironmentStatus()
