"""Everything a decision about a ModelDeployment looks at, gathered at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.controllers.originbook import Entry, Failed, Found, Question
from beamlit_operator.controllers.progress import Progress
from beamlit_operator.kube import Json
from beamlit_operator.origins import OriginError
from beamlit_operator.rollout import Evidence
from beamlit_operator.workloads.cache import Cache
from beamlit_operator.workloads.native import Settings


@dataclass(frozen=True, slots=True)
class Rival:
    """Another deployment of the same model in the same environment."""

    name: str
    uid: str
    created: datetime | None
    deleting: bool
    serves: bool = False
    """Whether its status has revisions: the endpoint is its already."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One ModelDeployment and its surroundings. Objects in it are shared: never modify one."""

    deployment: ModelDeployment
    settings: Settings
    """What workloads are made with."""
    gateway_url: str
    """Where consumers reach the gateway."""
    rivals: tuple[Rival, ...] = ()
    model: Model | None = None
    environment: Environment | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """The Policies that the Environment or the deployment names, as far as they exist."""
    question: Question | OriginError | None = None
    """What the Model's origin means; an error when it cannot be right; None without one."""
    entry: Entry | None = None
    """What is known of the origin."""
    children: tuple[Json, ...] = ()
    """Its Deployments, Services and HorizontalPodAutoscalers."""
    pods: tuple[Json, ...] = ()
    unused_for: Mapping[str, float] = field(default_factory=dict)
    """For revisions without traffic: seconds since the traffic left them, as far as is known."""
    node_kinds: tuple[tuple[Mapping[str, str], int], ...] = ()
    """Every distinct set of node labels, and how many nodes carry it."""
    node_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels of the nodes its pods run on, by the node's name."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """How far each revision's start is, for those of which there is something to tell."""
    refused: str | None = ""
    """What a gateway refuses of its configuration; None while that is not known."""
    demand: int | None = None
    """Replicas that the autoscaler asks for, for both revisions of a rollout; None without."""
    evidence: Evidence = field(default_factory=Evidence)
    """What is known of the step of a rollout that is under way."""
    cache: Cache | None = None
    """The claim for files that are shared; None where the operator was told of none."""
    tell_again: float | None = None
    """Seconds after which there may be more to tell of a start."""

    @property
    def workspace(self) -> str:
        """The namespace."""
        return self.deployment.metadata.namespace

    @property
    def found(self) -> Found | None:
        """The resolved origin, if it is known."""
        answer = self.entry.answer if self.entry is not None else None
        return answer if isinstance(answer, Found) else None

    @property
    def failed(self) -> Failed | None:
        """Why the origin cannot be used, if so."""
        answer = self.entry.answer if self.entry is not None else None
        return answer if isinstance(answer, Failed) else None

    @property
    def workloads(self) -> tuple[Json, ...]:
        """Its apps/v1 Deployments, newest first."""
        found = [c for c in self.children if c["kind"] == "Deployment"]
        found.sort(key=lambda c: str(c["metadata"].get("creationTimestamp", "")), reverse=True)
        return tuple(found)
