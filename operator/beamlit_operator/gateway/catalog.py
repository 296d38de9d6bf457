"""What the gateway knows of the cluster: deployments, and the ready pods of their revisions.

Reads objects as they come from the API and keeps of them only what routing and waking need. What
cannot be routed (a malformed name, an object being deleted) is left out, never an error: the
operator is the one who tells people.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.api.reasons import Reason
from beamlit_operator.api.runtime import H2C
from beamlit_operator.gateway.balancing import Balancing, parse_balancing
from beamlit_operator.gateway.names import (
    DeploymentKey,
    Endpoint,
    RevisionKey,
    RevisionName,
    Workspace,
)
from beamlit_operator.gateway.splitting import Sticky, parse_sticky

Json = dict[str, Any]

SERVICE_NAME = "kubernetes.io/service-name"
PORT_NAME = "http"
DEFAULT_ENVIRONMENT = "production"

# RFC 1123 labels and subdomains, as Kubernetes limits names. A name that is neither could break out
# of a path prefix or make Envoy refuse the whole route table.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Pod:
    """A pod that is ready to answer, by address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision that is listed: its share of the traffic in percent, which may be nothing, the
    replicas wanted of it, whether its servers speak HTTP/2, and whether a rollout moves callers
    away from it."""

    key: RevisionKey
    traffic: int
    replicas: int
    h2c: bool = False
    stable: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a deployment is not Ready, from its condition. ``since`` tells two failures apart."""

    reason: str
    message: str
    since: str

    @property
    def forbids_start(self) -> bool:
        """Whether nothing may be started: what the deployment is held to is not known, or forbids
        what it asks for. Fails closed."""
        return self.reason in (
            Reason.POLICY_NOT_FOUND,
            Reason.ENVIRONMENT_NOT_FOUND,
            Reason.FLAVOR_NOT_ALLOWED,
            Reason.PLACEMENT_OUTDATED,
        )

    @property
    def ends_start(self) -> bool:
        """Whether waiting for the start is pointless: it failed, or there is no place to run."""
        return self.forbids_start or self.reason in (Reason.START_FAILED, Reason.NO_PLACEMENT)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A ModelDeployment as far as the gateway cares."""

    key: DeploymentKey
    model: str
    environment: str
    enabled: bool
    created: str
    generation: int
    revisions: tuple[Revision, ...]
    problem: Problem | None
    wake_replicas: int
    balancing: Balancing
    sticky: Sticky | None = None
    public: bool = False
    guarded: bool = False
    """Whether callers are authenticated, so that its routes have to say whose they are."""
    changing_sides: bool = False
    """Whether a rollout gives the only place of one revision to another. The operator starts the
    other one, once the place is free."""

    @property
    def endpoint(self) -> Endpoint:
        """What callers know it by."""
        return Endpoint(self.model, self.environment)

    @property
    def duplicate(self) -> bool:
        """An older deployment has this one's endpoint."""
        return self.problem is not None and self.problem.reason == Reason.DUPLICATE

    def revision(self, key: RevisionKey) -> Revision | None:
        """Its revision of that name, if it is listed."""
        return next((r for r in self.revisions if r.key == key), None)

    @property
    def served(self) -> bool:
        """Whether any of its revisions gets traffic."""
        return any(revision.traffic for revision in self.revisions)

    @property
    def serving(self) -> Revision:
        """The revision that gets most."""
        return max(self.revisions, key=lambda revision: revision.traffic)


