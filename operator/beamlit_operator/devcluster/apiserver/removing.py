"""Deletion: what a DELETE does to an object now, and when an object is done.

finalizers  graceful  already deleting   result of DELETE
none        no        -                  gone
some        -         no                 marked with deletionTimestamp
-           yes       no                 marked, with the grace period
some        -         yes                unchanged, or a shorter grace period
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from beamlit_operator.devcluster.apiserver.errors import (
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_supported,
)
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Entry
from beamlit_operator.kube import Json

Propagation = Literal["Background", "Foreground", "Orphan"]

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
_PROTECTED: Final = frozenset(("default", "kube-system", "kube-public"))


@dataclass(frozen=True, slots=True)
class Deletion:
    """DeleteOptions."""

    propagation: Propagation | None = None
    uid: str = ""
    version: str = ""
    grace: int | None = None
    """Seconds; None is the object's own."""

    @staticmethod
    def parse(body: Any, query: Any) -> Deletion:
        """Reads DeleteOptions from a body or query parameters.

        Raises:
            ApiError: 400.
        """
        if not isinstance(body, dict):
            raise bad_request("DeleteOptions must be an object")
        conditions = body.get("preconditions") or {}
        policy = body.get("propagationPolicy") or query.get("propagationPolicy")
        if policy not in (None, "", "Background", "Foreground", "Orphan"):
            allowed = ["Foreground", "Background", "Orphan", "nil"]
            raise invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                [not_supported("propagationPolicy", policy, allowed)],
            )
        if not policy and (body.get("orphanDependents") or query.get("orphanDependents") == "true"):
            policy = "Orphan"
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        try:
            seconds = None if grace is None else int(grace)
        except (TypeError, ValueError) as error:
            raise bad_request("gracePeriodSeconds must be an integer") from error
        return Deletion(
            propagation=policy or None,
            uid=str(conditions.get("uid") or ""),
            version=str(conditions.get("resourceVersion") or ""),
            grace=seconds,
        )

    def check(self, served: Served, entry: Entry) -> None:
        """Refuses when a precondition does not hold, or the object is protected.

        Raises:
            ApiError: 409 or 403.
        """
        metadata = entry.obj["metadata"]
        if self.uid and self.uid != metadata["uid"]:
            raise conflict(
                served.group,
                served.plural,
                entry.key.name,
                f"Precondition failed: UID in precondition: {self.uid}, UID in object meta: "
                f"{metadata['uid']}",
            )
        if self.version and self.version != metadata["resourceVersion"]:
            raise conflict(
                served.group,
                served.plural,
                entry.key.name,
                f"Precondition failed: ResourceVersion in precondition: {self.version}, "
                f"ResourceVersion in object meta: {metadata['resourceVersion']}",
            )
        if served.resource == "namespaces" and entry.key.name in _PROTECTED:
            raise forbidden("", "namespaces", entry.key.name, "this namespace may not be deleted")


def deletion_step(served: Served, entry: Entry, deletion: Deletion) -> Json | None:
    """The object as a DELETE leaves it; None when it goes at once, itself when nothing changes."""
    old = entry.obj
    metadata = old["metadata"]
    finalizers = _finalizers(metadata, deletion.propagation)
    grace = _grace(served, old, deletion.grace)
    if metadata.get("deletionTimestamp"):
        known = metadata.get("deletionGracePeriodSeconds") or 0
        if grace >= known and finalizers == (metadata.get("finalizers") or []):
            return old
        return _marked(served, old, finalizers, min(grace, known))
    if not finalizers and not grace and not _lingers(served, old):
        return None
    return _marked(served, old, finalizers, grace)


def _lingers(served: Served, item: Json) -> bool:
    return served.resource == "namespaces" and bool((item.get("spec") or {}).get("finalizers"))


def _finalizers(metadata: Json, propagation: Propagation | None) -> list[str]:
    found = list(metadata.get("finalizers") or ())
    if propagation is None:
        return found
    found = [name for name in found if name not in (FOREGROUND, ORPHAN)]
    if propagation == "Foreground":
        found.append(FOREGROUND)
    elif propagation == "Orphan":
        found.append(ORPHAN)
    return found


def _grace(served: Served, item: Json, asked: int | None) -> int:
    """Seconds; only pods that a kubelet runs have any."""
    if served.resource != "pods":
        return 0
    phase = (item.get("status") or {}).get("phase")
    if not item["spec"].get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return max(asked, 0)
    own = item["metadata"].get("deletionGracePeriodSeconds")
    if own is not None:
        return int(own)
    return int(item["spec"].get("terminationGracePeriodSeconds", 30))


def _marked(served: Served, old: Json, finalizers: list[str], grace: int) -> Json:
    metadata = dict(old["metadata"])
    if not metadata.get("deletionTimestamp") or grace < metadata.get(
        "deletionGracePeriodSeconds", 0
    ):
        when = datetime.now(UTC) + timedelta(seconds=grace)
        metadata["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["deletionGracePeriodSeconds"] = grace
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if served.generation and not old["metadata"].get("deletionTimestamp"):
        metadata["generation"] = metadata.get("generation", 0) + 1
    new = {**old, "metadata": metadata}
    if served.resource == "namespaces":
        new["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    return new


def is_ready_to_go(served: Served, item: Json) -> bool:
    """Whether an object marked for deletion has nothing left to wait for."""
    metadata = item["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not _lingers(served, item)
    )
