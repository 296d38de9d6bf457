"""Volumes that are made when a claim asks for one: a directory each, in the cluster's own folder.

Every node is this machine, so every pod may use every such volume, whatever its access modes say.
A directory has no size: what a claim asks for is noted and not enforced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from beamlit_operator.devcluster.claims import CLASSES, PROVISIONED_BY, annotation, reference_to
from beamlit_operator.kube import ApiError, Json, KubeClient

PROVISIONER: Final = "beamlit.dev/directory"

STANDARD: Final[Json] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}
"""The class of claims that name none; it is made anew at a start where it is missing."""


class ProvisioningError(Exception):
    """A claim asks for what this provisioner cannot make; the text says what."""


async def register(client: KubeClient) -> None:
    """Writes the class ``standard`` unless there is one of that name."""
    try:
        await client.get(CLASSES, STANDARD["metadata"]["name"])
    except ApiError as error:
        if not error.not_found:
            raise
        await client.create(CLASSES, STANDARD)


def name_for(claim: Json) -> str:
    """The name of the volume that is made for a claim: another one for each of the same name."""
    return f"pvc-{claim['metadata']['uid']}"


def refusal(claim: Json, storage_class: Json) -> str | None:
    """Why no volume can be made for the claim, None when one can."""
    spec = claim["spec"]
    if spec.get("volumeMode") == "Block":
        return "the embedded cluster has no block devices; use volumeMode Filesystem"
    if spec.get("dataSourceRef") or spec.get("dataSource"):
        return "the embedded cluster cannot fill a volume from a dataSource"
    if spec.get("selector"):
        return "claim.spec.selector is not supported; bind a volume made by hand instead"
    if spec.get("volumeAttributesClassName"):
        return "the embedded cluster has no volume attributes"
    for name in ("mountOptions", "allowedTopologies", "parameters"):
        if storage_class.get(name):
            return f"the provisioner {PROVISIONER} knows no {name}"
    return None


class Directories:
    """The folder that holds a directory for every volume that was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def make(self, claim: Json, storage_class: Json) -> Json:
        """Makes the directory of a claim's volume; returns the PersistentVolume to create.

        Raises:
            ProvisioningError: the claim asks for what a directory is not.
            OSError: the directory cannot be made.
        """
        why = refusal(claim, storage_class)
        if why is not None:
            raise ProvisioningError(why)
        name = name_for(claim)
        path = self._folder / name
        path.mkdir(parents=True, exist_ok=True)
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
                "storageClassName": storage_class["metadata"]["name"],
                "claimRef": reference_to(claim),
                "hostPath": {"path": str(path), "type": "Directory"},
            },
        }

    def is_ours(self, volume: Json) -> bool:
        """Whether the volume was made here: only then its data may be deleted."""
        return annotation(volume, PROVISIONED_BY) == PROVISIONER and (
            volume["spec"].get("hostPath") or {}
        ).get("path") == str(self._path(volume))

    def _path(self, volume: Json) -> Path:
        # A name of the API has no slash, so this stays in the folder.
        return self._folder / str(volume["metadata"]["name"])

    def remove(self, volume: Json) -> None:
        """Removes what a volume that was made here holds.

        Raises:
            OSError: something cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            _remove_tree(self._path(volume))

    def sweep(self, known: set[str]) -> None:
        """Removes the directories that no volume has and nothing is in: their making was cut
        short. What has content was retained, and is somebody's."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name not in known:
                with contextlib.suppress(OSError):
                    path.rmdir()


def _remove_tree(path: Path) -> None:
    """Also what programs have made read-only."""
    path.chmod(stat.S_IRWXU)
    # From the top: a folder is made readable before it is looked into. Links are not followed.
    for where, folders, _ in os.walk(path):
        for folder in (os.path.join(where, name) for name in folders):
            if not os.path.islink(folder):
                os.chmod(folder, stat.S_IRWXU)
    shutil.rmtree(path)
