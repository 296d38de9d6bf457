"""What the operator tells of itself and of the cluster around, read when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.observe import Surroundings
from beamlit_operator.kube import HttpClient, Json, ObjectKey

if TYPE_CHECKING:
    from beamlit_operator.controllers.operator import Operator


def surroundings(operator: Operator) -> Surroundings:
    """As of now."""
    webhook = operator.webhook
    ends = webhook.certificate_ends if webhook is not None else None
    client = operator.connection
    reflectors = operator.reflectors() if operator.listed else []
    silent: dict[str, float] = {}
    for each in reflectors:
        name = each.resource.plural
        silent[name] = max(silent.get(name, 0.0), each.silent)
    return Surroundings(
        silent=silent,
        not_ready=not_ready(operator.indexes) if operator.leads else {},
        unknown_fields=operator.definitions.differences(),
        certificate=ends.timestamp() if ends is not None else None,
        clock=client.clock_difference if isinstance(client, HttpClient) else None,
        runtime_problems=operator.runtimes.left_out(),
    )


def not_ready(indexes: Indexes) -> Counter[tuple[str, str]]:
    """Objects that are not Ready, by kind and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    for kind, held in _all(indexes):
        if held.unready and not held.deleting:
            counts[(str(kind), held.unready)] += 1
    return counts


def differs(old: Json | None, new: Json | None) -> bool:
    """Whether what a person asks for was created or changed: a webhook is asked about that."""
    if new is None or new["metadata"].get("deletionTimestamp"):
        return False
    return old is None or old["metadata"].get("generation") != new["metadata"].get("generation")


def fields_of(key: Key, indexes: Indexes) -> dict[str, object]:
    """What log lines about an object carry."""
    found: dict[str, object] = {"kind": str(key.kind), "workspace": key.workspace, "name": key.name}
    version = indexes.generation(key.kind, ObjectKey(key.workspace, key.name))
    return {**found, "generation": version} if version is not None else found


def _all(indexes: Indexes) -> Iterable[tuple[Kind, Held[Any]]]:
    for kind, objects in (
        (Kind.MODEL, indexes.models),
        (Kind.MODEL_DEPLOYMENT, indexes.deployments),
        (Kind.ENVIRONMENT, indexes.environments),
        (Kind.POLICY, indexes.policies),
    ):
        for held in objects.values():
            yield kind, held
