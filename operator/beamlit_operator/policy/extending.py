"""A cluster's own catalogue: a ConfigMap whose entries are added to the built-in one.

    data:
      regions.yaml: |
        clouds: {onprem: {regions: "berlin-1 de Berlin"}}
      flavors.yaml: |
        gpu: {rtx4090: {device: nvidia, labels: {nvidia.com/gpu.product: [RTX-4090]}}}

`reading` says what the documents hold and what becomes of each entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.reading import (
    FLAVORS,
    REGIONS,
    BadEntryError,
    Reading,
    built_in,
    parse_yaml,
)

CONFIG_MAP = "beamlit-catalogue"
"""The ConfigMap's usual name, in the operator's namespace."""


@dataclass(frozen=True, slots=True)
class Extension:
    """The catalogue that results, and what its author should know."""

    catalogue: Catalogue
    problems: tuple[str, ...] = ()
    """Entries that were left out, one sentence each."""
    overridden: tuple[str, ...] = ()
    """Built-in entries that mean something else now, one sentence each."""


def extended(texts: Mapping[str, str], *, base: Catalogue | None = None) -> Extension:
    """The catalogue with the entries of a ConfigMap's `data`; never fails.

    Args:
        texts: the documents by key.
        base: what they are added to; the built-in catalogue by default.
    """
    known = base or built_in()
    reading = Reading.onto(known)
    for key in sorted(texts):
        if key not in (REGIONS, FLAVORS):
            reading.problems.append(f"{key}: is not known: use {REGIONS} or {FLAVORS}")
    for key, add in ((REGIONS, reading.add_regions), (FLAVORS, reading.add_flavors)):
        if key not in texts:
            continue
        try:
            add(parse_yaml(texts[key]))
        except BadEntryError as error:
            reading.problems.append(f"{key}: {error}")
    return Extension(
        reading.catalogue() if texts else known,
        tuple(reading.problems),
        tuple(reading.overridden),
    )
