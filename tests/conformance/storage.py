"""Volumes, claims and classes of the suite."""

from __future__ import annotations

import secrets
from typing import Any

from beamlit_operator.kube import Json, Resource

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)


def claim(name: str, /, size: str = "1Mi", **spec: Any) -> Json:
    """A claim; without ``storageClassName`` the cluster's default class is meant."""
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def host_path(name: str = "", /, size: str = "1Mi", **spec: Any) -> Json:
    """A volume made by hand; a field that is None is left out."""
    body = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "hostPath": {"path": "/tmp/conformance"},
        **spec,
    }
    return {
        "metadata": {"name": name or f"conformance-{secrets.token_hex(6)}"},
        "spec": {key: value for key, value in body.items() if value is not None},
    }


def local(name: str = "", /, **spec: Any) -> Json:
    """A volume that is on one node only."""
    spec = {"hostPath": None, "local": {"path": "/tmp/conformance"}, **spec}
    return host_path(name, **spec)


def only_on(label: str) -> Json:
    """A volume's node affinity: nodes with this label."""
    term = {"matchExpressions": [{"key": label, "operator": "Exists"}]}
    return {"required": {"nodeSelectorTerms": [term]}}


def storage_class(**more: Any) -> Json:
    """A class that nobody makes volumes of."""
    return {
        "metadata": {"name": f"conformance-{secrets.token_hex(6)}"},
        "provisioner": "kubernetes.io/no-provisioner",
        **more,
    }
