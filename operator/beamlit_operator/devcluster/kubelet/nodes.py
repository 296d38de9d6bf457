"""Pretend nodes: read from a file, written to the API as a kubelet would register them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from beamlit_operator.devcluster.kubelet.addresses import HOST_ADDRESS
from beamlit_operator.devcluster.quantities import parse
from beamlit_operator.devcluster.timestamps import now_utc, written
from beamlit_operator.kube import NODES, ApiError, Json, KubeClient

DEFAULT = Path(__file__).with_name("nodes.yaml")

PRETEND = "beamlit.dev/pretend-node"
"""Label of the nodes this process runs pods for. A Node created through the API with this label
becomes such a node too."""

DEFAULT_CAPACITY = {"cpu": "8", "memory": "32Gi", "pods": "110"}

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KEYS = {"name", "labels", "annotations", "taints", "capacity"}


class NodesError(ValueError):
    """A nodes file that cannot be used; names file, entry and key."""


def load(path: Path = DEFAULT) -> list[Json]:
    """The Node objects a file describes, with status.

    Raises:
        NodesError: the file is missing or wrong.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise NodesError(f"nodes file {path}: {error}") from error
    entries = document.get("nodes") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise NodesError(f"nodes file {path}: expected a list under the key nodes")
    nodes = [_node(path, number, entry) for number, entry in enumerate(entries)]
    names = [node["metadata"]["name"] for node in nodes]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise NodesError(f"nodes file {path}: the name {min(twice)} is there twice")
    return nodes


def status_of(capacity: dict[str, str], name: str, now: datetime) -> Json:
    """The status of a healthy node."""

    def healthy(type: str, status: str, reason: str, message: str) -> Json:
        return {
            "type": type,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": written(now),
            "lastTransitionTime": written(now),
        }

    return {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": HOST_ADDRESS},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [
            healthy("Ready", "True", "KubeletReady", "the embedded cluster is running"),
            healthy("MemoryPressure", "False", "KubeletHasSufficientMemory", "not watched here"),
            healthy("DiskPressure", "False", "KubeletHasNoDiskPressure", "not watched here"),
            healthy("PIDPressure", "False", "KubeletHasSufficientPID", "not watched here"),
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "",
            "containerRuntimeVersion": "processes://1",
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": "v0.0.0-beamlit-embedded",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "local processes, for development only",
            "systemUUID": "",
        },
    }


def is_pretend(node: Json) -> bool:
    """Whether this process runs the node's pods."""
    return bool((node["metadata"].get("labels") or {}).get(PRETEND) == "true")


def fill_in(node: Json) -> Json | None:
    """The status for a node that has no Ready condition; None for one that has.

    A capacity that its creator gave it is kept.
    """
    status = node.get("status") or {}
    if any(item.get("type") == "Ready" for item in status.get("conditions") or ()):
        return None
    capacity = {**DEFAULT_CAPACITY, **(status.get("capacity") or {})}
    return status_of(capacity, node["metadata"]["name"], now_utc())


async def register(client: KubeClient, nodes: list[Json]) -> None:
    """Brings the API's Nodes in line: creates, updates, and removes those of an earlier file."""
    known = {item["metadata"]["name"]: item for item in (await client.list(NODES)).items}
    wanted = {node["metadata"]["name"] for node in nodes}
    for name, item in known.items():
        from_file = (item["metadata"].get("annotations") or {}).get(PRETEND) == "file"
        if from_file and name not in wanted:
            await client.delete(NODES, name)
    for node in nodes:
        name = node["metadata"]["name"]
        try:
            if name in known:
                body = {"metadata": node["metadata"], "spec": node["spec"]}
                await client.merge_patch(NODES, name, body)
            else:
                await client.create(NODES, {k: v for k, v in node.items() if k != "status"})
            await client.merge_patch(NODES, name, {"status": node["status"]}, subresource="status")
        except ApiError as error:
            raise NodesError(f"node {name}: {error.message}") from error


def _node(path: Path, number: int, entry: Any) -> Json:
    where = f"nodes file {path}, nodes[{number}]"
    if not isinstance(entry, dict):
        raise NodesError(f"{where}: must be a mapping")
    unknown = set(entry) - _KEYS
    if unknown:
        raise NodesError(f"{where}: unknown key {min(unknown)}; known are {sorted(_KEYS)}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise NodesError(f"{where}.name: must be a lower-case DNS name, not {name!r}")
    capacity = {**DEFAULT_CAPACITY, **(entry.get("capacity") or {})}
    for resource, amount in capacity.items():
        try:
            parse(amount)
        except ValueError as error:
            raise NodesError(f"{where}.capacity[{resource}]: {error}") from error
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        **{str(k): str(v) for k, v in (entry.get("labels") or {}).items()},
        PRETEND: "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {**(entry.get("annotations") or {}), PRETEND: "file"},
        },
        "spec": {"taints": list(entry.get("taints") or ())},
        "status": status_of({k: str(v) for k, v in capacity.items()}, name, now_utc()),
    }
