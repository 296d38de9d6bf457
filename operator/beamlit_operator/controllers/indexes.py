"""What the operator knows of the cluster, and which objects a change affects.

kopf delivers the events of our four kinds, reflectors those of children and nodes, and the answers
to our own writes are put in as well, so that a reconcile never decides on what it has itself
outdated. Every change puts the keys of the affected objects on the queue; finding them costs as
much as there are affected objects, never a scan.

| changed         | affected                                                                  |
|-----------------|---------------------------------------------------------------------------|
| ModelDeployment | itself; its rivals for the endpoint; its Model's rows; its Environment's count |
| Model           | itself; its deployments                                                   |
| Environment     | itself; the deployments in it                                             |
| Policy          | itself; Environments that attach it; deployments in those, or that attach it |
| owned child, Pod| the ModelDeployment it belongs to                                         |
| Node            | those with pods on it; all, when a kind of node appears or disappears     |
| integration     | the Models of the workspace that name no credentials                      |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable
from typing import TypeVar

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy, conditions, labels
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held, held
from beamlit_operator.controllers.reverse import Reverse
from beamlit_operator.controllers.stores import integration_of
from beamlit_operator.kube import Json, ObjectKey

T = TypeVar("T")

Enqueue = Callable[[Key, float], None]
"""Takes a key and after how many seconds it has to be looked at."""

OnSeen = Callable[[Kind, ObjectKey, Json | None, Json | None], None]
"""Takes a kind, a key, the object as it was and as it is."""

SETTLE = 0.5
"""Seconds by which rows and counts on other objects may lag: many changes become one write."""

TOMBSTONES = 4096
"""How many deleted objects are remembered, so that a late answer does not bring one back."""


class Indexes:
    """The operator's picture of the cluster. Objects in it are shared: never modify one."""

    def __init__(
        self,
        enqueue: Enqueue,
        *,
        later: Callable[[Key], None] | None = None,
        on_seen: OnSeen | None = None,
    ) -> None:
        """``later`` takes keys of which there may be thousands, because of one change elsewhere;
        ``on_seen`` gets every object that is there, changed or went, before and after."""
        self._enqueue = enqueue
        self._later = later or (lambda key: enqueue(key, 0.0))
        self._on_seen = on_seen or (lambda *_: None)
        self._buried: OrderedDict[str, None] = OrderedDict()
        self.models: dict[ObjectKey, Held[Model]] = {}
        self.deployments: dict[ObjectKey, Held[ModelDeployment]] = {}
        self.environments: dict[ObjectKey, Held[Environment]] = {}
        self.policies: dict[ObjectKey, Held[Policy]] = {}
        self._deployments_by_model: Reverse[ObjectKey, ObjectKey] = Reverse()
        self._deployments_by_environment: Reverse[ObjectKey, ObjectKey] = Reverse()
        self._deployments_by_policy: Reverse[ObjectKey, ObjectKey] = Reverse()
        # By workspace, model and environment.
        self._deployments_by_endpoint: Reverse[ObjectKey, tuple[str, str, str]] = Reverse()
        self._environments_by_policy: Reverse[ObjectKey, ObjectKey] = Reverse()
        self._models_by_integration: Reverse[ObjectKey, ObjectKey] = Reverse()

    # Events in.

    def put(self, kind: Kind, raw: Json, *, own: bool = False) -> None:
        """An object is there, or changed. ``own``: this is the answer to a write of ours."""
        metadata = raw["metadata"]
        key = ObjectKey(metadata.get("namespace", ""), metadata["name"])
        found = self._held(kind, key)
        if metadata.get("uid") in self._buried or (found and not found.packed.older(raw)):
            return
        known = found.raw if found is not None else None
        # The answer to a write also shows what others changed just before; the watch's own news of
        # that will not be newer any more, so it must not pass unnoticed here.
        own = own and known is not None and _asked(known) == _asked(raw)
        self._on_seen(kind, key, known, raw)
        if kind is Kind.MODEL:
            self._put_model(key, held(Model, raw), own=own)
        elif kind is Kind.MODEL_DEPLOYMENT:
            self._put_deployment(key, held(ModelDeployment, raw), own=own)
        elif kind is Kind.ENVIRONMENT:
            self._put_environment(key, held(Environment, raw), own=own)
        else:
            self._put_policy(key, held(Policy, raw), own=own)

    def remove(self, kind: Kind, key: ObjectKey, *, uid: str = "") -> None:
        """An object is gone. With ``uid``: only if it is that one and no successor."""
        known = self._held(kind, key)
        if uid:
            self._bury(uid)
        if known is None or (uid and known.packed.uid not in ("", uid)):
            return
        self._bury(known.packed.uid)
        self._on_seen(kind, key, known.raw, None)
        if kind is Kind.MODEL:
            self._put_model(key, None)
        elif kind is Kind.MODEL_DEPLOYMENT:
            self._put_deployment(key, None)
        elif kind is Kind.ENVIRONMENT:
            self._put_environment(key, None)
        else:
            self._put_policy(key, None)

    def uids(self, kind: Kind) -> frozenset[str]:
        """The objects of a kind that are known now; taken before a listing for `retain`."""
        return frozenset(self._uid(kind, key) for key in self._of(kind))

    def version(self, kind: Kind, key: ObjectKey) -> tuple[str, str]:
        """The uid and resourceVersion of what is held of an object; empty when there is none."""
        known = self._held(kind, key)
        return (known.packed.uid, known.packed.version) if known is not None else ("", "")

    def generation(self, kind: Kind, key: ObjectKey) -> int | None:
        """The generation of what is held of an object; None when there is none."""
        known = self._held(kind, key)
        return known.generation if known is not None else None

    def listed(self, kind: Kind, raw: Json) -> ObjectKey:
        """One object of a fresh listing; returns its key."""
        metadata = raw["metadata"]
        self.put(kind, raw)
        return ObjectKey(metadata.get("namespace", ""), metadata["name"])

    def retain(
        self,
        kind: Kind,
        present: Container[ObjectKey],
        *,
        namespace: str | None,
        known_before: Container[str],
    ) -> None:
        """The end of a fresh listing that had ``present``: what is not in it (within ``namespace``,
        None for all) is gone.

        kopf reports no deletion that happened while its watch was down, hence this audit.
        ``known_before`` are the `uids` at the time the listing was asked for: what became known
        while it was under way may be newer than the listing, and is none of its business.
        """
        for key in [*self._of(kind)]:
            if (
                key not in present
                and namespace in (None, key.namespace)
                and self._uid(kind, key) in known_before
            ):
                self.remove(kind, key)

    def child_changed(self, raw: Json) -> None:
        """A labelled child (Deployment, Service, Pod) appeared, changed or went."""
        metadata = raw["metadata"]
        owner = (metadata.get("labels") or {}).get(labels.MODEL_DEPLOYMENT)
        if owner:
            key = ObjectKey(metadata.get("namespace", ""), owner)
            # Without it too: what it has left may have to go.
            self._add(Kind.MODEL_DEPLOYMENT, [key])

    def nodes_changed(self) -> None:
        """A kind of node appeared or disappeared: any deployment may gain or lose its place."""
        self._spread(self.deployments)

    def integration_changed(self, namespace: str, integration: str) -> None:
        """A workspace integration appeared, changed or went."""
        self._add(Kind.MODEL, self._models_by_integration.of(ObjectKey(namespace, integration)))

    # Questions.

    def held_by(self, kind: Kind, key: ObjectKey) -> set[ObjectKey]:
        """The deployments that a Policy or an Environment may concern."""
        if kind is Kind.ENVIRONMENT:
            return set(self._deployments_by_environment.of(key))
        found = set(self._deployments_by_policy.of(key))
        for environment in self._environments_by_policy.of(key):
            found |= self._deployments_by_environment.of(environment)
        return found

    def deployments_of(self, model: ObjectKey) -> list[Held[ModelDeployment]]:
        """The deployments of a Model, by name."""
        return [self.deployments[k] for k in sorted(self._deployments_by_model.of(model))]

    def deployments_in(self, environment: ObjectKey) -> list[Held[ModelDeployment]]:
        """The deployments in an Environment, by name."""
        found = self._deployments_by_environment.of(environment)
        return [self.deployments[k] for k in sorted(found)]

    def count_in(self, environment: ObjectKey) -> int:
        """How many deployments are in an Environment."""
        return len(self._deployments_by_environment.of(environment))

    def deployments_with(self, policy: ObjectKey) -> list[Held[ModelDeployment]]:
        """The deployments that attach a Policy themselves, by name."""
        return [self.deployments[k] for k in sorted(self._deployments_by_policy.of(policy))]

    def environments_with(self, policy: ObjectKey) -> list[Held[Environment]]:
        """The Environments that attach a Policy, by name."""
        return [self.environments[k] for k in sorted(self._environments_by_policy.of(policy))]

    def rivals(self, deployment: Held[ModelDeployment]) -> list[Held[ModelDeployment]]:
        """The other deployments of the same model in the same environment."""
        if deployment.parsed is None:
            return []
        spec = deployment.parsed.spec
        endpoint = (deployment.key.namespace, spec.model, spec.environment)
        found = sorted(self._deployments_by_endpoint.of(endpoint))
        return [self.deployments[key] for key in found if key != deployment.key]

    def all_keys(self) -> list[Key]:
        """Every object of ours."""
        return [
            Key(kind, Workspace(key.namespace), key.name) for kind in Kind for key in self._of(kind)
        ]

    def refused(self) -> list[ObjectKey]:
        """The deployments whose status says that a gateway refuses something of them."""
        return [
            key
            for key, held in self.deployments.items()
            if held.parsed is not None
            and conditions.find(held.parsed.status.conditions, conditions.PROGRAMMED) is not None
        ]

    # Our four kinds.

    def _put_model(self, key: ObjectKey, new: Held[Model] | None, *, own: bool = False) -> None:
        old = _swap(self.models, key, new)
        self._models_by_integration.set(key, _integrations(key, new))
        if not own:
            self._add(Kind.MODEL, [key])
        if _model_facts(old) != _model_facts(new):
            self._add(Kind.MODEL_DEPLOYMENT, self._deployments_by_model.of(key))

    def _put_deployment(
        self, key: ObjectKey, new: Held[ModelDeployment] | None, *, own: bool = False
    ) -> None:
        old = _swap(self.deployments, key, new)
        spec = new.parsed.spec if new is not None and new.parsed is not None else None
        namespace = key.namespace
        self._deployments_by_model.set(key, [ObjectKey(namespace, spec.model)] if spec else [])
        self._deployments_by_environment.set(
            key, [ObjectKey(namespace, spec.environment)] if spec else []
        )
        self._deployments_by_policy.set(
            key, [ObjectKey(namespace, p.name) for p in spec.policies] if spec else []
        )
        self._deployments_by_endpoint.set(
            key, [(namespace, spec.model, spec.environment)] if spec else []
        )
        if not own:
            self._add(Kind.MODEL_DEPLOYMENT, [key])
        for each in (old, new):
            if each is None or each.parsed is None:
                continue
            of = each.parsed.spec
            if _row_facts(old) != _row_facts(new):
                self._add(Kind.MODEL, [ObjectKey(namespace, of.model)], SETTLE)
            if _exists(old) != _exists(new):
                self._add(Kind.ENVIRONMENT, [ObjectKey(namespace, of.environment)], SETTLE)
                self._add(Kind.MODEL_DEPLOYMENT, [r.key for r in self.rivals(each)])

    def _put_environment(
        self, key: ObjectKey, new: Held[Environment] | None, *, own: bool = False
    ) -> None:
        old = _swap(self.environments, key, new)
        names = new.parsed.spec.policies if new is not None and new.parsed is not None else ()
        self._environments_by_policy.set(key, [ObjectKey(key.namespace, p.name) for p in names])
        if not own:
            self._add(Kind.ENVIRONMENT, [key])
        if _spec(old) != _spec(new):
            self._spread(self._deployments_by_environment.of(key))

    def _put_policy(self, key: ObjectKey, new: Held[Policy] | None, *, own: bool = False) -> None:
        old = _swap(self.policies, key, new)
        if not own:
            self._add(Kind.POLICY, [key])
        if _spec(old) == _spec(new):
            return
        environments = self._environments_by_policy.of(key)
        self._add(Kind.ENVIRONMENT, environments)
        for environment in environments:
            self._spread(self._deployments_by_environment.of(environment))
        self._spread(self._deployments_by_policy.of(key))

    def _spread(self, deployments: Iterable[ObjectKey]) -> None:
        """Deployments that a change elsewhere concerns, thousands perhaps."""
        for key in deployments:
            self._later(Key(Kind.MODEL_DEPLOYMENT, Workspace(key.namespace), key.name))

    def _add(self, kind: Kind, keys: Iterable[ObjectKey], after: float = 0.0) -> None:
        for key in keys:
            self._enqueue(Key(kind, Workspace(key.namespace), key.name), after)

    def _of(self, kind: Kind) -> Iterable[ObjectKey]:
        if kind is Kind.MODEL:
            return self.models
        if kind is Kind.MODEL_DEPLOYMENT:
            return self.deployments
        return self.environments if kind is Kind.ENVIRONMENT else self.policies

    def _uid(self, kind: Kind, key: ObjectKey) -> str:
        known = self._held(kind, key)
        return "" if known is None else known.packed.uid

    def _held(
        self, kind: Kind, key: ObjectKey
    ) -> Held[Model] | Held[ModelDeployment] | Held[Environment] | Held[Policy] | None:
        known: Held[Model] | Held[ModelDeployment] | Held[Environment] | Held[Policy] | None
        if kind is Kind.MODEL:
            known = self.models.get(key)
        elif kind is Kind.MODEL_DEPLOYMENT:
            known = self.deployments.get(key)
        elif kind is Kind.ENVIRONMENT:
            known = self.environments.get(key)
        else:
            known = self.policies.get(key)
        return known

    def _bury(self, uid: str) -> None:
        if uid:
            self._buried[uid] = None
            while len(self._buried) > TOMBSTONES:
                self._buried.popitem(last=False)


