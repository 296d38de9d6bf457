"""The objects we own in the cluster, and the nodes: followed by reflectors.

Not by kopf's indexes: a child's events must reach the queue of its owner, deletions that happened
while a watch was down must be noticed, and the answers to our own writes must be put in at once, so
that a reconcile never repeats a write it has just made. A reflector with its own list-watch does
the first two, :class:`Children` the third.

Kept is one packed form of each object, with what nobody reads taken out; whoever looks at one opens
it. Of what a reflector compares it keeps the name and the version.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping

from beamlit_operator.api import labels as names
from beamlit_operator.controllers.packed import Packed, packed
from beamlit_operator.controllers.reverse import Reverse
from beamlit_operator.kube import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    NODES,
    PODS,
    SERVICES,
    Change,
    Json,
    KubeClient,
    ObjectKey,
    Reflector,
    Resource,
    identity_of,
)
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.nodes import relevant_labels

OURS = f"{names.MANAGED_BY}={names.OPERATOR_NAME}"
"""The label selector of what we own."""

NOTES = "deployment.kubernetes.io/"
"""Annotations of the Deployment controller: it writes one to every new Deployment."""

TOMBSTONES = 4096
"""How many deleted objects are remembered, so that a late answer does not bring one back."""


class Children:
    """Our objects of one kind, by the ModelDeployment's key."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        namespaces: Iterable[str | None] = (None,),
        on_change: Callable[[Json], None],
    ) -> None:
        """``on_change`` gets every object that appeared, changed or went."""
        self.resource = resource
        self._on_change = on_change
        self._objects: dict[ObjectKey, Packed] = {}
        self._by_owner: Reverse[ObjectKey, ObjectKey] = Reverse()
        self._by_node: Reverse[ObjectKey, str] = Reverse()
        self._buried: OrderedDict[str, None] = OrderedDict()
        self._when_gone: list[Callable[[str], None]] = []
        self._when_set: list[Callable[[ObjectKey], None]] = []
        self._unlisted: set[tuple[ObjectKey, str]] = set()
        self.reflectors = tuple(
            Reflector(
                client,
                resource,
                namespace=namespace,
                label_selector=OURS,
                on_change=self._changed,
                keep=identity_of,
            )
            for namespace in namespaces
        )

    def when_gone(self, forget: Callable[[str], None]) -> None:
        """From now on, ``forget`` gets the uid of every object that is gone, whoever deleted it."""
        self._when_gone.append(forget)

    def when_set(self, touched: Callable[[ObjectKey], None]) -> None:
        """From now on, ``touched`` gets the deployment of every object that came, changed or went,
        also when it was a write of ours."""
        self._when_set.append(touched)

    def of(self, deployment: ObjectKey) -> list[Json]:
        """The objects of a ModelDeployment, by name."""
        return [self._objects[key].open() for key in sorted(self._by_owner.of(deployment))]

    def has(self, deployment: ObjectKey) -> bool:
        """Whether a ModelDeployment has any."""
        return bool(self._by_owner.of(deployment))

    def on(self, node: str) -> list[Json]:
        """The pods on a node."""
        return [self._objects[key].open() for key in sorted(self._by_node.of(node))]

    def get(self, key: ObjectKey) -> Json | None:
        """One object, if it is there."""
        found = self._objects.get(key)
        return found.open() if found is not None else None

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._objects

    def wrote(self, answer: Json, *, quiet: bool = False) -> None:
        """Puts in the API server's answer to a write of ours, ahead of the watch.

        It counts as a change unless ``quiet``: it may show what others did just before, of which
        the watch's own news will be no newer.
        """
        key = _key(answer)
        known = self._objects.get(key)
        if answer["metadata"].get("uid") not in self._buried and (
            known is None or known.older(answer)
        ):
            self._set(key, answer)
            if not quiet:
                self._on_change(answer)

    def audit(self) -> None:
        """Drops what was put in by `wrote` and deleted before any listing or watch showed it.

        No reflector tells of such an end. To be called now and then: what is missing twice is gone.
        """
        unlisted = {
            (key, item.uid)
            for key, item in self._objects.items()
            if not any(key in reflector for reflector in self.reflectors)
        }
        gone = unlisted & self._unlisted
        self._unlisted = unlisted - gone
        for key, uid in gone:
            item = self._objects[key].open()
            for forget in self._when_gone:
                forget(uid)
            self._set(key, None)
            self._on_change(item)

    def _changed(self, change: Change) -> None:
        known = self._objects.get(change.key)
        if change.new is None:
            gone = known.open() if known is not None else change.old
            if gone is None:
                return
            uid = gone["metadata"].get("uid") or ""
            self._bury(uid)
            for forget in self._when_gone:
                forget(uid)
            self._set(change.key, None)
            self._on_change(gone)
        elif known is None or known.older(change.new):
            noise = known is not None and _essence(known.open()) == _essence(change.new)
            self._set(change.key, change.new)
            if not noise:
                self._on_change(change.new)

    def _set(self, key: ObjectKey, item: Json | None) -> None:
        before = self._by_owner.values_of(key)
        if item is None:
            self._objects.pop(key, None)
            self._by_owner.set(key, ())
            self._by_node.set(key, ())
        else:
            self._objects[key] = packed(_light(item))
            owner = (item["metadata"].get("labels") or {}).get(names.MODEL_DEPLOYMENT)
            self._by_owner.set(key, [ObjectKey(key.namespace, owner)] if owner else ())
            node = (item.get("spec") or {}).get("nodeName")
            self._by_node.set(key, [str(node)] if node else ())
        for place in {*before, *self._by_owner.values_of(key)}:
            for touched in self._when_set:
                touched(place)

    def _bury(self, uid: str) -> None:
        self._buried[uid] = None
        while len(self._buried) > TOMBSTONES:
            self._buried.popitem(last=False)


