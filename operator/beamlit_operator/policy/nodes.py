"""Where a node is and what hardware it has, by its labels alone; whether a policy lets it in.

An administrator's own labels come first: `beamlit.com/location`, else `beamlit.com/country`, else
`beamlit.com/continent`. The first of them that is there decides, alone: the label for the region
that the cloud puts on nodes (`topology.kubernetes.io/region`) counts only when none is there.
What a location is part of is the catalogue's to say; a location it does not know has no country.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from beamlit_operator.api import labels as names
from beamlit_operator.policy.algebra import Value, ValueSet, within, written
from beamlit_operator.policy.because import listed
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.locations import PolicyType, parents

ARCHITECTURE = "kubernetes.io/arch"


@dataclass(frozen=True)
class NodePlace:
    """The smallest place a node is known to be in, and the label that says so; None if unknown."""

    value: Value | None
    label: str | None


def spellings(names: Iterable[str]) -> list[str]:
    """The ways a short name may be written in a node's label: lower or upper case."""
    return sorted({spelling for name in names for spelling in (name, name.upper())})


def node_location(labels: Mapping[str, str]) -> NodePlace:
    """Where a node is."""
    if (location := labels.get(names.NODE_LOCATION)) is not None:
        return NodePlace(Value("location", location), names.NODE_LOCATION)
    for kind, label in (("country", names.NODE_COUNTRY), ("continent", names.NODE_CONTINENT)):
        if (name := labels.get(label)) is not None:
            # Affinity compares exactly, so `Us` is not `us`: it would not be admitted either.
            folded = name.lower() if name in (name.lower(), name.upper()) else name
            return NodePlace(Value(kind, folded), label)
    if (region := labels.get(names.NODE_REGION)) is not None:
        return NodePlace(Value("location", region), names.NODE_REGION)
    return NodePlace(None, None)


def location_allows(
    allowed: ValueSet | None, labels: Mapping[str, str], *, catalogue: Catalogue
) -> bool:
    """Whether the node is within the allowed places."""
    if allowed is None:
        return True
    place = node_location(labels).value
    return place is not None and within(place, allowed, parents(PolicyType.LOCATION, catalogue))


def node_has_gpu(name: str, labels: Mapping[str, str], *, catalogue: Catalogue) -> bool:
    """Whether the node's labels say that it has GPUs of this type; its own label decides alone."""
    explicit = labels.get(names.NODE_FLAVOR)
    if explicit is not None:
        return explicit in (name, name.upper())
    known = catalogue.gpus.get(name)
    return known is not None and any(
        labels.get(label) in values for label, values in known.labels.items()
    )


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
    """The flavors a node has, by its labels."""
    found = [
        Value("cpu", cpu.name)
        for cpu in catalogue.cpus.values()
        if labels.get(ARCHITECTURE) in cpu.architectures
    ]
    if (explicit := labels.get(names.NODE_FLAVOR)) is not None:
        return [*found, Value("gpu", explicit.lower())]
    return found + [
        Value("gpu", gpu.name)
        for gpu in catalogue.gpus.values()
        if node_has_gpu(gpu.name, labels, catalogue=catalogue)
    ]


def what_exists(nodes: Iterable[Mapping[str, str]], *, catalogue: Catalogue) -> str:
    """The nodes in words, equal ones counted: `1 node in us-east-1 with cpu:x86, gpu:t4`."""
    seen: Counter[tuple[str, str]] = Counter()
    for labels in nodes:
        place = node_location(labels).value
        flavors = ", ".join(written(node_flavors(labels, catalogue=catalogue)))
        seen[(f"in {place}" if place else "in no known place", flavors or "no known flavor")] += 1
    if not seen:
        return "there are no nodes"
    return "; ".join(
        f"{count} node{'s' if count > 1 else ''} {place} with {flavors}"
        for (place, flavors), count in sorted(seen.items())
    )


def no_placement_message(
    location: ValueSet | None,
    hardware: ValueSet | None,
    *,
    nodes: Iterable[Mapping[str, str]],
    catalogue: Catalogue,
) -> str:
    """What was allowed and what exists, for the condition of a deployment that fits nowhere."""
    return (
        f"no node fits: allowed are {listed(location)} as location and {listed(hardware)} as "
        f"flavor; existing: {what_exists(nodes, catalogue=catalogue)}. "
        f"Add such a node, or change the policies or spec.flavors"
    )
