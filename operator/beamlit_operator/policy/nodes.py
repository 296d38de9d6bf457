"""Where a node is and what hardware it has, by its labels alone; whether a policy lets it in.

An administrator's own labels come first: `beamlit.com/location`, else `beamlit.com/country`, else
`beamlit.com/continent`. The first of them that is there decides, alone: the labels that the cloud
puts on nodes count only when none is there. Of those, the region (`topology.kubernetes.io/region`)
decides, and the zone (`topology.kubernetes.io/zone`) says more when it is a zone of that region:

| region label           | zone label                     | the node is in                    |
|------------------------|--------------------------------|-----------------------------------|
| a region               | a zone of it                   | the zone, hence the region        |
| a region               | a zone of it, abroad           | the zone, hence the other country |
| a region, or unknown   | absent, unknown, or of another | the region                        |
| absent, or a zone      | any                            | no known place                    |

Hardware likewise: `beamlit.com/flavor` decides alone; else the product that the GPU's driver names
(`nvidia.com/gpu.product`), where there is that label; else what any of the clouds' labels say.

What a location is part of is the catalogue's to say; a location it does not know has no country.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from beamlit_operator.api import labels as names
from beamlit_operator.policy.algebra import Value, ValueSet, within, written
from beamlit_operator.policy.because import listed
from beamlit_operator.policy.catalogue import Catalogue, GpuFlavor
from beamlit_operator.policy.locations import PolicyType, algebra

ARCHITECTURE = "kubernetes.io/arch"
ZONE = "topology.kubernetes.io/zone"
PRODUCT = "nvidia.com/gpu.product"

SHOWN_KINDS = 8
"""Kinds of nodes that a message describes before it says how many more there are."""

NodeKinds = Sequence[tuple[Mapping[str, str], int]]
"""Distinct sets of node labels, and how many nodes carry each."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """The smallest place a node is known to be in, and the label that says so; None if unknown."""

    value: Value | None
    label: str | None


def relevant_labels(catalogue: Catalogue) -> frozenset[str]:
    """The labels of nodes that policies look at."""
    return catalogue.node_labels | {
        names.NODE_LOCATION,
        names.NODE_COUNTRY,
        names.NODE_CONTINENT,
        names.NODE_FLAVOR,
        names.NODE_REGION,
        ZONE,
        ARCHITECTURE,
    }


def spellings(names: Iterable[str]) -> list[str]:
    """The ways a short name may be written in a node's label: lower or upper case."""
    return sorted({spelling for name in names for spelling in (name, name.upper())})


def node_location(labels: Mapping[str, str], *, catalogue: Catalogue) -> NodePlace:
    """Where a node is."""
    if (text := labels.get(names.NODE_LOCATION)) is not None:
        location = _location(text, catalogue)
        # A zone that is known by the form of its name only: affinity cannot list all of those.
        formed = catalogue.zone_region(location.name) is not None
        known = not formed or catalogue.lists(location.name)
        return NodePlace(location if known else None, names.NODE_LOCATION)
    for kind, label in (("country", names.NODE_COUNTRY), ("continent", names.NODE_CONTINENT)):
        if (name := labels.get(label)) is not None:
            # Affinity compares exactly, so `Us` is not `us`: it would not be admitted either.
            folded = name.lower() if name in (name.lower(), name.upper()) else name
            return NodePlace(Value(kind, folded), label)
    if (text := labels.get(names.NODE_REGION)) is None:
        return NodePlace(None, None)
    region = _location(text, catalogue)
    if catalogue.zone_region(region.name) is not None:
        return NodePlace(None, None)
    if (text := labels.get(ZONE)) is not None:
        zone = _location(text, catalogue)
        if catalogue.zone_region(zone.name) == region.name:
            return NodePlace(zone, ZONE)
    return NodePlace(region, names.NODE_REGION)


def _location(text: str, catalogue: Catalogue) -> Value:
    # In none of the ways the catalogue knows, it would not be admitted: so it stays as it is.
    return Value("location", catalogue.location_of_label(text) or text)


