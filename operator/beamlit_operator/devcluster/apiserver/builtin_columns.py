"""The columns of ``kubectl get`` for built-in resources, as kubectl's users know them."""

from __future__ import annotations

from typing import Any, Final

from beamlit_operator.devcluster.apiserver.served import Column
from beamlit_operator.devcluster.claims import class_of
from beamlit_operator.kube import Json

AGE: Final = Column("Age", "string", ".metadata.creationTimestamp", format="age")


def _get(item: Json, *path: str) -> Any:
    value: Any = item
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _number(*path: str) -> Any:
    return lambda item: _get(item, *path) or 0


def _pod_ready(item: Json) -> str:
    statuses = _get(item, "status", "containerStatuses") or []
    ready = sum(1 for status in statuses if status.get("ready"))
    return f"{ready}/{len(item['spec'].get('containers') or ())}"


def _pod_restarts(item: Json) -> int:
    statuses = _get(item, "status", "containerStatuses") or []
    return sum(status.get("restartCount", 0) for status in statuses)


def _pod_status(item: Json) -> str:
    """As kubectl's printer: the most telling reason among the containers, else the phase."""
    status = item.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    inits = status.get("initContainerStatuses") or []
    total = len(item["spec"].get("initContainers") or ())
    for index, container in enumerate(inits):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated and terminated.get("exitCode") == 0:
            continue
        if terminated:
            why = terminated.get("reason") or f"ExitCode:{terminated.get('exitCode')}"
            reason = f"Init:{why}"
        elif waiting.get("reason") not in (None, "", "PodInitializing"):
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{total}"
        break
    else:
        for container in reversed(status.get("containerStatuses") or []):
            state = container.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif state.get("terminated"):
                ended = state["terminated"]
                reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
    return "Terminating" if item["metadata"].get("deletionTimestamp") else reason


def _node_status(item: Json) -> str:
    conditions = _get(item, "status", "conditions") or []
    ready: Json = next((c for c in conditions if c.get("type") == "Ready"), {})
    text = {"True": "Ready", "False": "NotReady"}.get(ready.get("status", ""), "Unknown")
    return text + (",SchedulingDisabled" if _get(item, "spec", "unschedulable") else "")


