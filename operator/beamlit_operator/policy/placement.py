"""The effective policy as constraints of a pod: required node affinity, device and toleration.

Affinity and `node_allows` say the same of every node, also of those that do not exist yet
(groups that an autoscaler grows carry the cloud's region and zone labels). Terms are alternatives:

| term        | location label | country label | continent label | region label     | zone label |
|-------------|----------------|---------------|-----------------|------------------|------------|
| by location | in the set     |               |                 |                  |            |
| by country  | absent         | in the set    |                 |                  |            |
| by continent| absent         | absent        | in the set      |                  |            |
| by region   | absent         | absent        | absent          | in the set       | not abroad |
| by zone     | absent         | absent        | absent          | the zone's region| in the set |

"The set" of locations and countries includes all that the allowed continents and countries contain
in the catalogue. "Not abroad": no zone of those regions that lies outside what is allowed, such as
an AWS Local Zone in another country. There is one term by zone for each region of which only zones
are allowed. Terms of location and of hardware are multiplied, since both must hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from beamlit_operator.api import labels as names
from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy.algebra import Value, ValueSet, reduced, within
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.effective import EffectivePolicy
from beamlit_operator.policy.locations import PolicyType, algebra, normal
from beamlit_operator.policy.nodes import (
    ARCHITECTURE,
    PRODUCT,
    ZONE,
    NodeKinds,
    hardware_allows,
    location_allows,
    no_placement_message,
    spellings,
)
from beamlit_operator.policy.reading import built_in

Requirement = dict[str, Any]
"""One `matchExpressions` entry of a node selector term."""

Term = list[Requirement]
"""Requirements that must all hold."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The flavors a deployment runs on: any of `values`, None for any hardware.

    `forbidden` are those it asks for and policies do not allow.
    """

    values: ValueSet | None
    forbidden: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """What a pod says so that it runs only where it may."""

    affinity: dict[str, Any] | None
    """The pod's `affinity`; None when anything is allowed."""
    tolerations: tuple[dict[str, Any], ...] = ()
    devices: Mapping[str, int] = field(default_factory=dict)
    """Device resources the serving container asks for, with how many at least."""
    forbidden: tuple[Value, ...] = ()
    """Flavors asked for that policies do not allow; then nothing may be placed."""
    problem: str | None = None
    """Why nothing can be placed although all is allowed; a sentence for the condition."""


def choose_hardware(
    allowed: ValueSet | None, requested: Iterable[Flavor], *, catalogue: Catalogue
) -> Hardware:
    """Which of the allowed flavors a deployment uses.

    What it asks for, as far as it is allowed. If it asks for nothing: the allowed cpu flavors, or
    where only GPUs are allowed, those. So nobody occupies a GPU who did not ask for one.
    """
    wanted = {normal(each.type, each.name, catalogue=catalogue) for each in requested}
    if not wanted:
        cpus = frozenset(value for value in allowed or () if value.kind == "cpu")
        return Hardware(cpus or allowed)
    parent = algebra(PolicyType.FLAVOR, catalogue).parent
    forbidden = {value for value in wanted if not within(value, allowed, parent)}
    return Hardware(reduced(wanted - forbidden, parent), tuple(sorted(forbidden)))


def place(
    policy: EffectivePolicy,
    *,
    requested: Sequence[Flavor] = (),
    catalogue: Catalogue | None = None,
) -> Placement:
    """The constraints that keep a deployment's pods to its policy and to the flavors it asks for.

    An asked-for flavor that is not allowed is left out and reported in `forbidden`.
    """
    known = catalogue or built_in()
    hardware = choose_hardware(policy.flavor.allowed, requested, catalogue=known)
    terms = _multiplied(
        _location_terms(policy.location.allowed, known), _hardware_terms(hardware.values, known)
    )
    gpus = sorted(value.name for value in hardware.values or () if value.kind == "gpu")
    devices = sorted({known.gpus[name].resource for name in gpus if name in known.gpus})
    problem = None
    if len(devices) > 1:
        problem = (
            f"spec.flavors lists GPUs of different devices ({', '.join(devices)}): a pod asks for "
            f"one, so list GPUs of one vendor"
        )
    return Placement(
        affinity=None if terms is None else _affinity(terms),
        tolerations=tuple(
            {"key": device, "operator": "Exists", "effect": "NoSchedule"} for device in devices
        ),
        devices=dict.fromkeys(devices, 1),
        forbidden=hardware.forbidden,
        problem=problem,
    )


def node_allows(
    policy: EffectivePolicy,
    labels: Mapping[str, str],
    *,
    requested: Sequence[Flavor] = (),
    catalogue: Catalogue | None = None,
) -> bool:
    """Whether a pod of the deployment may run on the node with these labels."""
    known = catalogue or built_in()
    hardware = choose_hardware(policy.flavor.allowed, requested, catalogue=known)
    return location_allows(policy.location.allowed, labels, catalogue=known) and hardware_allows(
        hardware.values, labels, catalogue=known
    )


@lru_cache(maxsize=16384)
def _fits(
    location: ValueSet | None,
    hardware: ValueSet | None,
    labels: frozenset[tuple[str, str]],
    catalogue: Catalogue,
) -> bool:
    """Remembered: the deployments of an environment ask it of the same few kinds of nodes."""
    kind = dict(labels)
    return location_allows(location, kind, catalogue=catalogue) and hardware_allows(
        hardware, kind, catalogue=catalogue
    )


