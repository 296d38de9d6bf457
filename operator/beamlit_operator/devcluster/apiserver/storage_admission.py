"""Admission of storage: a claim's default class, who protects claims and volumes, and growing.

Source: k8s.io/kubernetes/plugin/pkg/admission/storage of 1.36 (DefaultStorageClass,
StorageObjectInUseProtection, PersistentVolumeClaimResize).
"""

from __future__ import annotations

from typing import Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.errors import forbidden
from beamlit_operator.devcluster.apiserver.store import Key, Store, duplicate
from beamlit_operator.devcluster.claims import (
    CLAIM_PROTECTION,
    VOLUME_PROTECTION,
    asked,
    default_class,
)
from beamlit_operator.kube import Json

CLASSES: Final = "storageclasses.storage.k8s.io"
_PROTECTION: Final = {
    "persistentvolumeclaims": CLAIM_PROTECTION,
    "persistentvolumes": VOLUME_PROTECTION,
}


class Storage:
    """The admission step for claims and volumes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def concerns(self, review: Review) -> bool:
        """New claims and volumes, and claims that change."""
        if review.subresource or review.served.resource not in _PROTECTION:
            return False
        if review.verb == "CREATE":
            return True
        return review.verb == "UPDATE" and review.served.resource == "persistentvolumeclaims"

    async def mutate(self, review: Review) -> Json:
        """A new object with its finalizer; a claim that names no class has the default one."""
        assert review.new is not None
        if review.verb != "CREATE":
            return review.new
        item: Json = duplicate(review.new)
        finalizer = _PROTECTION[review.served.resource]
        finalizers = item["metadata"].setdefault("finalizers", [])
        if finalizer not in finalizers:
            finalizers.append(finalizer)
        is_claim = review.served.resource == "persistentvolumeclaims"
        if is_claim and item["spec"].get("storageClassName") is None:
            classes = self._store.collection(CLASSES).objects.values()
            name = default_class(entry.obj for entry in classes)
            if name is not None:
                item["spec"]["storageClassName"] = name
        return item

    async def validate(self, review: Review) -> None:
        """Raises ApiError 403 when a claim grows that cannot."""
        if review.verb != "UPDATE" or review.new is None or review.old is None:
            return
        if asked(review.new) <= asked(review.old):
            return
        why = ""
        if (review.old.get("status") or {}).get("phase") != "Bound":
            why = "Only bound persistent volume claims can be expanded"
        elif not self._may_grow(review.old):
            why = (
                "only dynamically provisioned pvc can be resized and the storageclass that "
                "provisions the pvc must support resize"
            )
        if why:
            raise forbidden("", "persistentvolumeclaims", review.key.name, why)

    def _may_grow(self, claim: Json) -> bool:
        name = claim["spec"].get("storageClassName") or ""
        found = self._store.collection(CLASSES).objects.get(Key("", name))
        return found is not None and bool(found.obj.get("allowVolumeExpansion"))
