"""The names by which the agent and its Envoy speak of the same things."""

from __future__ import annotations

from typing import NamedTuple, NewType

Workspace = NewType("Workspace", str)
RevisionName = NewType("RevisionName", str)


_PODS = "pods"


class DeploymentKey(NamedTuple):
    """A ModelDeployment."""

    workspace: Workspace
    name: str

    def __str__(self) -> str:
        return f"{self.workspace}/{self.name}"


class Endpoint(NamedTuple):
    """What callers know a ModelDeployment by, in its workspace."""

    model: str
    environment: str


class RevisionKey(NamedTuple):
    """One revision of a ModelDeployment: what one Envoy cluster stands for."""

    workspace: Workspace
    deployment: str
    revision: RevisionName

    @property
    def deployment_key(self) -> DeploymentKey:
        return DeploymentKey(self.workspace, self.deployment)

    @property
    def cluster(self) -> str:
        """The name of its Envoy cluster. Kubernetes names have no slash, so it can be read back."""
        return f"{self.workspace}/{self.deployment}/{self.revision}"

    @property
    def fields(self) -> dict[str, object]:
        """What log lines about it carry."""
        about = {"kind": "ModelDeployment", "workspace": self.workspace, "object": self.deployment}
        return {**about, "revision": self.revision}

    @property
    def pods_cluster(self) -> str:
        """The name of the cluster of its pods alone, where it has one."""
        return f"{self.cluster}/{_PODS}"

    @classmethod
    def of_cluster(cls, name: str) -> RevisionKey | None:
        """The revision a cluster name stands for, or None for clusters of another kind."""
        parts = name.split("/")
        if len(parts) == 4 and parts[3] == _PODS:
            parts.pop()
        if len(parts) != 3:
            return None
        return cls(Workspace(parts[0]), parts[1], RevisionName(parts[2]))


AGENT_CLUSTER = "beamlit_agent"
"""The static cluster by which Envoy reaches the agent."""

AGENT_PIPE = "beamlit_agent_pipe"
"""Cluster and internal listener through which the agent is asked about held requests."""

POD_CLUSTER = "beamlit_pods"
"""The one ORIGINAL_DST cluster through which woken requests reach their pod."""

POD_CLUSTER_H2C = "beamlit_pods_h2c"
"""The same, for servers that speak HTTP/2."""

COLD_CLUSTER = "beamlit_cold"
COLD_CLUSTER_H2C = "beamlit_cold_h2c"
"""The cold listener as a cluster of its own, for revisions whose pods have a limit."""

WAY_HEADER = "x-beamlit-way"
"""Set by the agent's answer: the cluster by which a woken request reaches its pod. Removed by both
listeners."""

MAIN_LISTENER = "main"
TLS_LISTENER = "main_tls"
"""The same as the main listener, with TLS."""

COLD_LISTENER = "cold"
"""An internal listener: reachable from inside this Envoy only, never from a network."""

REVIEW_LISTENER = "review"
"""An internal listener too: tokens are checked there before the agent hears of them."""

REVIEW_CLUSTER = "beamlit_review"
REVIEW_AGENT = "beamlit_review_agent"
"""The static clusters by which the gate reaches that listener, and that listener the agent."""

ROUTES = "routes"
"""The route table of the main listener."""

REVISION_HEADER = "x-beamlit-revision"
"""From callers: the revision they ask for. On answers, while a deployment has several: the one that
answered."""

CLUSTER_HEADER = "x-beamlit-cluster"
"""Set by the main listener on every request, replacing what the caller sent: the cluster it was
routed to, by which the cold listener knows what to wake."""

RETRY_HEADER = "x-beamlit-retry"
"""On an answer of the cold listener: the request did not reach a model server, send it again."""

METADATA = "beamlit"
"""The namespace of what we attach to clusters and requests, for the access log."""

HELD_HEADER = "x-beamlit-held-ms"
POD_HEADER = "x-beamlit-pod"
"""On an answer from the cold listener: how long the request was held, and where it went. Taken into
the access log and off the answer by the main listener."""

COLLECTOR_CLUSTER = "beamlit_collector"
"""The static cluster of the trace collector; empty without one."""

POD_LOCALITY = "pods"
COLD_LOCALITY = "cold"
"""Localities of the two priorities. Envoy reports load by locality, so requests at pods and
requests at the cold listener are counted apart."""
AUTHORIZATION_METADATA = "envoy.filters.http.ext_authz"
DESTINATION_KEY = "destination"
"""Where in a request's metadata the agent's answer names the pod a woken request goes to. Metadata
and not a header: no caller can set it, and no model server sees it."""
