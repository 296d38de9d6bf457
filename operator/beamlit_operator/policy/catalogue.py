"""What the world looks like: countries with their continents, the clouds' regions, the flavors.

Data, in `data/*.yaml`, each part with its source; `reading` makes this of it. Read once, at the
first question (not on import). All names are lower case in here; callers fold case. Kubernetes
compares what a node's label says exactly, so a region or zone also keeps how it is spelled there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

CONTINENTS: Mapping[str, str] = {
    "af": "Africa",
    "an": "Antarctica",
    "as": "Asia",
    "eu": "Europe",
    "na": "North America",
    "oc": "Oceania",
    "sa": "South America",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One region or zone of one cloud; its country is an ISO 3166-1 alpha-2 code."""

    cloud: str
    name: str
    country: str
    place: str
    spelled: tuple[str, ...] = ()
    """How nodes' labels write it, where that is not just the name."""
    region: str | None = None
    """The region of a zone; None for a region."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that pods ask for by a resource."""

    resource: str
    suffixes: Mapping[str, tuple[str, ...]]
    """By label: what its plugin may put behind a product's name, as for GPUs that are shared."""


@dataclass(frozen=True, slots=True)
class CpuFlavor:
    """A processor architecture, and the values of `kubernetes.io/arch` that mean it."""

    name: str
    architectures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuFlavor:
    """A GPU type: how nodes show it (values by label) and the device resource a pod asks for."""

    name: str
    labels: Mapping[str, tuple[str, ...]]
    resource: str
    variant_of: str | None = None
    """The flavor that contains this one, such as `a100` for `a100-80gb`."""
    memory: tuple[int, ...] = ()
    """Bytes of memory of one device; several where the name stands for several, none if unknown."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Countries, regions and flavors. Unknown names have no country and no hardware: None.

    Compared by identity: it is large, and a process has one, or another one after a change.
    """

    continent_by_country: Mapping[str, str]
    country_names: Mapping[str, str]
    places: tuple[Place, ...]
    """Regions and those zones whose names tell no region, or that lie in another country."""
    zone_patterns: Mapping[str, str]
    """By cloud: what a zone's name has after its region's name, as a regular expression."""
    devices: Mapping[str, Device]
    cpus: Mapping[str, CpuFlavor]
    gpus: Mapping[str, GpuFlavor]
    flavor_aliases: Mapping[tuple[str, str], str]

    @property
    def regions(self) -> tuple[Place, ...]:
        """The regions, without the zones."""
        return tuple(place for place in self.places if place.region is None)

    @cached_property
    def _country_by_location(self) -> Mapping[str, str]:
        countries: dict[str, set[str]] = {}
        for place in self.places:
            countries.setdefault(place.name, set()).add(place.country)
        # A name that clouds use for regions of different countries proves no country: it is left
        # out, so that no country policy lets a node in on the strength of it.
        return {name: min(found) for name, found in countries.items() if len(found) == 1}

    @cached_property
    def ambiguous(self) -> Mapping[str, tuple[str, ...]]:
        """Names that clouds use in different countries, with those."""
        countries: dict[str, set[str]] = {}
        for place in self.places:
            countries.setdefault(place.name, set()).add(place.country)
        return {name: tuple(sorted(of)) for name, of in countries.items() if len(of) > 1}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The catalogue's name by every spelling, in lower case."""
        return {
            spelled.lower(): place.name
            for place in self.places
            for spelled in (*place.spelled, place.name)
        }

    @cached_property
    def _spelled(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for place in self.places:
            found.setdefault(place.name, {place.name}).update(place.spelled)
        return {name: tuple(sorted(spelled)) for name, spelled in found.items()}

    @cached_property
    def _region_by_zone(self) -> Mapping[str, str]:
        return {place.name: place.region for place in self.places if place.region is not None}

    @cached_property
    def _zone_patterns(self) -> tuple[tuple[re.Pattern[str], frozenset[str]], ...]:
        regions: dict[str, set[str]] = {}
        for place in self.regions:
            regions.setdefault(place.cloud, set()).add(place.name)
        return tuple(
            (re.compile(f"(?P<region>.+?)(?:{pattern})"), frozenset(regions.get(cloud, ())))
            for cloud, pattern in self.zone_patterns.items()
        )

    @cached_property
    def _locations_by_country(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name, country in sorted(self._country_by_location.items()):
            if name not in self._region_by_zone:
                found.setdefault(country, []).append(name)
        return {country: tuple(names) for country, names in found.items()}

    @cached_property
    def _countries_by_continent(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for country, continent in sorted(self.continent_by_country.items()):
            found.setdefault(continent, []).append(country)
        return {continent: tuple(names) for continent, names in found.items()}

    @cached_property
    def foreign_zones(self) -> Mapping[str, tuple[str, ...]]:
        """By region: its zones that do not lie in its country, such as AWS' Local Zones abroad."""
        found: dict[str, list[str]] = {}
        for place in self.places:
            if place.region is not None and place.country != self.country_of(place.region):
                found.setdefault(place.region, []).append(place.name)
        return {region: tuple(sorted(zones)) for region, zones in found.items()}

    def country_of(self, location: str) -> str | None:
        """The country of a region or zone; None if unknown, or if clouds disagree on the name."""
        found = self._country_by_location.get(location)
        if found is None and (region := self.zone_region(location)) is not None:
            return self._country_by_location.get(region)
        return found

    def zone_region(self, location: str) -> str | None:
        """The region that a zone is part of by name; None if it is no known zone."""
        found = self._region_by_zone.get(location)
        if found is not None or location in self._spelled:
            return found
        for pattern, regions in self._zone_patterns:
            match = pattern.fullmatch(location)
            if match is not None and match["region"] in regions:
                return match["region"]
        return None

    def region_of(self, zone: str) -> str | None:
        """The region that contains a zone: of its own country, so none for a zone abroad."""
        region = self.zone_region(zone)
        if region is None or self.country_of(zone) != self.country_of(region):
            return None
        return region

    def location_name(self, location: str) -> str:
        """The catalogue's own name of a location; an unknown one as it is."""
        return self._names.get(location, location)

    def label_values(self, location: str) -> tuple[str, ...]:
        """How a location may be written in a node's label. An unknown one: all lower or upper."""
        found = self._spelled.get(location)
        if found is not None:
            return found
        return tuple(sorted({location, location.upper()}))

    def lists(self, location: str) -> bool:
        """Whether a region or zone is listed, and not only known by the form of its name."""
        return location in self._spelled

    @cached_property
    def listed_zones(self) -> Mapping[str, str]:
        """The zones that are listed, with their regions."""
        return dict(self._region_by_zone)

    def location_of_label(self, text: str) -> str | None:
        """The location that a node's label means; None if it is written in none of its ways."""
        name = self.location_name(text.lower())
        return name if text in self.label_values(name) else None

    def continent_of(self, country: str) -> str | None:
        """The continent of a country; None if ISO 3166 does not list it."""
        return self.continent_by_country.get(country)

    def countries_in(self, continent: str) -> tuple[str, ...]:
        """The countries of a continent, sorted."""
        return self._countries_by_continent.get(continent, ())

    def locations_in(self, country: str) -> tuple[str, ...]:
        """The known regions of a country, sorted."""
        return self._locations_by_country.get(country, ())

    def flavor_name(self, kind: str, name: str) -> str:
        """The catalogue's own spelling of a flavor's name; an unknown name as it is."""
        return self.flavor_aliases.get((kind, name), name)

    def variant_of(self, kind: str, name: str) -> str | None:
        """The flavor that contains this one, if any."""
        known = self.gpus.get(name) if kind == "gpu" else None
        return None if known is None else known.variant_of

    @cached_property
    def _variants(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for gpu in self.gpus.values():
            if gpu.variant_of is not None:
                found.setdefault(gpu.variant_of, []).append(gpu.name)
        return {name: tuple(sorted(of)) for name, of in found.items()}

    def variants(self, gpu: str) -> tuple[str, ...]:
        """A GPU type and its variants, of which having any means having the type."""
        return (gpu, *self._variants.get(gpu, ()))

    def gpu_memory(self, gpu: str) -> tuple[int, int] | None:
        """The least and the most memory that one device of a type may have, in bytes."""
        found = [
            size
            for name in self.variants(gpu)
            if name in self.gpus
            for size in self.gpus[name].memory
        ]
        return (min(found), max(found)) if found else None

    @property
    def node_labels(self) -> frozenset[str]:
        """The labels of nodes by which GPU types are known."""
        return frozenset(label for gpu in self.gpus.values() for label in gpu.labels)
