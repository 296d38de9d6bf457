"""The claims of workspaces' caches, and the pods that the operator makes for them: followed.

There is one claim of a name in each workspace that has a cache, or none. Pods that fetch ahead or
tidy are few, and gone as soon as what they came to was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from beamlit_operator.api import labels
from beamlit_operator.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    Change,
    Json,
    KubeClient,
    ObjectKey,
    Reflector,
    identity_of,
)
from beamlit_operator.workloads.cache import Cache
from beamlit_operator.workloads.errands import PREFETCH
from beamlit_operator.workloads.pods import FETCHING

DONE, FAILED = "done", "failed"

OnEnd = Callable[[str, str], None]
"""Takes what an errand was, and `done` or `failed`."""


class Claims:
    """Which workspaces have a cache."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        *,
        namespaces: Iterable[str | None] = (None,),
        on_change: Callable[[str], None],
    ) -> None:
        """``name`` is the claims'; empty: there are none. ``on_change`` gets the workspace whose
        claim came, went, or cannot be used any more."""
        self._name = name
        self._on_change = on_change
        self._uids: dict[str, str] = {}
        self.reflectors = tuple(
            Reflector(
                client,
                PERSISTENT_VOLUME_CLAIMS,
                namespace=namespace,
                field_selector=f"metadata.name={name}",
                on_change=self._changed,
                keep=identity_of,
            )
            for namespace in (namespaces if name else ())
        )

    def of(self, workspace: str) -> Cache | None:
        """The cache of a workspace; None where the operator was told of none, and as long as it is
        not known whether there is one."""
        if not self._name or not all(each.synced for each in self.reflectors):
            return None
        return Cache(self._name, workspace in self._uids)

    def uid(self, workspace: str) -> str:
        """Of the claim that can be used; empty where there is none."""
        return self._uids.get(workspace, "")

    @property
    def workspaces(self) -> list[str]:
        """Those with a cache."""
        return sorted(self._uids)

    def _changed(self, change: Change) -> None:
        # A field selector is asked for, but a server may not know it.
        if change.key.name != self._name:
            return
        workspace = change.key.namespace
        uid = change.new["metadata"].get("uid", "") if usable(change.new) and change.new else ""
        if uid != self._uids.get(workspace, ""):
            self._uids.pop(workspace, None)
            if uid:
                self._uids[workspace] = uid
            self._on_change(workspace)


def usable(claim: Json | None) -> bool:
    """Whether new pods can mount a claim: it is there, stays, and has not lost its volume. One that
    is not bound yet may be bound by the first pod."""
    return (
        claim is not None
        and not claim["metadata"].get("deletionTimestamp")
        and (claim.get("status") or {}).get("phase") != "Lost"
    )


class Errands:
    """The pods that fetch ahead or tidy."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespaces: Iterable[str | None],
        on_change: Callable[[Json], None],
        on_end: OnEnd,
    ) -> None:
        """``on_change`` gets every pod that came, changed or went; ``on_end`` hears once of each
        what it came to."""
        self._on_change = on_change
        self._on_end = on_end
        self._pods: dict[ObjectKey, Json] = {}
        self._ended: set[str] = set()
        self.reflectors = tuple(
            Reflector(
                client,
                PODS,
                namespace=namespace,
                label_selector=labels.ERRAND,
                on_change=self._changed,
                keep=identity_of,
            )
            for namespace in namespaces
        )

    def of_model(self, model: ObjectKey, uid: str) -> list[Json]:
        """The pods that fetch for a Model, by name."""
        return [
            pod
            for pod in self.of(model.namespace, PREFETCH)
            if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences") or ())
        ]

    def of(self, workspace: str, errand: str) -> list[Json]:
        """The pods of a workspace that do this, by name."""
        return [p for p in self.all(errand) if p["metadata"].get("namespace") == workspace]

    def all(self, errand: str) -> list[Json]:
        """The pods of all workspaces that do this, by workspace and name."""
        return [pod for _, pod in sorted(self._pods.items()) if errand_of(pod) == errand]

    def wrote(self, pod: Json) -> None:
        """Puts in a pod that was just made, ahead of the watch."""
        self._pods.setdefault(_key(pod), pod)

    def gone(self, key: ObjectKey) -> None:
        """A pod that was put in is not there, and no watch has told of it."""
        if not any(key in reflector for reflector in self.reflectors):
            self._pods.pop(key, None)

    def _changed(self, change: Change) -> None:
        if change.new is None:
            pod = self._pods.pop(change.key, None)
            if pod is not None:
                self._ended.discard(pod["metadata"].get("uid", ""))
                self._on_change(pod)
            return
        self._pods[change.key] = change.new
        uid, end = change.new["metadata"].get("uid", ""), ended(change.new)
        if end is not None and uid not in self._ended:
            self._ended.add(uid)
            self._on_end(errand_of(change.new), end)
        self._on_change(change.new)


def errand_of(pod: Json) -> str:
    """What a pod was made for."""
    return str((pod["metadata"].get("labels") or {}).get(labels.ERRAND, ""))


def ended(pod: Json) -> str | None:
    """What a pod's errand came to: `done`, `failed`, or None while it is under way.

    Of one that fetches, what its first container came to counts: there is nothing behind it.
    """
    status: Json = pod.get("status") or {}
    for container in status.get("initContainerStatuses") or ():
        exit_ = (container.get("state") or {}).get("terminated")
        if container.get("name") == FETCHING and exit_ and exit_.get("exitCode") == 0:
            return DONE
    return {"Succeeded": DONE, "Failed": FAILED}.get(str(status.get("phase")))


def _key(item: Mapping[str, Json]) -> ObjectKey:
    metadata = item["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])
