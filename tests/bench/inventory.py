"""The deployments that the gateway's benchmarks configure: who they are, and their objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from beamlit_operator.api import labels
from beamlit_operator.kube import Json

PER_WORKSPACE = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """One deployment, with one revision."""

    workspace: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.model}-production"

    @property
    def revision(self) -> str:
        return f"{self.name}-0a1b2c3d"

    @property
    def path(self) -> str:
        return f"/{self.workspace}/models/{self.model}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """``count`` deployments, the first ``awake`` of them with a ready pod."""

    count: int
    awake: int

    def __getitem__(self, number: int) -> Entry:
        return Entry(f"team-{number // PER_WORKSPACE}", f"model-{number % PER_WORKSPACE}")

    def workspaces(self) -> Iterator[str]:
        # Two more, for those that a benchmark adds.
        return (f"team-{n}" for n in range(self.count // PER_WORKSPACE + 3))


def model_deployment(entry: Entry) -> Json:
    return {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": entry.name, "namespace": entry.workspace},
        "spec": {"model": entry.model, "environment": "production"},
    }


def status(entry: Entry) -> Json:
    """The status that the operator writes of a deployment that can be woken."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Idle",
        "message": "no replica runs; the first request starts one",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    return {
        "observedGeneration": 1,
        "conditions": [ready],
        "phase": "Idle",
        "revisions": [
            {
                "name": entry.revision,
                "version": "3f1c9a52",
                "replicas": 0,
                "readyReplicas": 0,
                "traffic": 100,
            }
        ],
    }


def marks(entry: Entry) -> dict[str, str]:
    return {labels.MODEL_DEPLOYMENT: entry.name, labels.REVISION: entry.revision}


def deployment(entry: Entry, *, replicas: int) -> Json:
    container = {"name": "model", "image": "example.com/model-server:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": entry.revision,
            "namespace": entry.workspace,
            "labels": marks(entry),
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": marks(entry)},
            "template": {
                "metadata": {"labels": marks(entry)},
                "spec": {"containers": [container]},
            },
        },
    }


def slice_name(entry: Entry) -> str:
    return f"{entry.revision}-x7k2p"


def endpoints(entry: Entry, pods: Sequence[tuple[str, int]]) -> Json:
    """The EndpointSlice of the revision: its ready pods."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(entry),
            "namespace": entry.workspace,
            "labels": {**marks(entry), "kubernetes.io/service-name": entry.revision},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": pods[0][1] if pods else 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [host], "conditions": {"ready": True, "serving": True}}
            for host, _ in pods
        ],
    }