def _roles(item: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = item["metadata"].get("labels") or {}
    return ",".join(sorted(k[len(prefix) :] for k in labels if k.startswith(prefix))) or "<none>"


def _storage_phase(item: Json) -> str:
    going = item["metadata"].get("deletionTimestamp")
    return "Terminating" if going else _get(item, "status", "phase") or ""


_SHORT_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _access_modes(modes: Any) -> str:
    return ",".join(short for name, short in _SHORT_MODES.items() if name in (modes or ()))


def _claim_of(volume: Json) -> str:
    reference = _get(volume, "spec", "claimRef")
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else ""


def _attributes_class(item: Json) -> str:
    return _get(item, "spec", "volumeAttributesClassName") or "<unset>"


def _ports(item: Json) -> str:
    ports = _get(item, "spec", "ports") or []
    texts = [
        f"{p['port']}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p['port']}/{p.get('protocol', 'TCP')}"
        for p in ports
    ]
    return ",".join(texts) or "<none>"


def _external(item: Json) -> str:
    spec = item.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    return ",".join(spec.get("externalIPs") or ()) or "<none>"


def _deployment_ready(item: Json) -> str:
    return f"{_get(item, 'status', 'readyReplicas') or 0}/{_get(item, 'spec', 'replicas') or 0}"


def _containers(field: str) -> Any:
    def value(item: Json) -> str:
        containers = _get(item, "spec", "template", "spec", "containers") or []
        return ",".join(str(c.get(field, "")) for c in containers)

    return value


def _selector(item: Json) -> str:
    selector = _get(item, "spec", "selector") or {}
    labels = selector.get("matchLabels", selector)
    if not isinstance(labels, dict):
        return "<none>"
    return ",".join(f"{k}={v}" for k, v in labels.items() if isinstance(v, str)) or "<none>"


def _event_object(item: Json) -> str:
    about = item.get("involvedObject") or item.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(item: Json) -> Any:
    return (
        item.get("lastTimestamp")
        or item.get("deprecatedLastTimestamp")
        or _get(item, "series", "lastObservedTime")
        or item.get("eventTime")
        or item["metadata"].get("creationTimestamp")
    )


def _addresses(item: Json) -> str:
    found = [a for e in item.get("endpoints") or () for a in e.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _slice_ports(item: Json) -> str:
    return ",".join(str(p.get("port", "")) for p in item.get("ports") or ()) or "<unset>"


def _scale_target(hpa: Json) -> str:
    target = _get(hpa, "spec", "scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _metric_targets(hpa: Json) -> str:
    """``cpu: 70%/50%``, as kubectl's printer writes metrics of resources."""
    now = {
        metric["resource"]["name"]: metric["resource"].get("current") or {}
        for metric in _get(hpa, "status", "currentMetrics") or ()
        if metric.get("type") == "Resource"
    }
    shown = []
    for metric in _get(hpa, "spec", "metrics") or ():
        if metric.get("type") != "Resource":
            shown.append(f"<{metric.get('type', '').lower()} metric>")
            continue
        name, target = metric["resource"]["name"], metric["resource"].get("target") or {}
        field, unit = (
            ("averageValue", "")
            if "averageValue" in target
            else (
                "averageUtilization",
                "%",
            )
        )
        current = now.get(name, {}).get(field)
        left = "<unknown>" if current is None else f"{current}{unit}"
        shown.append(f"{name}: {left}/{target.get(field)}{unit}")
    return ", ".join(shown) or "<none>"


def _c(name: str, value: Any, kind: str = "string", priority: int = 0) -> Column:
    return Column(name, kind, value, priority)


_WORKLOAD_WIDE: Final = (
    _c("Containers", _containers("name"), priority=1),
    _c("Images", _containers("image"), priority=1),
    _c("Selector", _selector, priority=1),
)

COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "namespaces": (_c("Status", ".status.phase"), AGE),
    "nodes": (
        _c("Status", _node_status),
        _c("Roles", _roles),
        AGE,
        _c("Version", ".status.nodeInfo.kubeletVersion"),
        _c("Internal-IP", '.status.addresses[?(@.type=="InternalIP")].address', priority=1),
        _c("OS-Image", ".status.nodeInfo.osImage", priority=1),
        _c("Kernel-Version", ".status.nodeInfo.kernelVersion", priority=1),
        _c("Container-Runtime", ".status.nodeInfo.containerRuntimeVersion", priority=1),
    ),
    "pods": (
        _c("Ready", _pod_ready),
        _c("Status", _pod_status),
        _c("Restarts", _pod_restarts),
        AGE,
        _c("IP", lambda p: _get(p, "status", "podIP") or "<none>", priority=1),
        _c("Node", lambda p: _get(p, "spec", "nodeName") or "<none>", priority=1),
        _c("Nominated Node", lambda _: "<none>", priority=1),
        _c("Readiness Gates", lambda _: "<none>", priority=1),
    ),
    "services": (
        _c("Type", ".spec.type"),
        _c("Cluster-IP", lambda s: _get(s, "spec", "clusterIP") or "<none>"),
        _c("External-IP", _external),
        _c("Port(s)", _ports),
        AGE,
        _c("Selector", _selector, priority=1),
    ),
    "secrets": (
        _c("Type", ".type"),
        _c("Data", lambda s: len(s.get("data") or ()), "integer"),
        AGE,
    ),
    "configmaps": (
        _c("Data", lambda c: len(c.get("data") or ()) + len(c.get("binaryData") or ()), "integer"),
        AGE,
    ),
    "events": (
        Column("Last Seen", "string", _event_seen, format="age"),
        _c("Type", ".type"),
        _c("Reason", ".reason"),
        _c("Object", _event_object),
        _c("Message", lambda e: e.get("message") or e.get("note") or ""),
        _c("Source", lambda e: _get(e, "source", "component") or "", priority=1),
        _c("Count", lambda e: e.get("count") or 1, priority=1),
    ),
    "serviceaccounts": (AGE,),
    "deployments": (
        _c("Ready", _deployment_ready),
        _c("Up-to-date", _number("status", "updatedReplicas"), "integer"),
        _c("Available", _number("status", "availableReplicas"), "integer"),
        AGE,
        *_WORKLOAD_WIDE,
    ),
    "replicasets": (
        _c("Desired", _number("spec", "replicas"), "integer"),
        _c("Current", _number("status", "replicas"), "integer"),
        _c("Ready", _number("status", "readyReplicas"), "integer"),
        AGE,
        *_WORKLOAD_WIDE,
    ),
    "endpointslices": (
        _c("AddressType", ".addressType"),
        _c("Ports", _slice_ports),
        _c("Endpoints", _addresses),
        AGE,
    ),
    "horizontalpodautoscalers": (
        _c("Reference", _scale_target),
        _c("Targets", _metric_targets),
        _c("MinPods", lambda h: str(_get(h, "spec", "minReplicas") or "<unset>")),
        _c("MaxPods", ".spec.maxReplicas", "integer"),
        _c("Replicas", _number("status", "currentReplicas"), "integer"),
        AGE,
    ),
    "persistentvolumes": (
        _c("Capacity", lambda v: _get(v, "spec", "capacity", "storage") or "0"),
        _c("Access Modes", lambda v: _access_modes(_get(v, "spec", "accessModes"))),
        _c("Reclaim Policy", ".spec.persistentVolumeReclaimPolicy"),
        _c("Status", _storage_phase),
        _c("Claim", _claim_of),
        _c("StorageClass", class_of),
        _c("VolumeAttributesClass", _attributes_class),
        _c("Reason", lambda v: _get(v, "status", "reason") or ""),
        AGE,
        _c("VolumeMode", ".spec.volumeMode", priority=1),
    ),
    "persistentvolumeclaims": (
        _c("Status", _storage_phase),
        _c("Volume", lambda c: _get(c, "spec", "volumeName") or ""),
        _c("Capacity", lambda c: _get(c, "status", "capacity", "storage") or ""),
        _c("Access Modes", lambda c: _access_modes(_get(c, "status", "accessModes"))),
        _c("StorageClass", class_of),
        _c("VolumeAttributesClass", _attributes_class),
        AGE,
        _c("VolumeMode", ".spec.volumeMode", priority=1),
    ),
    "storageclasses": (
        _c("Provisioner", ".provisioner"),
        _c("ReclaimPolicy", ".reclaimPolicy"),
        _c("VolumeBindingMode", ".volumeBindingMode"),
        _c("AllowVolumeExpansion", lambda s: bool(s.get("allowVolumeExpansion")), "boolean"),
        AGE,
    ),
    "leases": (_c("Holder", ".spec.holderIdentity"), AGE),
    "customresourcedefinitions": (
        Column("Created At", "date", ".metadata.creationTimestamp", format="date"),
    ),
}
