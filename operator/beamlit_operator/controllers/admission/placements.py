"""Where each deployment's pods may be placed, as text that CEL can compare.

A ValidatingAdmissionPolicy cannot compute a policy; it can compare what a pod asks for with what
the operator wrote down where nobody else writes. Of each deployment the operator keeps the last few
placements it made, and names those that are within its policies *now*:

| policies of the deployment     | placements made for it    | its entry                |
|--------------------------------|---------------------------|--------------------------|
| allow anything                 |                           | none: it is not governed |
| allow some                     | some within them          | the records of those     |
| allow some, or cannot be found | none, or none within them | `-`: no pod is right     |

A record is one line each: location terms, hardware terms (both by name, since few differ), and the
sets they were made for, so that a restarted operator can judge them again.

    team.iris:   p-1c...
    p-1c...:     l-a0...\\nh-9f...\\ncountry:us\\nanything
    l-a0...:     beamlit.com/location In us-east-1 ...\\n;beamlit.com/location DoesNotExist\\n...
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.policy import Catalogue, EffectivePolicy
from beamlit_operator.policy.nodes import ARCHITECTURE, ZONE
from beamlit_operator.workloads.placing import (
    FLAVORS_ANNOTATION,
    LOCATIONS_ANNOTATION,
    allows_no_more,
    policy_of,
)

KEPT = 4
"""Placements that are remembered of one deployment: those of revisions that still drain, too."""

NOTHING = "-"

LARGEST = 900_000
"""Characters of all entries; a ConfigMap takes 1 MiB. Room for about 8,000 deployments."""

_LOCATION = frozenset(
    (labels.NODE_LOCATION, labels.NODE_COUNTRY, labels.NODE_CONTINENT, labels.NODE_REGION, ZONE)
)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Placement:
    """What a template was made for, and the start of each of its node selector terms."""

    location: str
    hardware: str
    locations_allowed: str
    flavors_allowed: str

    @property
    def name(self) -> str:
        """The name of its record."""
        return _name("p", self.record)

    @property
    def record(self) -> str:
        """Its record."""
        parts = (_name("l", self.location), _name("h", self.hardware))
        return "\n".join((*parts, self.locations_allowed, self.flavors_allowed))

    def within(self, policy: EffectivePolicy, *, catalogue: Catalogue) -> bool:
        """Whether all it allows is allowed."""
        made_for = policy_of(
            {
                LOCATIONS_ANNOTATION: self.locations_allowed,
                FLAVORS_ANNOTATION: self.flavors_allowed,
            }
        )
        return made_for is not None and allows_no_more(made_for, policy, catalogue=catalogue)


def placement_of(deployment: Json, *, hardware: Container[str]) -> Placement:
    """The placement in a Deployment as the operator wants it.

    Args:
        deployment: the Deployment.
        hardware: the node labels by which hardware is chosen.
    """
    notes = deployment["metadata"].get("annotations") or {}
    locations: dict[str, None] = {}
    chosen: dict[str, None] = {}
    for term in _terms(deployment["spec"]["template"]["spec"]):
        expressions = term.get("matchExpressions") or []
        first = _leading(expressions, _LOCATION)
        second = _leading(expressions[len(first) :], hardware)
        locations["".join(map(line, first))] = None
        chosen["".join(map(line, second))] = None
    return Placement(
        location=";".join(locations),
        hardware=";".join(chosen),
        locations_allowed=notes.get(LOCATIONS_ANNOTATION, ""),
        flavors_allowed=notes.get(FLAVORS_ANNOTATION, ""),
    )


def hardware_labels(catalogue: Catalogue) -> frozenset[str]:
    """The node labels by which pods choose hardware."""
    gpus = (label for gpu in catalogue.gpus.values() for label in gpu.labels)
    return frozenset((ARCHITECTURE, labels.NODE_FLAVOR, *gpus))


def line(expression: Mapping[str, Any]) -> str:
    """A requirement as text; the policy's CEL writes pods' requirements in the same way."""
    values = expression.get("values") or ()
    return " ".join((expression["key"], expression["operator"], *values)) + "\n"


def _terms(pod: Mapping[str, Any]) -> list[Json]:
    node = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    return list((node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ())


def _leading(expressions: Sequence[Json], keys: Container[str]) -> list[Json]:
    found: list[Json] = []
    for each in expressions:
        if each["key"] not in keys:
            break
        found.append(each)
    return found


class Book:
    """The placements of all deployments. Knows nothing of the cluster; told of every plan."""

    def __init__(self, *, catalogue: Catalogue) -> None:
        self.use(catalogue)
        self._made: dict[ObjectKey, tuple[Placement, ...]] = {}
        self._entries: dict[ObjectKey, tuple[str, ...]] = {}

    def use(self, catalogue: Catalogue) -> None:
        """From now on judges by this catalogue; what was decided is to be decided anew."""
        self._catalogue = catalogue
        self._hardware = hardware_labels(catalogue)

    def load(self, data: Mapping[str, str]) -> None:
        """Takes up what an earlier operator wrote; what cannot be read is left out."""
        for name, value in data.items():
            workspace, dot, deployment = name.partition(".")
            if not dot:
                continue
            found = [_read(each, data) for each in value.split() if each != NOTHING]
            key = ObjectKey(workspace, deployment)
            self._made[key] = tuple(each for each in found if each is not None)
            self._entries[key] = tuple(each.name for each in self._made[key])

    def decided(self, key: ObjectKey, policy: EffectivePolicy, wanted: Json | None) -> bool:
        """A deployment was decided on; whether its entry is another now.

        Args:
            key: the ModelDeployment.
            policy: what it is held to.
            wanted: its current revision's Deployment; None if there is none to be.
        """
        made = self._made.get(key, ())
        if wanted is not None:
            latest = placement_of(wanted, hardware=self._hardware)
            made = (latest, *(each for each in made if each != latest))[:KEPT]
        made = tuple(each for each in made if each.within(policy, catalogue=self._catalogue))
        self._made[key] = made
        free = policy.resolved and policy.location.allowed is None
        before = self._entries.get(key)
        if free and policy.flavor.allowed is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = tuple(each.name for each in made)
        return self._entries.get(key) != before

    def forget(self, key: ObjectKey) -> bool:
        """A deployment is gone; whether there was an entry."""
        self._made.pop(key, None)
        return self._entries.pop(key, None) is not None

    @property
    def governed(self) -> list[ObjectKey]:
        """Every deployment with an entry."""
        return [*self._entries]

    def data(self) -> dict[str, str]:
        """What to write down, whole."""
        found: dict[str, str] = {}
        for key, names in sorted(self._entries.items()):
            found[f"{key.namespace}.{key.name}"] = " ".join(names) or NOTHING
            for each in self._made[key]:
                found[each.name] = each.record
                found[_name("l", each.location)] = each.location
                found[_name("h", each.hardware)] = each.hardware
        return found


def _read(name: str, data: Mapping[str, str]) -> Placement | None:
    parts = data.get(name, "").split("\n")
    if len(parts) != 4 or parts[0] not in data or parts[1] not in data:
        return None
    return Placement(data[parts[0]], data[parts[1]], parts[2], parts[3])


def _name(kind: str, text: str) -> str:
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