def _swap(place: dict[ObjectKey, T], key: ObjectKey, new: T | None) -> T | None:
    old = place.pop(key, None)
    if new is not None:
        place[key] = new
    return old


def _asked(raw: Json) -> object:
    """The part of an object that others write."""
    names = ("uid", "generation", "deletionTimestamp", "labels", "annotations")
    return raw.get("spec"), [raw["metadata"].get(name) for name in names]


def _exists(item: Held[ModelDeployment] | None) -> bool:
    return item is not None and not item.deleting


def _spec(item: Held[Environment] | Held[Policy] | None) -> object:
    return None if item is None or item.deleting else item.raw.get("spec", {})


def _model_facts(item: Held[Model] | None) -> object:
    """What a deployment reads of its Model."""
    if item is None or item.parsed is None:
        return item is not None
    status = item.parsed.status
    ready = conditions.find(status.conditions, conditions.READY)
    return (
        item.deleting,
        item.raw.get("spec"),
        status.observed_generation,
        status.origin,
        status.suggested_runtime,
        ready and (ready.status, ready.reason, ready.message),
    )


def _row_facts(item: Held[ModelDeployment] | None) -> object:
    """What a Model's row tells of a deployment."""
    if item is None or item.parsed is None:
        return None
    spec, status = item.parsed.spec, item.parsed.status
    serving = status.serving.version if status.serving is not None else None
    return (spec.model, spec.environment, spec.enabled, serving, status.phase, status.url)


def _integrations(key: ObjectKey, item: Held[Model] | None) -> list[ObjectKey]:
    """The workspace integration that a Model without credentials of its own relies on."""
    origin = item.parsed.spec.origin if item is not None and item.parsed is not None else None
    if origin is None:
        return []
    integration = integration_of(origin)
    return [ObjectKey(key.namespace, integration)] if integration is not None else []
