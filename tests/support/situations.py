"""Fluent builders of what the controllers decide on: a deployment and its surroundings.

    snapshot = Situation().policy("us", country="us").environment(us=True).found().snapshot()

Each method returns a changed copy; what is not said is as plain as can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy, labels
from beamlit_operator.controllers.credentials import SecretUse
from beamlit_operator.controllers.modeldeployment import decide
from beamlit_operator.controllers.originbook import Entry, Failed, Found, Question
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.controllers.snapshot import Rival, Snapshot
from beamlit_operator.kube import Json
from beamlit_operator.origins import OriginError, S3Ref
from beamlit_operator.workloads.native import Settings

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SETTINGS = Settings(image="registry.example/beamlit:1", gateway_service="gateway.example")
US_NODE = {"topology.kubernetes.io/region": "us-east-1", "kubernetes.io/arch": "amd64"}
EU_NODE = {"topology.kubernetes.io/region": "eu-west-1", "kubernetes.io/arch": "amd64"}
FOUND = Found("s3://models/iris", "sha256:aaa", ("model.ubj",), 10, ("mlserver", "files"))
QUESTION = Question("team", S3Ref("models", "iris"), SecretUse("s3"))


def metadata(name: str, **more: Any) -> Json:
    return {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": NOW.isoformat(),
        **more,
    }


@dataclass(frozen=True)
class Situation:
    """A ModelDeployment `iris` of Model `iris` in `production`, and what is around it."""

    spec: Json = field(default_factory=lambda: {"model": "iris"})
    status: Json = field(default_factory=dict)
    meta: Json = field(default_factory=lambda: metadata("iris"))
    has_model: bool = True
    attached: Mapping[str, bool] | None = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    question: Question | OriginError | None = QUESTION
    answer: Found | Failed | None = FOUND
    rivals: tuple[Rival, ...] = ()
    children: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()
    nodes: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"us": US_NODE, "eu": EU_NODE}
    )
    unused: Mapping[str, float] = field(default_factory=dict)

    def with_spec(self, **fields: Any) -> Situation:
        return replace(self, spec={**self.spec, **fields})

    def policy(self, name: str, **location: str) -> Situation:
        """A Policy that allows one location, such as ``country="us"``."""
        entries = [{"type": kind, "name": value} for kind, value in location.items()]
        body = {"metadata": metadata(name), "spec": {"type": "location", "locations": entries}}
        return replace(self, policies={**self.policies, name: Policy.model_validate(body)})

    def flavor_policy(self, name: str, **flavors: str) -> Situation:
        entries = [{"type": kind, "name": value} for kind, value in flavors.items()]
        body = {"metadata": metadata(name), "spec": {"type": "flavor", "flavors": entries}}
        return replace(self, policies={**self.policies, name: Policy.model_validate(body)})

    def environment(self, **mandatory: bool) -> Situation:
        """The Environment attaches these Policies; True is mandatory."""
        return replace(self, attached=mandatory)

    def without_environment(self) -> Situation:
        return replace(self, attached=None)

    def without_model(self) -> Situation:
        return replace(self, has_model=False, question=None, answer=None)

    def origin(self, answer: Found | Failed | None) -> Situation:
        return replace(self, answer=answer)

    def rival(self, name: str, *, older: bool, deleting: bool = False) -> Situation:
        created = NOW - timedelta(hours=1) if older else NOW + timedelta(hours=1)
        return replace(self, rivals=(*self.rivals, Rival(name, f"uid-{name}", created, deleting)))

    def twin(self, *, uid: str, serves: bool) -> Situation:
        """A rival that was created in the same second."""
        created = datetime.fromisoformat(metadata("iris")["creationTimestamp"])
        return replace(self, rivals=(*self.rivals, Rival("twin", uid, created, False, serves)))

    def applied(self, plan_objects: tuple[Json, ...], *, replicas: int = 0) -> Situation:
        """What a plan applied is in the cluster now."""
        made = []
        for each in plan_objects:
            copy = {**each, "metadata": {**each["metadata"], "uid": f"uid-{each['kind']}"}}
            if each["kind"] == "Deployment":
                copy["metadata"]["uid"] = f"uid-{each['metadata']['name']}"
                copy["metadata"]["creationTimestamp"] = NOW.isoformat()
                copy["spec"] = {**each["spec"], "replicas": replicas}
                copy["status"] = {}
            made.append(copy)
        return replace(self, children=(*self.children, *made))

    def with_status(self, status: Json | None) -> Situation:
        return replace(self, status=status or {})

    def scaled(self, revision: str, replicas: int, *, ready: int = 0) -> Situation:
        """The revision's Deployment wants and has so many replicas."""

        def change(each: Json) -> Json:
            if each["kind"] != "Deployment" or each["metadata"]["name"] != revision:
                return each
            status = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": replicas}
            return {**each, "spec": {**each["spec"], "replicas": replicas}, "status": status}

        return replace(self, children=tuple(change(each) for each in self.children))

    def with_node(self, name: str, labels: Mapping[str, str]) -> Situation:
        return replace(self, nodes={**self.nodes, name: labels})

    def pod(
        self,
        revision: str,
        name: str = "pod",
        *,
        node: str = "us",
        device: str | None = None,
        **status: Any,
    ) -> Situation:
        """A pod that runs; ``device`` is the resource it takes one of."""
        limits = {device: "1"} if device else {}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **metadata(name),
                "labels": {labels.REVISION: revision},
                "ownerReferences": [{"kind": "ReplicaSet", "name": revision, "controller": True}],
            },
            "spec": {
                "nodeName": node,
                "containers": [{"name": "model", "resources": {"limits": limits}}],
            },
            "status": {"phase": "Running", **status},
        }
        return replace(self, pods=(*self.pods, body))

    def idle_for(self, revision: str, seconds: float) -> Situation:
        """The revision has had no traffic for so long."""
        return replace(self, unused={**self.unused, revision: seconds})

    def snapshot(self) -> Snapshot:
        deployment = {"metadata": self.meta, "spec": self.spec, "status": self.status}
        model = {
            "metadata": metadata("iris"),
            "spec": {"origin": {"s3": {"uri": "s3://models/iris"}}},
        }
        environment = None
        if self.attached is not None:
            entries = [{"name": n, "mandatory": m} for n, m in self.attached.items()]
            environment = Environment.model_validate(
                {"metadata": metadata("production"), "spec": {"policies": entries}}
            )
        return Snapshot(
            deployment=ModelDeployment.model_validate(deployment),
            settings=SETTINGS,
            gateway_url="http://gateway.example",
            rivals=self.rivals,
            model=Model.model_validate(model) if self.has_model else None,
            environment=environment,
            policies=self.policies,
            question=self.question,
            entry=Entry(self.answer) if isinstance(self.question, Question) else None,
            children=self.children,
            pods=self.pods,
            unused_for=self.unused,
            node_kinds=tuple((each, 1) for each in self.nodes.values()),
            node_labels=self.nodes,
        )


def plan_of(situation: Situation, now: datetime = NOW) -> Plan:
    return decide(situation.snapshot(), now)


def conditions_of(plan: Plan) -> dict[str, Json]:
    assert plan.status is not None
    return {c["type"]: c for c in plan.status["conditions"]}


def ready_of(plan: Plan) -> tuple[str, str]:
    ready = conditions_of(plan)["Ready"]
    return ready["status"], ready["reason"]


def revision_of(plan: Plan) -> str:
    return next(o["metadata"]["name"] for o in plan.apply if o["kind"] == "Deployment")


def settled(situation: Situation, *, replicas: int = 0, ready: int = 0) -> tuple[Situation, str]:
    """The situation once its first plan was carried out and told."""
    first = plan_of(situation)
    name = revision_of(first)
    there = situation.applied(first.apply).scaled(name, replicas, ready=ready)
    return there.with_status(first.status), name
