"""Normal forms and containment of the two policy types: locations and flavors.

`continent:na` contains `country:us`, which contains `location:us-east-1`, which contains its zones
(`location:us-east-1a`). `gpu:a100` contains its variant `gpu:a100-80gb`; other flavors are flat.
Names are case-insensitive; the normal form is lower case and the catalogue's own spelling.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from beamlit_operator.policy.algebra import Algebra, Parent, Value, ValueSet, reduced
from beamlit_operator.policy.catalogue import CONTINENTS, Catalogue

CATALOGUES = 8
"""Catalogues whose containment is kept at hand; a process works with one or two."""


class PolicyType(StrEnum):
    """What a policy is about."""

    LOCATION = "location"
    FLAVOR = "flavor"


FLAVOR_KINDS = ("cpu", "gpu")

Entries = tuple[tuple[str, str], ...]
"""The kinds and names of a policy, as they are written."""


def normal(kind: str, name: str, *, catalogue: Catalogue) -> Value:
    """The normal form of one entry of a policy or of a deployment's flavors."""
    kind, name = kind.strip().lower(), name.strip().lower()
    if kind in FLAVOR_KINDS:
        name = catalogue.flavor_name(kind, name)
    elif kind == "location":
        name = catalogue.location_name(name)
    return Value(kind, name)


@lru_cache(maxsize=2 * CATALOGUES)
def algebra(policy_type: PolicyType, catalogue: Catalogue) -> Algebra:
    """The operations on the sets of one policy type."""
    return Algebra(parents(policy_type, catalogue))


def parents(policy_type: PolicyType, catalogue: Catalogue) -> Parent:
    """The containment relation of one policy type."""

    def of_flavor(value: Value) -> Value | None:
        above = catalogue.variant_of(value.kind, value.name)
        return None if above is None else Value(value.kind, above)

    def of_location(value: Value) -> Value | None:
        if value.kind == "location":
            if (region := catalogue.region_of(value.name)) is not None:
                return Value("location", region)
            country = catalogue.country_of(value.name)
            return None if country is None else Value("country", country)
        if value.kind == "country":
            continent = catalogue.continent_of(value.name)
            return None if continent is None else Value("continent", continent)
        return None

    return of_flavor if policy_type is PolicyType.FLAVOR else of_location


def parsed(entries: Entries, policy_type: PolicyType, catalogue: Catalogue) -> ValueSet:
    """What a policy with these entries allows, in normal form and reduced."""
    return reduced(
        (normal(kind, name, catalogue=catalogue) for kind, name in entries),
        algebra(policy_type, catalogue).parent,
    )


def unknown(values: Iterable[Value], *, catalogue: Catalogue) -> list[str]:
    """One sentence for each value that can match nothing, or only what names it by a label.

    An unknown continent or country is a mistake. An unknown location or GPU may be a cluster's own:
    it matches nodes that carry it in their `beamlit.com/` label or, a location, as their region.
    """
    sentences = []
    for value in sorted(values):
        match value.kind:
            case "continent" if value.name not in CONTINENTS:
                sentences.append(
                    f"continent {value.name!r} does not exist: use one of {' '.join(CONTINENTS)}"
                )
            case "country" if catalogue.continent_of(value.name) is None:
                sentences.append(
                    f"country {value.name!r} does not exist: use an ISO 3166-1 alpha-2 code"
                    + (" (the United Kingdom is gb)" if value.name == "uk" else "")
                )
            case "cpu" if value.name not in catalogue.cpus:
                sentences.append(
                    f"cpu flavor {value.name!r} does not exist: "
                    f"use one of {' '.join(sorted(catalogue.cpus))}"
                )
            case _:
                pass
    return sentences
