"""Catalogues as data: what `data/*.yaml` and a cluster's own catalogue hold, entry by entry.

Two documents, each of which may be left out:

    regions.yaml   clouds: {CLOUD: {zonePattern, regions, zones}}; regions and zones are text, one
                   a line: `NAME COUNTRY PLACE` and `NAME REGION COUNTRY PLACE`. A NAME is written
                   as nodes' labels have it, several ways with commas between.
    flavors.yaml   devices: {DEVICE: {resource, suffixes}}
                   cpu: {FLAVOR: {arch, aliases}}
                   gpu: {FLAVOR: {device, labels, aliases, variantOf, memory}}

A bad entry is told and left out, the rest is used. Entries are added to what is there already:

| entry                       | there already             | then                                  |
|-----------------------------|---------------------------|---------------------------------------|
| region or zone              | not                       | added                                 |
|                             | in the same country       | added: more spellings, another cloud  |
|                             | in another country        | the new one counts alone; told        |
| flavor                      | not                       | added                                 |
|                             | of the same device        | labels and aliases are added, memory  |
|                             |                           | is replaced                           |
|                             | of another device         | refused                               |
| label value or alias        | another flavor's          | refused                               |
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from beamlit_operator.policy.catalogue import Catalogue, CpuFlavor, Device, GpuFlavor, Place

REGIONS = "regions.yaml"
FLAVORS = "flavors.yaml"

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""What the value of a node's label can be."""

_LABEL = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


class BadEntryError(Exception):
    """An entry cannot be used; says why to its author."""


