"""What the world looks like: countries with their continents, the clouds' regions, the flavors.

Data, in `data/*.yaml`, each with its source. Read once, at the first question (not on import).
All names are lower case in here; callers fold case.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

CONTINENTS: Mapping[str, str] = {
    "af": "Africa",
    "an": "Antarctica",
    "as": "Asia",
    "eu": "Europe",
    "na": "North America",
    "oc": "Oceania",
    "sa": "South America",
}


@dataclass(frozen=True)
class Region:
    """One region of one cloud; its country is an ISO 3166-1 alpha-2 code."""

    cloud: str
    name: str
    country: str
    place: str


@dataclass(frozen=True)
class CpuFlavor:
    """A processor architecture, and the values of `kubernetes.io/arch` that mean it."""

    name: str
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class GpuFlavor:
    """A GPU type: how nodes show it (values by label) and the device resource a pod asks for."""

    name: str
    labels: Mapping[str, tuple[str, ...]]
    resource: str


@dataclass(frozen=True)
class Catalogue:
    """Countries, regions and flavors. Unknown names have no country and no hardware: None."""

    continent_by_country: Mapping[str, str]
    country_names: Mapping[str, str]
    regions: tuple[Region, ...]
    cpus: Mapping[str, CpuFlavor]
    gpus: Mapping[str, GpuFlavor]
    flavor_aliases: Mapping[tuple[str, str], str]

    @cached_property
    def _country_by_location(self) -> Mapping[str, str]:
        countries: dict[str, set[str]] = {}
        for region in self.regions:
            countries.setdefault(region.name, set()).add(region.country)
        # A name that clouds use for regions of different countries proves no country: it is left
        # out, so that no country policy lets a node in on the strength of it.
        return {name: min(found) for name, found in countries.items() if len(found) == 1}

    @cached_property
    def _locations_by_country(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name, country in sorted(self._country_by_location.items()):
            found.setdefault(country, []).append(name)
        return {country: tuple(names) for country, names in found.items()}

    @cached_property
    def _countries_by_continent(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for country, continent in sorted(self.continent_by_country.items()):
            found.setdefault(continent, []).append(country)
        return {continent: tuple(names) for continent, names in found.items()}

    def country_of(self, location: str) -> str | None:
        """The country of a region; None if unknown, or if clouds disagree about the name."""
        return self._country_by_location.get(location)

    def continent_of(self, country: str) -> str | None:
        """The continent of a country; None if ISO 3166 does not list it."""
        return self.continent_by_country.get(country)

    def countries_in(self, continent: str) -> tuple[str, ...]:
        """The countries of a continent, sorted."""
        return self._countries_by_continent.get(continent, ())

    def locations_in(self, country: str) -> tuple[str, ...]:
        """The known locations of a country, sorted."""
        return self._locations_by_country.get(country, ())

    def flavor_name(self, kind: str, name: str) -> str:
        """The catalogue's own spelling of a flavor's name; an unknown name as it is."""
        return self.flavor_aliases.get((kind, name), name)

    def with_locations(self, countries: Mapping[str, str]) -> "Catalogue":
        """This catalogue and a cluster's own locations (name to country), for instance its sites.

        Raises:
            ValueError: a country is not in ISO 3166, or a location is listed with another country.
        """
        added = []
        for location, country in countries.items():
            name, code = location.lower(), country.lower()
            if code not in self.continent_by_country:
                raise ValueError(
                    f"location {name}: country {code!r} is not an ISO 3166-1 alpha-2 code"
                )
            if self.country_of(name) not in (None, code):
                raise ValueError(
                    f"location {name}: the catalogue has it in {self.country_of(name)}, not {code}"
                )
            added.append(Region(cloud="", name=name, country=code, place=""))
        return replace(self, regions=(*self.regions, *added))


@cache
def built_in() -> Catalogue:
    """The built-in catalogue, read from the packaged data once."""
    continents, names = _read_countries(_data("countries.yaml"))
    flavors = _data("flavors.yaml")
    return Catalogue(
        continent_by_country=continents,
        country_names=names,
        regions=tuple(_read_regions(_data("regions.yaml"))),
        cpus={
            name: CpuFlavor(name=name, architectures=tuple(row["arch"]))
            for name, row in flavors["cpu"].items()
        },
        gpus={
            name: GpuFlavor(
                name=name,
                labels={label: tuple(values) for label, values in row["labels"].items()},
                resource=flavors["devices"][row["device"]]["resource"],
            )
            for name, row in flavors["gpu"].items()
        },
        flavor_aliases={
            (kind, alias): name
            for kind in ("cpu", "gpu")
            for name, row in flavors[kind].items()
            for alias in row.get("aliases", ())
        },
    )


def _data(name: str) -> dict[str, Any]:
    # Imported here: most of what imports this module never asks the catalogue anything.
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("beamlit_operator.policy").joinpath("data", name).read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    return data


def _lines(block: str) -> Iterable[list[str]]:
    return (line.split(" ", 2) for line in block.splitlines() if line)


def _read_countries(data: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    continents: dict[str, str] = {}
    names: dict[str, str] = {}
    for continent, block in data["continents"].items():
        for code, *name in _lines(block):
            continents[code] = continent
            names[code] = " ".join(name)
    return continents, names


def _read_regions(data: dict[str, Any]) -> Iterator[Region]:
    for cloud, block in data["clouds"].items():
        for name, country, place in _lines(block):
            yield Region(cloud=cloud, name=name, country=country, place=place)
