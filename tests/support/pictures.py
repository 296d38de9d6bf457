"""Pictures of a workspace for reviews, and requests about it."""

from __future__ import annotations

from typing import Any

from tests.support.situations import NOW, SETTINGS, metadata

from beamlit_operator.controllers.admission.decision import Decision
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.admission.review import review
from beamlit_operator.controllers.admission.wire import Request
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.kube import Json, ObjectKey

API = "beamlit.com/v1alpha1"
NODES = {
    "us": {"topology.kubernetes.io/region": "us-east-1", "kubernetes.io/arch": "amd64"},
    "eu": {"topology.kubernetes.io/region": "eu-west-1", "kubernetes.io/arch": "amd64"},
}


def location(*countries: str) -> Json:
    return {"type": "location", "locations": [{"type": "country", "name": c} for c in countries]}


def gpus(*names: str) -> Json:
    return {"type": "flavor", "flavors": [{"type": "gpu", "name": name} for name in names]}


def body(kind: Kind, name: str, spec: Json, **more: Any) -> Json:
    return {"apiVersion": API, "kind": str(kind), "metadata": metadata(name, **more), "spec": spec}


class Workspace:
    """What the operator knows of the workspace `team`; fluent, and changed in place."""

    def __init__(self, *, nodes: bool = True) -> None:
        self.indexes = Indexes(lambda _key, _after: None)
        self.pods: dict[ObjectKey, list[Json]] = {}
        self._version = 0
        self._nodes = NODES if nodes else {}
        self.picture = Picture(
            indexes=self.indexes,
            settings=SETTINGS,
            pods_of=lambda key: self.pods.get(key, []),
            node_labels=self._nodes.get,
            node_kinds=lambda: [*self._nodes.values()],
        )

    def put(self, kind: Kind, name: str, spec: Json, **more: Any) -> Workspace:
        self._version += 1
        status = more.pop("status", {})
        item = body(kind, name, spec, resourceVersion=str(self._version), **more)
        self.indexes.put(kind, {**item, "status": status})
        return self

    def policy(self, name: str, spec: Json) -> Workspace:
        return self.put(Kind.POLICY, name, spec)

    def environment(self, name: str = "production", **mandatory: bool) -> Workspace:
        attached = [{"name": n, "mandatory": m} for n, m in mandatory.items()]
        return self.put(Kind.ENVIRONMENT, name, {"policies": attached})

    def model(self, name: str = "iris", **spec: Any) -> Workspace:
        return self.put(Kind.MODEL, name, spec)

    def deployment(self, name: str, *, model: str = "iris", on: str = "", **spec: Any) -> Workspace:
        """``on`` names the node that its only pod runs on."""
        status: Json = {"replicas": 1, "readyReplicas": 1} if on else {}
        self.put(Kind.MODEL_DEPLOYMENT, name, {"model": model, **spec}, status=status)
        if on:
            pod = {"metadata": {"name": f"{name}-pod", "uid": name}, "spec": {"nodeName": on}}
            self.pods[ObjectKey("team", name)] = [pod]
        return self

    def ask(
        self, kind: Kind, operation: str, *, new: Json | None = None, old: Json | None = None
    ) -> Decision:
        item = new or old or {}
        name = item["metadata"]["name"]
        return review(Request("uid", kind, operation, "team", name, new=new, old=old), self.picture)

    def create(self, name: str = "new", **spec: Any) -> Decision:
        """Somebody creates a ModelDeployment."""
        new = body(Kind.MODEL_DEPLOYMENT, name, {"model": "iris", **spec})
        return self.ask(Kind.MODEL_DEPLOYMENT, "CREATE", new=new)

    def change(self, kind: Kind, name: str, spec: Json) -> Decision:
        """Somebody changes the spec of what is there."""
        key = ObjectKey("team", name)
        held = {
            Kind.MODEL_DEPLOYMENT: self.indexes.deployments,
            Kind.ENVIRONMENT: self.indexes.environments,
            Kind.POLICY: self.indexes.policies,
        }[kind][key]  # type: ignore[index]
        return self.ask(kind, "UPDATE", new={**held.raw, "spec": spec}, old=held.raw)

    def delete(self, kind: Kind, name: str, **annotations: str) -> Decision:
        key = ObjectKey("team", name)
        held = {
            Kind.MODEL: self.indexes.models,
            Kind.MODEL_DEPLOYMENT: self.indexes.deployments,
            Kind.ENVIRONMENT: self.indexes.environments,
            Kind.POLICY: self.indexes.policies,
        }[kind][key]  # type: ignore[index]
        old = {**held.raw, "metadata": {**held.raw["metadata"], "annotations": annotations}}
        return self.ask(kind, "DELETE", old=old)


DELETED = NOW.isoformat()