@dataclass(slots=True)
class Reading:
    """A catalogue under construction. Everything is keyed in lower case."""

    continent_by_country: dict[str, str] = field(default_factory=dict)
    country_names: dict[str, str] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    zone_patterns: dict[str, str] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    cpus: dict[str, CpuFlavor] = field(default_factory=dict)
    gpus: dict[str, GpuFlavor] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Entries that were left out, one sentence each."""
    overridden: list[str] = field(default_factory=list)
    """Entries that changed what a name meant before, one sentence each."""
    _before: int = 0
    """How many of the places were there before these documents."""

    @classmethod
    def onto(cls, known: Catalogue) -> "Reading":
        """A reading that adds to a catalogue."""
        return cls(
            continent_by_country=dict(known.continent_by_country),
            country_names=dict(known.country_names),
            places=list(known.places),
            zone_patterns=dict(known.zone_patterns),
            devices=dict(known.devices),
            cpus=dict(known.cpus),
            gpus=dict(known.gpus),
            aliases=dict(known.flavor_aliases),
            _before=len(known.places),
        )

    def catalogue(self) -> Catalogue:
        """What was read."""
        return Catalogue(
            continent_by_country=self.continent_by_country,
            country_names=self.country_names,
            places=tuple(self.places),
            zone_patterns=self.zone_patterns,
            devices=self.devices,
            cpus=self.cpus,
            gpus=self.gpus,
            flavor_aliases=self.aliases,
        )

    def add_countries(self, data: Mapping[str, Any]) -> None:
        """Reads `countries.yaml`, which is built in only."""
        for continent, block in data["continents"].items():
            for line in block.splitlines():
                code, _, name = line.partition(" ")
                self.continent_by_country[code] = continent
                self.country_names[code] = name

    # Regions.

    def add_regions(self, data: object, *, source: str = REGIONS) -> None:
        """Reads a document of regions and zones."""
        for key, _ in self._entries(data, source, only=("clouds",)):
            for cloud, rows in self._entries(_mapping(data)[key], f"{source}: {key}"):
                self._add_cloud(str(cloud), rows, f"{source}: {cloud}")

    def _add_cloud(self, cloud: str, rows: object, where: str) -> None:
        known = ("source", "zonePattern", "regions", "zones")
        fields = dict(self._entries(rows, where, only=known))
        pattern = fields.get("zonePattern")
        if pattern is not None:
            try:
                re.compile(str(pattern))
            except re.error as error:
                self.problems.append(f"{where}: zonePattern is no regular expression: {error}")
            else:
                self.zone_patterns[cloud] = str(pattern)
        for line in self._lines(fields.get("regions"), f"{where}: regions"):
            self._try(self._add_region, cloud, line, where=f"{where}: regions: {line!r}")
        for line in self._lines(fields.get("zones"), f"{where}: zones"):
            self._try(self._add_zone, cloud, line, where=f"{where}: zones: {line!r}")

    def _add_region(self, cloud: str, line: str) -> None:
        words = line.split(None, 2)
        if len(words) < 2:
            raise BadEntryError("a region is written NAME COUNTRY PLACE")
        self._add_place(cloud, words[0], words[1], place=" ".join(words[2:]), region=None)

    def _add_zone(self, cloud: str, line: str) -> None:
        words = line.split(None, 3)
        if len(words) < 3:
            raise BadEntryError("a zone is written NAME REGION COUNTRY PLACE")
        region = words[1].lower()
        if not any(place.name == region for place in self.places if place.region is None):
            raise BadEntryError(f"region {words[1]} is not in the catalogue: list it first")
        self._add_place(cloud, words[0], words[2], place=" ".join(words[3:]), region=region)

    def _add_place(
        self, cloud: str, names: str, country: str, *, place: str, region: str | None
    ) -> None:
        spelled = tuple(names.split(","))
        for name in spelled:
            if not _NAME.fullmatch(name):
                raise BadEntryError(f"{name!r} cannot be the value of a node's label")
        code = country.lower()
        if code not in self.continent_by_country:
            hint = " (the United Kingdom is gb)" if code == "uk" else ""
            raise BadEntryError(f"{country!r} is not an ISO 3166-1 alpha-2 country code{hint}")
        new = Place(cloud, spelled[0].lower(), code, place, spelled, region)
        before = [each for each in self.places[: self._before] if each.name == new.name]
        beside = [each for each in self.places[self._before :] if each.name == new.name]
        if self._before and any(each.country != code for each in beside):
            raise BadEntryError(f"it is listed before, in {beside[0].country}")
        if any(each.country != code for each in before):
            said = " and ".join(sorted({f"{each.country} ({each.cloud})" for each in before}))
            self.overridden.append(
                f"{new.name} counts as in {code} in this cluster; the built-in catalogue has it "
                f"in {said}"
            )
            kept = [each for each in self.places if each not in before]
            self._before -= len(before)
            self.places = kept
        self.places.append(new)

    # Flavors.

    def add_flavors(self, data: object, *, source: str = FLAVORS) -> None:
        """Reads a document of flavors."""
        fields = dict(self._entries(data, source, only=("devices", "cpu", "gpu")))
        for kind, add in (
            ("devices", self._add_device),
            ("cpu", self._add_cpu),
            ("gpu", self._add_gpu),
        ):
            for name, row in self._entries(fields.get(kind), f"{source}: {kind}"):
                self._try(add, str(name).lower(), row, where=f"{source}: {kind}: {name}")

    def _add_device(self, name: str, row: object) -> None:
        fields = _fields(row, ("resource", "suffixes"))
        resource = str(fields.get("resource", ""))
        if not _LABEL.fullmatch(resource) or "/" not in resource:
            raise BadEntryError("resource must be a device resource such as nvidia.com/gpu")
        if name in self.devices and self.devices[name].resource != resource:
            raise BadEntryError(f"it is {self.devices[name].resource} already: choose another name")
        suffixes = {
            str(label): _texts(values) for label, values in _mapping(fields.get("suffixes")).items()
        }
        self.devices[name] = Device(resource, suffixes)

    def _add_cpu(self, name: str, row: object) -> None:
        fields = _fields(row, ("arch", "aliases"))
        known = self.cpus.get(name)
        architectures = (*(known.architectures if known else ()), *_texts(fields.get("arch")))
        if not architectures:
            raise BadEntryError("arch must list values of kubernetes.io/arch")
        aliases = self._aliases("cpu", name, fields)
        self.cpus[name] = CpuFlavor(name, tuple(dict.fromkeys(architectures)))
        self.aliases.update(aliases)

    def _add_gpu(self, name: str, row: object) -> None:
        if not _NAME.fullmatch(name):
            raise BadEntryError("the name cannot be the value of a node's label")
        fields = _fields(row, ("device", "labels", "aliases", "variantOf", "memory"))
        known = self.gpus.get(name)
        device = self._device(fields.get("device"), known)
        parent = fields.get("variantOf", known.variant_of if known else None)
        above = None if parent is None else self.gpus.get(str(parent).lower())
        if parent is not None and (above is None or above.resource != device.resource):
            raise BadEntryError(f"variantOf names {parent}, which is no flavor of that device")
        if above is not None and above.variant_of is not None:
            raise BadEntryError(f"variantOf names {parent}, which is a variant itself")
        labels = {label: list(values) for label, values in (known.labels if known else {}).items()}
        for label, values in _mapping(fields.get("labels")).items():
            if not _LABEL.fullmatch(str(label)):
                raise BadEntryError(f"{label!r} is no label")
            for value in _texts(values):
                for spelled in (value, *(value + s for s in device.suffixes.get(str(label), ()))):
                    self._claim(name, str(label), spelled)
                    labels.setdefault(str(label), []).append(spelled)
        aliases = self._aliases("gpu", name, fields)
        self.gpus[name] = GpuFlavor(
            name,
            {label: tuple(dict.fromkeys(values)) for label, values in labels.items()},
            device.resource,
            above.name if above is not None else None,
            _memory(fields["memory"]) if "memory" in fields else known.memory if known else (),
        )
        self.aliases.update(aliases)

    def _device(self, name: object, known: GpuFlavor | None) -> Device:
        if name is None and known is not None:
            return next(d for d in self.devices.values() if d.resource == known.resource)
        device = self.devices.get(str(name).lower())
        if device is None:
            raise BadEntryError(f"device must be one of {', '.join(sorted(self.devices))}")
        if known is not None and known.resource != device.resource:
            raise BadEntryError(f"it is a {known.resource} already: choose another name")
        return device

    def _claim(self, name: str, label: str, value: str) -> None:
        """Sees that a label's value means one flavor only."""
        if not _NAME.fullmatch(value):
            raise BadEntryError(f"{value!r} cannot be the value of a node's label")
        for other in self.gpus.values():
            if other.name != name and value in other.labels.get(label, ()):
                raise BadEntryError(f"{label}={value} means {other.name} already")

    def _aliases(self, kind: str, name: str, fields: Mapping[str, Any]) -> dict[Any, str]:
        found = {}
        names: Iterable[str] = self.cpus if kind == "cpu" else self.gpus
        for alias in _texts(fields.get("aliases")):
            key = (kind, alias.lower())
            if self.aliases.get(key, name) != name or (key[1] != name and key[1] in names):
                raise BadEntryError(f"alias {alias} means another {kind} flavor already")
            found[key] = name
        return found

    # Entries.

    def _try(self, add: Any, *entry: object, where: str) -> None:
        try:
            add(*entry)
        except BadEntryError as error:
            self.problems.append(f"{where}: {error}")

    def _entries(
        self, data: object, where: str, *, only: Iterable[str] = ()
    ) -> Iterator[tuple[str, Any]]:
        """The entries of a mapping; tells if it is none, and of names that mean nothing here."""
        if data is None:
            return
        if not isinstance(data, Mapping):
            self.problems.append(f"{where}: must be a mapping, not {type(data).__name__}")
            return
        for name, value in data.items():
            if only and name not in only:
                self.problems.append(f"{where}: {name}: is not known: use {', '.join(only)}")
            else:
                yield str(name), value

    def _lines(self, block: object, where: str) -> list[str]:
        if block is None:
            return []
        if not isinstance(block, str):
            self.problems.append(f"{where}: must be text with one entry a line (`{where[-7:]}: |`)")
            return []
        return [line.strip() for line in block.splitlines() if line.strip()]


