"""Does the cluster's definition of a kind have the fields that this version knows? Pure.

| the cluster's definition            | is     | what happens                                     |
|-------------------------------------|--------|--------------------------------------------------|
| has the same fields                 | equal  |                                                  |
| lacks fields                        | older  | the API server drops them from specs, and they   |
|                                     |        | are left out of statuses; everything else works  |
| has fields that are not known here  | newer  | they are read over: what they ask for is not done|
| lacks some, has others              | both   | both                                             |
| does not serve this version         | absent | nothing of the kind works                        |

Fields are compared and not versions, because definitions and operator are upgraded apart from each
other, and a definition says nothing of where it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.api.crd import KINDS, crd

MENTIONED = 5
"""Fields that a sentence names; it counts the others."""


@dataclass(frozen=True, slots=True)
class Differences:
    """How a cluster's definition differs from this version's."""

    kind: str
    served: bool = True
    lacking: tuple[str, ...] = ()
    """Fields that only this version knows, such as ``spec.rollout.steps[].weight``."""
    unknown: tuple[str, ...] = ()
    """Fields that only the cluster's definition has."""

    @property
    def equal(self) -> bool:
        return self.served and not self.lacking and not self.unknown

    def sentences(self) -> Iterator[str]:
        """What is so, and what to do."""
        definition = f"the cluster's definition of {self.kind}"
        if not self.served:
            yield (
                f"{definition} does not serve {labels.API_VERSION}: install the definitions of "
                f"this version (`kubectl apply --server-side -f crds/`, or `crds.enabled`)"
            )
            return
        if self.lacking:
            yield (
                f"{definition} is older than the operator: it lacks {_some(self.lacking)}, which "
                f"the API server drops; upgrade the definitions"
            )
        if self.unknown:
            yield (
                f"{definition} is newer than the operator: {_some(self.unknown)} is not acted on; "
                f"upgrade the operator"
            )


def known() -> dict[str, frozenset[str]]:
    """The fields that this version knows, by the name of the definition."""
    return {f"{kind.plural}.{labels.GROUP}": fields(crd(kind)) or frozenset() for kind in KINDS}


NAMES = {f"{kind.plural}.{labels.GROUP}": kind.name for kind in KINDS}
"""The kinds by the names of their definitions."""


def fields(definition: dict[str, Any]) -> frozenset[str] | None:
    """Every field of spec and status; None if this version is not served."""
    for version in (definition.get("spec") or {}).get("versions") or ():
        if version.get("name") == labels.VERSION and version.get("served"):
            schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            parts = schema.get("properties") or {}
            return frozenset(
                path for part in ("spec", "status") for path in _walk(parts.get(part) or {}, part)
            )
    return None


def compare(name: str, live: dict[str, Any] | None, wanted: frozenset[str]) -> Differences:
    """How the definition of that name differs; ``live`` is None when there is none."""
    kind = NAMES.get(name, name)
    found = fields(live) if live is not None else None
    if found is None:
        return Differences(kind, served=False)
    return Differences(kind, True, _outermost(wanted - found), _outermost(found - wanted))


def without(status: dict[str, Any], lacking: Iterable[str]) -> dict[str, Any]:
    """A status without the fields that a definition lacks: server-side apply refuses all of it for
    one that is not declared (a merge patch would drop it)."""
    for path in lacking:
        if path.startswith("status."):
            status = _cut(status, path.removeprefix("status.").split("."))
    return status


def _cut(node: Any, path: list[str]) -> Any:
    head, *rest = path
    name = head.rstrip("[]{}")
    if not isinstance(node, dict) or name not in node:
        return node
    if not rest:
        return {key: value for key, value in node.items() if key != name}
    child = node[name]
    if head.endswith("[]") and isinstance(child, list):
        child = [_cut(each, rest) for each in child]
    elif head.endswith("{}") and isinstance(child, dict):
        child = {key: _cut(value, rest) for key, value in child.items()}
    else:
        child = _cut(child, rest)
    return {**node, name: child}


def _walk(node: dict[str, Any], path: str) -> Iterator[str]:
    yield path
    for name, child in (node.get("properties") or {}).items():
        yield from _walk(child, f"{path}.{name}")
    for nested in ("items", "additionalProperties"):
        if isinstance(node.get(nested), dict):
            suffix = "[]" if nested == "items" else "{}"
            for inner in _walk(node[nested], f"{path}{suffix}"):
                if inner != f"{path}{suffix}":
                    yield inner


def _outermost(paths: frozenset[str]) -> tuple[str, ...]:
    """Without the fields below others that are there: one sentence for one cause."""

    def inside(path: str) -> bool:
        parent = path
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in paths or parent.rstrip("[]{}") in paths:
                return True
        return False

    return tuple(sorted(path for path in paths if not inside(path)))


def _some(paths: tuple[str, ...]) -> str:
    named = ", ".join(f"`{path}`" for path in paths[:MENTIONED])
    more = len(paths) - MENTIONED
    return f"{named} and {more} more" if more > 0 else named
