"""ModelDeployment: one version of a Model in one Environment, with its own endpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.conditions import Condition
from beamlit_operator.api.endpoint import Endpoint
from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.api.offloading import ObjectRef, OffloadingConfig, ServiceRef
from beamlit_operator.api.policy import Flavor
from beamlit_operator.api.rollout import MAX_HISTORY, HistoryEntry, Role, Rollout, RolloutStatus
from beamlit_operator.api.runtime import AppProtocol, Runtime
from beamlit_operator.api.schema import (
    Duration,
    FreeForm,
    IntOrString,
    LabelName,
    ObjectName,
    list_map,
    list_set,
    preserved_conditions,
    rule,
    rules,
)

Phase = Literal["Pending", "Idle", "Active", "Deactivated", "Failed"]
StartPhase = Literal["Scheduling", "Pulling", "Fetching", "Loading"]


class AttachedPolicy(Part):
    """A Policy that the deployment attaches for itself."""

    name: ObjectName
    """The name of a Policy in the same namespace."""
    replaces: ObjectName | None = None
    """An optional policy of the environment that this one stands in for."""
    ref_type: Literal["localPolicy", "remotePolicy"] | None = None
    """Where the policy lives. Accepted for manifests of Beamlit; a Policy is always read from the
    namespace."""


class ServerlessConfig(Part):
    """How the deployment scales, in Knative's terms."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.maxNumReplicas == 0 || self.minNumReplicas <= self.maxNumReplicas",
                "minNumReplicas must not be above maxNumReplicas (0 means no limit)",
                fieldPath=".minNumReplicas",
            ),
            rule(
                "!has(self.metric) || self.metric != 'memory' || has(self.target)",
                "target, in MiB per replica, must be set with metric memory",
                fieldPath=".target",
            ),
        )
    )

    min_num_replicas: int = Field(default=0, ge=0, le=10000)
    """Replicas that always run; 0 scales to zero."""
    max_num_replicas: int = Field(default=10, ge=0, le=10000)
    """The most replicas; 0 means no limit."""
    metric: Literal["concurrency", "rps", "cpu", "memory"] | None = None
    """What is measured; `concurrency` when unset."""
    target: IntOrString | None = None
    """The value of the metric one replica should carry: requests in flight (100 when unset),
    requests per second (200), percent of the requested cpu (80), or MiB of memory, which has no
    default."""
    scale_up_minimum: int | None = Field(default=None, ge=1, le=10000)
    """How many replicas to start when scaling up from zero."""
    scale_down_delay: Duration | None = None
    """How long lower load must last before replicas are removed."""
    stable_window: Duration | None = None
    """The window over which load is averaged; 60s when unset."""
    last_pod_retention_period: Duration | None = None
    """How long the last replica stays at least."""


class ModelDeploymentSpec(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.model == oldSelf.model",
                "spec.model cannot be changed: delete this ModelDeployment and create another",
                fieldPath=".model",
            ),
            rule(
                "self.environment == oldSelf.environment",
                "spec.environment cannot be changed: delete this ModelDeployment and create "
                "another",
                fieldPath=".environment",
            ),
            rule(
                "!has(self.flavors) || self.flavors.all(f, f.type == self.flavors[0].type)",
                "spec.flavors may list several cpu types or several gpu types, never both",
                fieldPath=".flavors",
            ),
            rule(
                "!has(self.policies) || !has(self.withoutPolicies) || "
                "!self.policies.exists(p, p.name in self.withoutPolicies)",
                "a policy cannot stand in both spec.policies and spec.withoutPolicies",
                fieldPath=".withoutPolicies",
            ),
        )
    )

    model: LabelName
    """The Model, in the same namespace."""
    environment: LabelName = "production"
    """The Environment, in the same namespace."""
    enabled: bool = True
    """Whether the endpoint answers; when false nothing runs."""
    version: str | None = Field(default=None, min_length=1, max_length=255)
    """The revision of the origin to serve, instead of the Model's; of a bucket that keeps versions,
    also the time as of which it is read, such as `2026-01-31T12:00:00Z`."""
    runtime: Runtime | None = None
    """The runtime, instead of the Model's."""
    pod_template: FreeForm | None = None
    """A partial PodTemplateSpec, merged over what the runtime gives."""
    flavors: tuple[Flavor, ...] = Field(
        default=(), max_length=32, json_schema_extra=list_map("type", "name")
    )
    """The hardware to run on: any of these."""
    policies: tuple[AttachedPolicy, ...] = Field(
        default=(), max_length=32, json_schema_extra=list_map("name")
    )
    """Policies of the deployment's own."""
    without_policies: tuple[ObjectName, ...] = Field(
        default=(), max_length=32, json_schema_extra=list_set()
    )
    """Optional policies of the environment that do not apply to this deployment."""
    serverless_config: ServerlessConfig | None = None
    """How the deployment scales."""
    endpoint: Endpoint | None = None
    """Limits of the endpoint, and which replica a request goes to."""
    rollout: Rollout | None = None
    """How traffic moves to a new revision."""
    model_source_ref: ObjectRef | None = None
    """A workload the user already runs, instead of one made here."""
    service_ref: ServiceRef | None = None
    """The Service of that workload."""
    metric_service_ref: ServiceRef | None = None
    """The Service of that workload's metrics."""
    offloading_config: OffloadingConfig | None = None
    """When and where requests overflow to."""


