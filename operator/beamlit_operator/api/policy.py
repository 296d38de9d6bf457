"""Policy: what is allowed for one aspect, where a model runs or on what hardware."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.conditions import Condition
from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.api.schema import (
    DisplayName,
    advice,
    list_map,
    list_set,
    preserved_conditions,
    rule,
    rules,
)

PolicyType = Literal["location", "flavor"]
LocationType = Literal["continent", "country", "location"]
FlavorType = Literal["cpu", "gpu"]


class Location(Part):
    """A place: a continent, a country or a region of a provider."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.type != 'continent' || "
                "self.name.lowerAscii() in ['af', 'an', 'as', 'eu', 'na', 'oc', 'sa']",
                "a continent is one of af, an, as, eu, na, oc, sa",
                fieldPath=".name",
            ),
            rule(
                "self.type != 'country' || self.name.matches('^[A-Za-z]{2}$')",
                "a country is written as its two ISO 3166 letters, such as us",
                fieldPath=".name",
            ),
        )
    )

    type: LocationType
    """What the name stands for."""
    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        json_schema_extra=advice(
            "write the code of a place, without spaces: eu, us or us-east-1, by its type"
        ),
    )
    """A continent (`eu`), an ISO 3166 country (`us`) or a region's name (`us-east-1`)."""


class Flavor(Part):
    """A kind of hardware."""

    type: FlavorType
    """`cpu` or `gpu`."""
    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        json_schema_extra=advice("write a flavor's name, without spaces: t4, h100 or x86"),
    )
    """Its name, such as `t4` or `x86`."""


class PolicySpec(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.type != 'location' || (has(self.locations) && size(self.locations) > 0)",
                "a policy of type location needs at least one entry in spec.locations",
                fieldPath=".locations",
            ),
            rule(
                "self.type != 'flavor' || (has(self.flavors) && size(self.flavors) > 0)",
                "a policy of type flavor needs at least one entry in spec.flavors",
                fieldPath=".flavors",
            ),
            rule(
                "self.type == 'location' || !has(self.locations) || size(self.locations) == 0",
                "spec.locations belongs to a policy of type location: set spec.type to location "
                "or remove it",
                fieldPath=".locations",
            ),
            rule(
                "self.type == 'flavor' || !has(self.flavors) || size(self.flavors) == 0",
                "spec.flavors belongs to a policy of type flavor: set spec.type to flavor or "
                "remove it",
                fieldPath=".flavors",
            ),
            rule(
                "self.type == oldSelf.type",
                "spec.type cannot be changed: create another Policy",
                fieldPath=".type",
            ),
        )
    )

    display_name: DisplayName | None = None
    """A name for people."""
    type: PolicyType
    """The aspect that is governed."""
    locations: tuple[Location, ...] = Field(
        default=(), max_length=256, json_schema_extra=list_map("type", "name")
    )
    """Where a model may run: anywhere in any of these. For `type: location`."""
    flavors: tuple[Flavor, ...] = Field(
        default=(), max_length=256, json_schema_extra=list_map("type", "name")
    )
    """On what hardware a model may run: any of these. For `type: flavor`."""
    resource_types: tuple[Literal["model"], ...] = Field(
        default=(), max_length=8, json_schema_extra=list_set()
    )
    """What the policy applies to; everything when empty."""

    @property
    def entries(self) -> tuple[tuple[str, str], ...]:
        """The kinds and names of the policy's own type."""
        entries = self.locations if self.type == "location" else self.flavors
        return tuple([(each.type, each.name) for each in entries])


class PolicyStatus(Part):
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation the status was computed from."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=preserved_conditions())
    """`Ready`; `Stalled` while a person must act."""


class Policy(Part):
    """A Policy of a workspace."""

    api_version: Literal["beamlit.com/v1alpha1"] = "beamlit.com/v1alpha1"
    kind: Literal["Policy"] = "Policy"
    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
