"""EndpointSlice: which addresses stand behind a Service, and in what state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beamlit_operator.devcluster.controllers.pods import is_finished, is_ready, owner_reference
from beamlit_operator.kube import Json

MANAGED_BY = "endpointslice-controller.k8s.io"
"""Value of ``endpointslice.kubernetes.io/managed-by``, as the real controller writes it."""

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"

MAX_ENDPOINTS = 1000
"""Endpoints in one slice, the API's limit."""

Ports = tuple[tuple[str, int, str, str], ...]
"""Resolved ports of one pod: name, number, protocol, application protocol."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One Service with the pods its selector matches and the slices that exist."""

    service: Json
    pods: Sequence[Json]
    slices: Sequence[Json]
    zones: Mapping[str, str]
    """Zone by node name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Whole slices to create or replace, and names of those to delete."""

    create: tuple[Json, ...] = ()
    replace: tuple[Json, ...] = ()
    delete: tuple[str, ...] = ()


def decide(snapshot: Snapshot) -> Plan:
    """The plan for one Service.

    | pod                                 | ready | serving | terminating |
    |-------------------------------------|-------|---------|-------------|
    | Ready                               | true  | true    | false       |
    | not Ready                           | false | false   | false       |
    | Ready, has a deletionTimestamp      | false | true    | true        |
    | not Ready, has a deletionTimestamp  | false | false   | true        |
    | no address yet, or ended            | not listed              |||

    ``publishNotReadyAddresses`` makes ``ready`` true in every row. Pods whose named ports resolve
    to different numbers are in different slices.
    """
    service = snapshot.service
    ours = {
        item["metadata"]["name"]: item
        for item in snapshot.slices
        if (item["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY
    }
    wanted = {item["metadata"]["name"]: item for item in _slices(snapshot)}
    if "deletionTimestamp" in service["metadata"]:
        wanted = {}
    create, replace = [], []
    for name, item in wanted.items():
        existing = ours.get(name)
        if existing is None:
            create.append(item)
        elif _content(existing) != _content(item):
            item["metadata"]["resourceVersion"] = existing["metadata"].get("resourceVersion")
            replace.append(item)
    return Plan(tuple(create), tuple(replace), tuple(name for name in ours if name not in wanted))


def _content(item: Json) -> Json:
    return {
        "labels": item["metadata"].get("labels") or {},
        "endpoints": item.get("endpoints") or [],
        "ports": item.get("ports") or [],
    }


def _slices(snapshot: Snapshot) -> list[Json]:
    service = snapshot.service
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName" or not spec.get("selector"):
        return []
    groups: dict[Ports, list[Json]] = {}
    for pod in sorted(snapshot.pods, key=lambda pod: str(pod["metadata"]["name"])):
        if not (pod.get("status") or {}).get("podIP") or is_finished(pod):
            continue
        groups.setdefault(_ports(spec, pod), []).append(_endpoint(snapshot, pod))
    if not groups:
        groups[_ports(spec, None)] = []
    result = []
    for ports, endpoints in groups.items():
        for start in range(0, max(len(endpoints), 1), MAX_ENDPOINTS):
            part = endpoints[start : start + MAX_ENDPOINTS]
            result.append(_slice(service, ports, start, endpoints=part))
    return result


def _slice(service: Json, ports: Ports, start: int, *, endpoints: list[Json]) -> Json:
    metadata = service["metadata"]
    # A name that follows from the content: a second attempt after a lost answer hits the same.
    suffix = hashlib.sha256(repr((metadata["uid"], ports, start)).encode()).hexdigest()[:5]
    labels = {
        **(metadata.get("labels") or {}),
        SERVICE_NAME: metadata["name"],
        MANAGED_BY_LABEL: MANAGED_BY,
    }
    if (service.get("spec") or {}).get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name'][:57]}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {
                "name": name,
                **({"port": number} if number else {}),
                "protocol": protocol,
                **({"appProtocol": application} if application else {}),
            }
            for name, number, protocol, application in ports
        ],
    }


def _endpoint(snapshot: Snapshot, pod: Json) -> Json:
    metadata, node = pod["metadata"], pod["spec"].get("nodeName", "")
    terminating = "deletionTimestamp" in metadata
    publish = bool((snapshot.service.get("spec") or {}).get("publishNotReadyAddresses"))
    endpoint: Json = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": publish or (is_ready(pod) and not terminating),
            "serving": is_ready(pod),
            "terminating": terminating,
        },
        "nodeName": node,
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if (
        pod["spec"].get("hostname")
        and pod["spec"].get("subdomain") == (snapshot.service["metadata"]["name"])
    ):
        endpoint["hostname"] = pod["spec"]["hostname"]
    if snapshot.zones.get(node):
        endpoint["zone"] = snapshot.zones[node]
    return endpoint


def _ports(spec: Json, pod: Json | None) -> Ports:
    """A port by name that the pod does not have is left out, as the real controller does."""
    resolved = []
    for port in spec.get("ports") or ():
        target = port.get("targetPort", port["port"]) or port["port"]
        if isinstance(target, str) and not target.isdigit():
            number = _named_port(pod, target, port.get("protocol", "TCP")) if pod else 0
            if pod and not number:
                continue
        else:
            number = int(target)
        resolved.append(
            (
                str(port.get("name") or ""),
                number,
                str(port.get("protocol", "TCP")),
                str(port.get("appProtocol") or ""),
            )
        )
    return tuple(resolved)


def _named_port(pod: Json, name: str, protocol: str) -> int:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0