class RevisionStatus(Part):
    """One revision of the deployment."""

    name: str = Field(max_length=63)
    """The name of its workload."""
    version: str = Field(max_length=255)
    """The revision of the origin it serves."""
    replicas: int = Field(default=0, ge=0)
    """Replicas wanted."""
    ready_replicas: int = Field(default=0, ge=0)
    """Replicas that answer."""
    traffic: int = Field(default=0, ge=0, le=100)
    """Percent of the requests it gets."""
    role: Role | None = None
    """`stable`, `canary`, or `retiring`: without traffic, and gone after `rollout.retention`."""
    retired_at: datetime | None = None
    """When it lost its traffic, while it is retiring."""
    app_protocol: AppProtocol | None = None
    """What its server speaks, where that is not `http`."""


PolicyEffect = Literal["enforced", "narrowed", "overridden", "replaced", "removed", "missing"]


class PolicyTrace(Part):
    """What became of one policy."""

    name: str = Field(max_length=253)
    """The Policy."""
    level: Literal["environment", "deployment"]
    """Who attached it."""
    mandatory: bool = False
    """Whether the environment makes it mandatory."""
    effect: PolicyEffect
    """What became of it."""
    because: str = Field(max_length=1024)
    """Why."""


class EffectiveAspect(Part):
    """What is allowed for one type of policy."""

    allowed: tuple[str, ...] | None = Field(default=None, max_length=1024)
    """The allowed values, such as `country:us` or `gpu:t4`; anything when unset."""
    policies: tuple[PolicyTrace, ...] = Field(default=(), max_length=128)
    """What became of each policy."""


class EffectivePolicyStatus(Part):
    """What the deployment is held to, and why."""

    location: EffectiveAspect | None = None
    """Where it may run."""
    flavor: EffectiveAspect | None = None
    """On what it may run."""


class StartProgress(Part):
    """How far a start is."""

    phase: StartPhase
    """`Scheduling`, `Pulling` (images), `Fetching` (the model) or `Loading` (the server)."""
    message: str = Field(max_length=1024)
    """The same for people."""
    fetched_bytes: int | None = Field(default=None, ge=0)
    """Bytes of the model's files that are there, while `Fetching`."""
    total_bytes: int | None = Field(default=None, ge=0)
    """Bytes of the model's files in all, while `Fetching`."""
    since: datetime
    """When the phase was first told."""


class ModelDeploymentStatus(Part):
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation the status was computed from."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=preserved_conditions())
    """`Ready`; `Reconciling`, `Stalled`, `PolicyOverridden`, `ScalingBlocked` while they
    hold."""
    phase: Phase | None = None
    """`Pending`, `Idle`, `Active`, `Deactivated` or `Failed`."""
    url: str | None = Field(default=None, max_length=2048)
    """The endpoint."""
    replicas: int | None = Field(default=None, ge=0)
    """Replicas of all revisions."""
    ready_replicas: int | None = Field(default=None, ge=0)
    """Those that answer."""
    selector: str | None = Field(default=None, max_length=512)
    """The label selector of the pods, for the scale subresource."""
    revisions: tuple[RevisionStatus, ...] = Field(
        default=(), max_length=32, json_schema_extra=list_map("name")
    )
    """The revisions that exist, newest first."""
    rollout: RolloutStatus | None = None
    """The rollout that is under way, or that ended badly and is not tried again."""
    history: tuple[HistoryEntry, ...] = Field(default=(), max_length=MAX_HISTORY)
    """What served, newest first."""
    used_orders: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=(), max_length=16
    )
    """Orders of annotations that do not count: they were for a rollout that is over, or came before
    the step they name. Remove the annotation and set it again to give the order."""
    effective_policy: EffectivePolicyStatus | None = None
    """What the deployment is held to, and why."""
    progress: StartProgress | None = None
    """How far a start is, while one is under way."""
    offloading: bool | None = None
    """Whether requests overflow to the remote backend now."""

    @property
    def serving(self) -> RevisionStatus | None:
        """The revision that gets most of the requests."""
        return max((r for r in self.revisions if r.traffic), key=lambda r: r.traffic, default=None)


class ModelDeployment(Part):
    """A ModelDeployment of a workspace."""

    api_version: Literal["beamlit.com/v1alpha1"] = "beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()