class Nodes:
    """The nodes' labels, as far as policies look at them, and how many nodes share them."""

    def __init__(
        self,
        client: KubeClient,
        *,
        catalogue: Catalogue,
        on_change: Callable[[], None],
        on_node: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``on_change`` is called when a kind of node appears or disappears, not for each node;
        ``on_node`` with the name of every node that came, went or has other labels."""
        self._relevant = relevant_labels(catalogue)
        self._on_change = on_change
        self._on_node = on_node
        self._labels: dict[str, frozenset[tuple[str, str]]] = {}
        self._kinds: Counter[frozenset[tuple[str, str]]] = Counter()
        self.reflector = Reflector(client, NODES, on_change=self._changed, keep=_labelled)

    def use(self, catalogue: Catalogue) -> None:
        """From now on looks at the labels that this catalogue names."""
        self._relevant = relevant_labels(catalogue)
        self._labels = {key.name: self._seen(node) for key, node in self.reflector.items()}
        self._kinds = Counter(self._labels.values())

    def labels_of(self, name: str) -> Mapping[str, str] | None:
        """The labels of a node that policies look at; None when the node is not known."""
        found = self._labels.get(name)
        return None if found is None else dict(found)

    def kinds(self) -> list[tuple[Mapping[str, str], int]]:
        """Every distinct set of labels, with the number of nodes that carry it."""
        return [(dict(kind), count) for kind, count in self._kinds.items()]

    def _changed(self, change: Change) -> None:
        name = change.key.name
        old = self._labels.pop(name, None)
        new = None
        if change.new is not None:
            new = self._labels[name] = self._seen(change.new)
        if old == new:
            return
        self._on_node(name)
        before = set(self._kinds)
        if old is not None:
            self._kinds[old] -= 1
            if not self._kinds[old]:
                del self._kinds[old]
        if new is not None:
            self._kinds[new] += 1
        if set(self._kinds) != before:
            self._on_change()

    def _seen(self, node: Json) -> frozenset[tuple[str, str]]:
        labels: dict[str, str] = node["metadata"].get("labels") or {}
        return frozenset((k, v) for k, v in labels.items() if k in self._relevant)


def _labelled(node: Json) -> Json:
    """A node without the images that it has, its addresses and its conditions: with thousands of
    nodes those are most of what a cluster holds."""
    kept = identity_of(node)
    return {"metadata": {**kept["metadata"], "labels": node["metadata"].get("labels") or {}}}


def _key(item: Json) -> ObjectKey:
    metadata = item["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _essence(item: Json) -> Json:
    """What a decision may look at: not what Kubernetes' Deployment controller notes for itself."""
    metadata = {**item["metadata"], "resourceVersion": None, "managedFields": None}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {k: v for k, v in annotations.items() if not k.startswith(NOTES)}
    return {**item, "metadata": metadata}


OWNS_REPLICAS: Json = {"f:spec": {"f:replicas": {}}}


def _light(item: Json) -> Json:
    """An object with what is read of its ``managedFields``, of which it is the half: whether it was
    applied by us, and who owns `spec.replicas`."""
    metadata = dict(item["metadata"])
    told = []
    for entry in metadata.pop("managedFields", None) or ():
        scales = "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        if scales or entry.get("manager") == names.FIELD_MANAGER:
            told.append({**entry, "fieldsV1": OWNS_REPLICAS if scales else {}})
    if told:
        metadata["managedFields"] = told
    return {**item, "metadata": metadata}


CHILD_RESOURCES = (DEPLOYMENTS, SERVICES, PODS, HORIZONTAL_POD_AUTOSCALERS)
"""The kinds of objects that are followed for their owners."""