def location_allows(
    allowed: ValueSet | None, labels: Mapping[str, str], *, catalogue: Catalogue
) -> bool:
    """Whether the node is within the allowed places."""
    if allowed is None:
        return True
    place = node_location(labels, catalogue=catalogue)
    if place.value is None:
        return False
    return within(place.value, allowed, algebra(PolicyType.LOCATION, catalogue).parent)


def node_has_gpu(name: str, labels: Mapping[str, str], *, catalogue: Catalogue) -> bool:
    """Whether the node's labels say that it has GPUs of this type; its own label decides alone."""
    variants = catalogue.variants(name)
    explicit = labels.get(names.NODE_FLAVOR)
    if explicit is not None:
        return explicit in spellings(variants)
    return any(
        _shows(catalogue.gpus[variant], labels) for variant in variants if variant in catalogue.gpus
    )


def _shows(gpu: GpuFlavor, labels: Mapping[str, str]) -> bool:
    if (product := labels.get(PRODUCT)) is not None:
        return product in gpu.labels.get(PRODUCT, ())
    return any(labels.get(label) in values for label, values in gpu.labels.items())


def hardware_allows(
    hardware: ValueSet | None, labels: Mapping[str, str], *, catalogue: Catalogue
) -> bool:
    """Whether the node has any of the flavors."""
    if hardware is None:
        return True
    for value in hardware:
        if value.kind == "gpu":
            if node_has_gpu(value.name, labels, catalogue=catalogue):
                return True
        elif (cpu := catalogue.cpus.get(value.name)) is not None and (
            labels.get(ARCHITECTURE) in cpu.architectures
        ):
            return True
    return False


def node_flavors(labels: Mapping[str, str], *, catalogue: Catalogue) -> list[Value]:
    """The flavors a node has, by its labels; of a type and its variant the variant."""
    found = [
        Value("cpu", cpu.name)
        for cpu in catalogue.cpus.values()
        if labels.get(ARCHITECTURE) in cpu.architectures
    ]
    if (explicit := labels.get(names.NODE_FLAVOR)) is not None:
        return [*found, Value("gpu", explicit.lower())]
    gpus = {gpu.name for gpu in catalogue.gpus.values() if _shows(gpu, labels)}
    broader = {catalogue.variant_of("gpu", name) for name in gpus}
    return found + [Value("gpu", name) for name in sorted(gpus - broader)]


def what_exists(kinds: NodeKinds, *, catalogue: Catalogue) -> str:
    """The nodes in words, equal ones counted: `1 node in us-east-1 with cpu:x86, gpu:t4`.

    At most `SHOWN_KINDS` kinds, the most frequent first.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for labels, count in kinds:
        seen[_described(frozenset(labels.items()), catalogue)] += count
    if not seen:
        return "there are no nodes"
    ordered = sorted(seen.items(), key=lambda each: (-each[1], each[0]))
    told = [
        f"{_nodes(count)} {place} with {flavors}"
        for (place, flavors), count in ordered[:SHOWN_KINDS]
    ]
    if len(ordered) > SHOWN_KINDS:
        rest = ordered[SHOWN_KINDS:]
        told.append(f"{_nodes(sum(count for _, count in rest))} of {len(rest)} other kinds")
    return "; ".join(told)


@lru_cache(maxsize=4096)
def _described(labels: frozenset[tuple[str, str]], catalogue: Catalogue) -> tuple[str, str]:
    """Where a kind of node is and what it has, in words."""
    kind = dict(labels)
    place = node_location(kind, catalogue=catalogue).value
    flavors = ", ".join(written(node_flavors(kind, catalogue=catalogue)))
    return f"in {place}" if place else "in no known place", flavors or "no known flavor"


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"


def no_placement_message(
    location: ValueSet | None,
    hardware: ValueSet | None,
    *,
    kinds: NodeKinds,
    catalogue: Catalogue,
) -> str:
    """What was allowed and what exists, for the condition of a deployment that fits nowhere."""
    return (
        f"no node fits: allowed are {listed(location)} as location and {listed(hardware)} as "
        f"flavor; existing: {what_exists(kinds, catalogue=catalogue)}. "
        f"Add such a node, or change the policies or spec.flavors"
    )
