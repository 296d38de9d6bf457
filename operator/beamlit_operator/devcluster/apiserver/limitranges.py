"""LimitRange: what containers get that say nothing, and what no container or pod may exceed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.amounts import Amount
from beamlit_operator.devcluster.apiserver.builtin_rules import quality_of_service
from beamlit_operator.devcluster.apiserver.errors import (
    forbidden,
)
from beamlit_operator.devcluster.apiserver.pod_resources import (
    Amounts,
    Kind,
    of_container,
    of_pod,
)
from beamlit_operator.devcluster.apiserver.rbac import aggregated
from beamlit_operator.devcluster.apiserver.store import Store, duplicate
from beamlit_operator.kube import Json

ANNOTATION: Final = "kubernetes.io/limit-ranger"


class LimitRanges:
    """The admission step for pods and claims."""

    def __init__(self, store: Store) -> None:
        self._ranges = store.collection("limitranges")

    def concerns(self, review: Review) -> bool:
        """New pods and claims where there is a LimitRange."""
        return (
            review.verb == "CREATE"
            and review.key.namespace in self._ranges.namespaces
            and review.served.resource in ("pods", "persistentvolumeclaims")
        )

    def _limits(self, review: Review, kind: str) -> Iterator[Json]:
        entries = self._ranges.namespaces.get(review.key.namespace, {})
        for name in sorted(entries):
            for limit in (entries[name].obj.get("spec") or {}).get("limits") or ():
                if limit.get("type") == kind:
                    yield limit

    async def mutate(self, review: Review) -> Json:
        """The pod with what its containers did not say."""
        assert review.new is not None
        limits = list(self._limits(review, "Container"))
        if review.served.resource != "pods" or not limits:
            return review.new
        item: Json = duplicate(review.new)
        said: list[str] = []
        for field, role in (("containers", "container"), ("initContainers", "init container")):
            for container in item["spec"].get(field) or ():
                said += _set_defaults(container, role, limits)
        if said:
            item["status"]["qosClass"] = quality_of_service(item["spec"])
            notes = item["metadata"].setdefault("annotations", {})
            notes[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)
        return item

    async def validate(self, review: Review) -> None:
        """Refuses with 403 what is too little, too much, or not said."""
        assert review.new is not None
        spec = review.new.get("spec") or {}
        found: list[str] = []
        if review.served.resource == "persistentvolumeclaims":
            for limit in self._limits(review, "PersistentVolumeClaim"):
                found += _problems(limit, of_container(spec, "requests"), {}, "requests only")
        else:
            for limit in self._limits(review, "Container"):
                for field in ("containers", "initContainers"):
                    for container in spec.get(field) or ():
                        found += _problems(
                            limit,
                            of_container(container, "requests"),
                            of_container(container, "limits"),
                        )
            for limit in self._limits(review, "Pod"):
                found += _problems(limit, of_pod(spec, "requests"), of_pod(spec, "limits"))
        if found:
            raise forbidden(
                review.served.group, review.served.plural, review.key.name, aggregated(found)
            )


def _set_defaults(container: Json, role: str, limits: list[Json]) -> Iterator[str]:
    pairs: tuple[tuple[Kind, str], ...] = (("requests", "defaultRequest"), ("limits", "default"))
    for kind, field in pairs:
        wanted: dict[str, str] = {}
        for limit in limits:
            for name, text in (limit.get(field) or {}).items():
                wanted.setdefault(name, text)
        given = (container.get("resources") or {}).get(kind) or {}
        added = sorted(name for name in wanted if name not in given)
        if added:
            resources = container.setdefault("resources", {})
            resources[kind] = {**given, **{name: wanted[name] for name in added}}
            yield f"{', '.join(added)} {kind[:-1]} for {role} {container['name']}"


def _problems(limit: Json, requests: Amounts, limits: Amounts, counted: str = "") -> Iterator[str]:
    """The sentences about one limit; ``counted`` when there are requests only, as for claims."""
    kind = limit["type"]
    for name, text in sorted((limit.get("min") or {}).items()):
        least = Amount.of(text)
        head = f"minimum {name} usage per {kind} is {least}"
        asked, capped = requests.get(name), limits.get(name)
        if asked is None:
            yield f"{head}.  No request is specified"
        elif asked.value < least.value:
            yield f"{head}, but request is {asked}"
        elif capped is not None and capped.value < least.value:
            yield f"{head}, but limit is {capped}"
    for name, text in sorted((limit.get("max") or {}).items()):
        greatest = Amount.of(text)
        head = f"maximum {name} usage per {kind} is {greatest}"
        asked, capped = requests.get(name), limits.get(name)
        if counted:
            if asked is not None and asked.value > greatest.value:
                yield f"{head}, but request is {asked}"
        elif capped is None:
            yield f"{head}.  No limit is specified"
        elif capped.value > greatest.value:
            yield f"{head}, but limit is {capped}"
        elif asked is not None and asked.value > greatest.value:
            yield f"{head}, but request is {asked}"
    for name, text in sorted((limit.get("maxLimitRequestRatio") or {}).items()):
        ratio = Amount.of(text)
        head = f"{name} max limit to request ratio per {kind} is {ratio}"
        asked, capped = requests.get(name), limits.get(name)
        if asked is None or not asked.value:
            yield f"{head}, but no request is specified or request is 0"
        elif capped is None or not capped.value:
            yield f"{head}, but no limit is specified or limit is 0"
        elif capped.value / asked.value > ratio.value:
            shown = math.floor(capped.value / asked.value * 10**6 + 0.5) / 10**6
            yield f"{head}, but provided ratio is {shown:f}"
