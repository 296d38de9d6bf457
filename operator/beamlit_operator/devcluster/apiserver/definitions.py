"""Follows CustomResourceDefinitions: serves what they define, and reports so on their status."""

from __future__ import annotations

from beamlit_operator.devcluster.apiserver.crds import (
    CLEANUP,
    CRDS,
    established_status,
    served_by,
)
from beamlit_operator.devcluster.apiserver.metadata import now_text
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.devcluster.apiserver.store import Event, Store


class Definitions:
    """An observer of the store that keeps the registry in step with the definitions."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    def load(self) -> None:
        """Serves what the definitions in the store define, after a restart."""
        for entry in self._store.collection(CRDS).objects.values():
            self._registry.add(*served_by(entry.obj))

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit."""
        if resource != CRDS:
            return
        definition = event.entry.obj
        spec = definition["spec"]
        if event.type == "DELETED":
            self._registry.remove(spec["group"], spec["names"]["plural"])
            return
        changed = event.before is None or event.before.obj["spec"] != spec
        if changed:
            self._registry.remove(spec["group"], spec["names"]["plural"])
            self._registry.add(*served_by(definition))
        if definition["metadata"].get("deletionTimestamp"):
            return
        status = established_status(definition, now_text())
        metadata = definition["metadata"]
        if status != definition.get("status") or CLEANUP not in metadata.get("finalizers", ()):
            finalizers = [*(f for f in metadata.get("finalizers", ()) if f != CLEANUP), CLEANUP]
            new = {
                **definition,
                "metadata": {**metadata, "finalizers": finalizers},
                "status": status,
            }
            self._store.commit(CRDS, event.entry.key, new)