def why_no_node(
    policy: EffectivePolicy,
    kinds: NodeKinds,
    *,
    requested: Sequence[Flavor] = (),
    catalogue: Catalogue | None = None,
) -> str | None:
    """Why the deployment fits on none of these nodes; None if it fits on one."""
    known = catalogue or built_in()
    hardware = choose_hardware(policy.flavor.allowed, requested, catalogue=known)
    where = policy.location.allowed
    if any(_fits(where, hardware.values, frozenset(labels.items()), known) for labels, _ in kinds):
        return None
    return no_placement_message(
        policy.location.allowed, hardware.values, kinds=kinds, catalogue=known
    )


@lru_cache(maxsize=1024)
def _location_terms(allowed: ValueSet | None, catalogue: Catalogue) -> list[Term] | None:
    if allowed is None:
        return None
    continents = {value.name for value in allowed if value.kind == "continent"}
    countries = {value.name for value in allowed if value.kind == "country"}
    countries.update(name for each in continents for name in catalogue.countries_in(each))
    locations = {value.name for value in allowed if value.kind == "location"}
    locations.update(name for each in countries for name in catalogue.locations_in(each))
    regions, zones, abroad = _regions_and_zones(locations, allowed, catalogue)
    locations.update(zone for each in zones.values() for zone in each)
    parent = algebra(PolicyType.LOCATION, catalogue).parent
    locations.update(
        zone for zone in catalogue.listed_zones if within(Value("location", zone), allowed, parent)
    )
    labelled = [
        name for name in locations if catalogue.lists(name) or catalogue.zone_region(name) is None
    ]
    unlabelled = [_absent(each) for each in _OWN_LABELS]
    terms = [
        [_in(names.NODE_LOCATION, _label_values(labelled, catalogue))],
        [unlabelled[0], _in(names.NODE_COUNTRY, spellings(countries))],
        [*unlabelled[:2], _in(names.NODE_CONTINENT, spellings(continents))],
        [
            *unlabelled,
            _in(names.NODE_REGION, _label_values(regions, catalogue)),
            *([_not_in(ZONE, _label_values(abroad, catalogue))] if abroad else ()),
        ],
        *(
            [
                *unlabelled,
                _in(names.NODE_REGION, _label_values([region], catalogue)),
                _in(ZONE, _label_values(of_region, catalogue)),
            ]
            for region, of_region in sorted(zones.items())
        ),
    ]
    return [term for term in terms if _possible(term)]


_OWN_LABELS = (names.NODE_LOCATION, names.NODE_COUNTRY, names.NODE_CONTINENT)


def _regions_and_zones(
    locations: Iterable[str], allowed: ValueSet, catalogue: Catalogue
) -> tuple[list[str], dict[str, set[str]], list[str]]:
    """The allowed regions, the allowed zones of other regions, and the zones to keep out."""
    parent = algebra(PolicyType.LOCATION, catalogue).parent
    of_zone = {name: catalogue.zone_region(name) for name in locations}
    regions = sorted(name for name, region in of_zone.items() if region is None)
    zones: dict[str, set[str]] = {}
    for name, region in of_zone.items():
        if region is not None and region not in of_zone:
            zones.setdefault(region, set()).add(name)
    abroad = []
    for region, foreign in catalogue.foreign_zones.items():
        inside = {zone for zone in foreign if within(Value("location", zone), allowed, parent)}
        if region in of_zone:
            abroad += sorted(set(foreign) - inside)
        elif inside:
            zones.setdefault(region, set()).update(inside)
    return regions, zones, abroad


def _label_values(locations: Iterable[str], catalogue: Catalogue) -> list[str]:
    return sorted({value for name in locations for value in catalogue.label_values(name)})


def _hardware_terms(hardware: ValueSet | None, catalogue: Catalogue) -> list[Term] | None:
    if hardware is None:
        return None
    architectures = {
        architecture
        for value in hardware
        if value.kind == "cpu" and value.name in catalogue.cpus
        for architecture in catalogue.cpus[value.name].architectures
    }
    gpus = sorted(
        name for value in hardware if value.kind == "gpu" for name in catalogue.variants(value.name)
    )
    by_label: dict[str, set[str]] = {}
    for name in gpus:
        if name in catalogue.gpus:
            for label, values in catalogue.gpus[name].labels.items():
                by_label.setdefault(label, set()).update(values)
    terms = [
        [_in(ARCHITECTURE, sorted(architectures))],
        [_in(names.NODE_FLAVOR, spellings(gpus))],
        *(
            [
                _absent(names.NODE_FLAVOR),
                *([_absent(PRODUCT)] if label != PRODUCT else ()),
                _in(label, sorted(values)),
            ]
            for label, values in sorted(by_label.items())
        ),
    ]
    return [term for term in terms if _possible(term)]


def _multiplied(left: list[Term] | None, right: list[Term] | None) -> list[Term] | None:
    """The terms of both conditions together: a choice of each, in every combination."""
    if left is None or right is None:
        return right if left is None else left
    return [[*one, *other] for one in left for other in right]


def _affinity(terms: list[Term]) -> dict[str, Any]:
    # No term at all would be refused by the API, and nothing is allowed: a term no node can meet.
    selected = terms or [[_in(names.NODE_LOCATION, ["-"]), _absent(names.NODE_LOCATION)]]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": term} for term in selected]
            }
        }
    }


def _in(label: str, values: list[str]) -> Requirement:
    return {"key": label, "operator": "In", "values": values}


def _not_in(label: str, values: list[str]) -> Requirement:
    """Kubernetes lets in a node without the label."""
    return {"key": label, "operator": "NotIn", "values": values}


def _absent(label: str) -> Requirement:
    return {"key": label, "operator": "DoesNotExist"}


def _possible(term: Term) -> bool:
    return all(each["operator"] != "In" or each["values"] for each in term)
