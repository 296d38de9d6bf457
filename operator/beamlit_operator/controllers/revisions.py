"""The revisions of a ModelDeployment as they are in the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from beamlit_operator.api import labels
from beamlit_operator.api.runtime import H2C, AppProtocol
from beamlit_operator.controllers.snapshot import Snapshot
from beamlit_operator.kube import Json

VERSION = "beamlit.com/version"
"""Annotation on a revision's Deployment: the origin's whole revision, too long for a label."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as it is in the cluster. ``traffic`` is what the status says, in percent."""

    name: str
    version: str
    replicas: int
    ready: int
    traffic: int = 0
    app_protocol: AppProtocol | None = None


def replicas_of(workload: Json) -> int:
    """The replicas a Deployment is set to."""
    wanted = (workload.get("spec") or {}).get("replicas")
    return 1 if wanted is None else int(wanted)


def revisions_of(snapshot: Snapshot) -> list[Revision]:
    """The revisions that exist, newest first, with the traffic that the status says."""
    told = {r.name: r.traffic for r in snapshot.deployment.status.revisions}
    found = []
    for workload in snapshot.workloads:
        metadata = workload["metadata"]
        if metadata.get("deletionTimestamp"):
            continue
        name = metadata["name"]
        found.append(
            Revision(
                name=name,
                version=(metadata.get("annotations") or {}).get(VERSION, ""),
                replicas=replicas_of(workload),
                ready=int((workload.get("status") or {}).get("readyReplicas") or 0),
                traffic=told.get(name, 0),
                app_protocol=_protocol(metadata),
            )
        )
    return found


def _protocol(metadata: Json) -> AppProtocol | None:
    said = (metadata.get("annotations") or {}).get(labels.APP_PROTOCOL)
    return H2C if said == H2C else None