def parse_deployment(obj: Json) -> Deployment | None:
    """Reads a ModelDeployment; None when it cannot be routed or is being deleted."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    model = spec.get("model") or ""
    environment = spec.get("environment") or DEFAULT_ENVIRONMENT
    if metadata.get("deletionTimestamp") or not (
        _NAME.fullmatch(model) and _NAME.fullmatch(environment)
    ):
        return None
    key = DeploymentKey(Workspace(metadata["namespace"]), metadata["name"])
    return Deployment(
        key=key,
        model=model,
        environment=environment,
        enabled=spec.get("enabled", True) is not False,
        created=metadata.get("creationTimestamp") or "",
        generation=metadata.get("generation") or 0,
        revisions=tuple(
            Revision(
                RevisionKey(key.workspace, key.name, RevisionName(row["name"])),
                traffic=int(row.get("traffic") or 0),
                replicas=int(row.get("replicas") or 0),
                h2c=row.get("appProtocol") == H2C,
                stable=row.get("role") == "stable",
            )
            for row in status.get("revisions") or ()
        ),
        problem=_problem(status),
        wake_replicas=max(1, int((spec.get("serverlessConfig") or {}).get("scaleUpMinimum") or 1)),
        balancing=parse_balancing(spec.get("endpoint")),
        sticky=parse_sticky(spec.get("rollout")),
        public=(spec.get("endpoint") or {}).get("public") is True,
        changing_sides=_changing_sides(status),
    )


def _changing_sides(status: Json) -> bool:
    rollout = status.get("rollout") or {}
    return rollout.get("phase") == "Progressing" and rollout.get("weight") == 100


def _problem(status: Json) -> Problem | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "False":
            return Problem(
                str(condition.get("reason") or "NotReady"),
                str(condition.get("message") or ""),
                str(condition.get("lastTransitionTime") or ""),
            )
    return None


def parse_slice(obj: Json) -> tuple[RevisionKey, tuple[Pod, ...]] | None:
    """Reads an EndpointSlice: whose it is and its ready pods; None when it is not of a revision.

    A pod that terminates is not ready in the sense of the API, so it leaves at once. A slice takes
    its labels from its Service, and anybody's Service may carry ours: only the slices of the
    Service that has the revision's name, which is the operator's, count.
    """
    metadata = obj["metadata"]
    marks = metadata.get("labels") or {}
    deployment = marks.get(labels.MODEL_DEPLOYMENT)
    revision = marks.get(labels.REVISION) or marks.get(SERVICE_NAME)
    port = _port(obj)
    if not deployment or not revision or obj.get("addressType") == "FQDN":
        return None
    if marks.get(SERVICE_NAME, revision) != revision:
        return None
    key = RevisionKey(Workspace(metadata["namespace"]), deployment, RevisionName(revision))
    if port is None or metadata.get("deletionTimestamp"):
        return key, ()
    return key, tuple(
        Pod(address, port)
        for endpoint in obj.get("endpoints") or ()
        # Absent means ready, by the API's own words.
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in (endpoint.get("addresses") or ())[:1]
        if _is_ip(address)
    )


def _port(obj: Json) -> int | None:
    ports = obj.get("ports") or ()
    named = [p for p in ports if p.get("name") == PORT_NAME] or list(ports)
    return int(named[0]["port"]) if named and named[0].get("port") else None


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


class Catalog:
    """The current state, by key. Every setter says whether anything the gateway cares for moved."""

    def __init__(self) -> None:
        self._deployments: dict[DeploymentKey, Deployment] = {}
        self._slices: dict[tuple[str, str], tuple[RevisionKey, tuple[Pod, ...]]] = {}
        self._awake: set[RevisionKey] = set()
        self._by_revision: dict[RevisionKey, dict[tuple[str, str], tuple[Pod, ...]]] = defaultdict(
            dict
        )

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._deployments.values())

    def get(self, key: DeploymentKey) -> Deployment | None:
        """The deployment, if it is known."""
        return self._deployments.get(key)

    def pods(self, revision: RevisionKey) -> tuple[Pod, ...]:
        """The ready pods of a revision, in a stable order."""
        slices = self._by_revision.get(revision)
        if not slices:
            return ()
        return tuple(sorted({pod for pods in slices.values() for pod in pods}))

    def awake(self) -> Set[RevisionKey]:
        """The revisions with a ready pod."""
        return self._awake

    def put_deployment(self, namespace: str, name: str, obj: Json | None) -> DeploymentKey | None:
        """Takes a new state of a ModelDeployment; answers its key if something moved."""
        key = DeploymentKey(Workspace(namespace), name)
        old = self._deployments.get(key)
        new = parse_deployment(obj) if obj is not None else None
        if new == old:
            return None
        if new is None:
            del self._deployments[key]
        else:
            self._deployments[key] = new
        return key

    def put_slice(self, namespace: str, name: str, obj: Json | None) -> set[RevisionKey]:
        """Takes a new state of an EndpointSlice; answers the revisions whose pods moved."""
        identity = (namespace, name)
        old = self._slices.pop(identity, None)
        new = parse_slice(obj) if obj is not None else None
        if new is not None:
            self._slices[identity] = new
        if old == new:
            return set()
        if old is not None:
            rest = self._by_revision[old[0]]
            rest.pop(identity, None)
            if not rest:
                del self._by_revision[old[0]]
        if new is not None:
            self._by_revision[new[0]][identity] = new[1]
        moved = {side[0] for side in (old, new) if side is not None}
        for key in moved:
            if any(self._by_revision.get(key, {}).values()):
                self._awake.add(key)
            else:
                self._awake.discard(key)
        return moved