_MEMORY = re.compile(r"([1-9][0-9]{0,5})(Mi|Gi)")


def _memory(value: object) -> tuple[int, ...]:
    """Bytes, of one quantity or of a list of them."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        match = _MEMORY.fullmatch(str(each))
        if match is None:
            raise BadEntryError("memory must be a quantity such as 24Gi, or a list of them")
        found.append(int(match[1]) * (2**30 if match[2] == "Gi" else 2**20))
    if not found:
        raise BadEntryError("memory must not be an empty list")
    return tuple(found)


def _fields(row: object, only: tuple[str, ...]) -> Mapping[str, Any]:
    fields = _mapping(row)
    unknown = [str(name) for name in fields if name not in only]
    if unknown:
        raise BadEntryError(f"{', '.join(unknown)}: is not known: use {', '.join(only)}")
    return fields


def _mapping(data: object) -> Mapping[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise BadEntryError(f"must be a mapping, not {type(data).__name__}")
    return data


def _texts(values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(isinstance(v, str | int) for v in values):
        raise BadEntryError("must be a list of texts")
    return tuple(str(value) for value in values)


@cache
def built_in() -> Catalogue:
    """The built-in catalogue, read from the packaged data once.

    Raises:
        ValueError: its data is wrong; the tests see to it that it is not.
    """
    reading = Reading()
    reading.add_countries(_document("countries.yaml"))
    reading.add_regions(_document(REGIONS))
    reading.add_flavors(_document(FLAVORS))
    if reading.problems:
        raise ValueError("; ".join(reading.problems))
    return reading.catalogue()


def parse_yaml(text: str) -> Any:
    """The decoded YAML.

    Raises:
        BadEntryError: it is none; says where.
    """
    # Imported here: most of what imports this module never reads a catalogue.
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        raise BadEntryError(f"is not YAML{line}: {getattr(error, 'problem', error)}") from error


@cache
def _document(name: str) -> Any:
    path = files("beamlit_operator.policy").joinpath("data", name)
    return parse_yaml(path.read_text(encoding="utf-8"))
