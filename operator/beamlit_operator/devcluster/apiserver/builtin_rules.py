"""What Kubernetes says about built-in types beyond their schema: defaults that depend on other
fields, and rules a manifest can break. Runs after the schema check, so that types are right.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver import admission_rules
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    not_supported,
    required,
)
from beamlit_operator.devcluster.apiserver.limit_rules import (
    default_limit_range,
    limit_range_causes,
    quota_causes,
)
from beamlit_operator.devcluster.apiserver.pod_rules import default_pod_spec, pod_spec_causes
from beamlit_operator.devcluster.apiserver.role_rules import (
    binding_causes,
    default_binding,
    role_causes,
)
from beamlit_operator.devcluster.apiserver.selectors import matches_selector
from beamlit_operator.devcluster.apiserver.volume_rules import (
    claim_causes,
    class_causes,
    default_claim,
    default_volume,
    stamp_phase,
    volume_causes,
)
from beamlit_operator.kube import Json

IMMUTABLE: Final = "field is immutable"


def set_builtin_defaults(resource: str, item: Json, *, creating: bool) -> None:
    """Fills in, in place, what depends on other fields."""
    function = _DEFAULTS.get(resource)
    if function is not None:
        function(item, creating)


def keep_allocated(resource: str, old: Json, new: Json) -> None:
    """Carries over, in place, what the cluster gave to ``old`` and an update leaves out."""
    if resource == "persistentvolumes":
        stamp_phase(old, new)
    if resource != "services":
        return
    before, after = old["spec"], new.get("spec")
    if isinstance(after, dict) and "ExternalName" not in (before.get("type"), after.get("type")):
        for name in ("clusterIP", "clusterIPs"):
            if before.get(name) and not after.get(name):
                after[name] = before[name]


def builtin_causes(resource: str, item: Json, old: Json | None) -> list[Cause]:
    """The rules that ``item`` breaks, on create (``old`` None) or update."""
    function = _RULES.get(resource)
    return list(function(item, old)) if function is not None else []


def _default_pod(item: Json, creating: bool) -> None:
    default_pod_spec(item.setdefault("spec", {}))
    if creating:
        item["status"] = {"phase": "Pending", "qosClass": quality_of_service(item["spec"])}
        if item["spec"].get("schedulingGates"):
            gated = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
            item["status"]["conditions"] = [gated]


def quality_of_service(spec: Json) -> str:
    """The pod's ``qosClass``."""
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    resources = [container.get("resources") or {} for container in containers]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    guaranteed = all(
        set(r.get("limits") or ()) >= {"cpu", "memory"}
        and all(r["limits"].get(k) == v for k, v in (r.get("requests") or {}).items())
        for r in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _default_workload(item: Json, creating: bool) -> None:
    spec = item["spec"]
    template = spec.get("template")
    if isinstance(template, dict) and "spec" in template:
        default_pod_spec(template["spec"])


def _default_deployment(item: Json, creating: bool) -> None:
    _default_workload(item, creating)
    strategy = item["spec"]["strategy"]
    if strategy.get("type") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")


def _default_service(item: Json, creating: bool) -> None:
    spec = item.setdefault("spec", {"type": "ClusterIP", "sessionAffinity": "None"})
    for port in spec.get("ports") or ():
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port")
    if spec.get("type") != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec.get("clusterIP") == "None":
            spec["clusterIPs"] = ["None"]
        families = spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault(
            "ipFamilyPolicy", "SingleStack" if len(families) == 1 else "PreferDualStack"
        )
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if creating:
        item["status"] = {"loadBalancer": {}}


def _default_secret(item: Json, creating: bool) -> None:
    """``stringData`` is written only: it becomes ``data``."""
    texts = item.pop("stringData", None)
    if texts:
        data = item.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(str(text).encode()).decode()


def _default_namespace(item: Json, creating: bool) -> None:
    labels = item["metadata"].setdefault("labels", {})
    name = item["metadata"].get("name")
    if name:
        labels["kubernetes.io/metadata.name"] = name
    if creating:
        item["spec"] = {"finalizers": ["kubernetes"]}
        item["status"] = {"phase": "Active"}


def _default_node(item: Json, creating: bool) -> None:
    spec = item.setdefault("spec", {})
    if creating and spec.get("unschedulable"):
        spec.setdefault("taints", []).append(
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        )


def _default_crd(item: Json, creating: bool) -> None:
    spec = item["spec"]
    names = spec.get("names") or {}
    names.setdefault("singular", str(names.get("kind", "")).lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    spec.setdefault("conversion", {"strategy": "None"})


def _default_webhooks(item: Json, creating: bool) -> None:
    for webhook in item.get("webhooks") or ():
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")


_DEFAULTS: Final[dict[str, Callable[[Json, bool], None]]] = {
    "pods": _default_pod,
    "deployments.apps": _default_deployment,
    "replicasets.apps": _default_workload,
    "services": _default_service,
    "secrets": _default_secret,
    "namespaces": _default_namespace,
    "limitranges": lambda item, creating: default_limit_range(item),
    "rolebindings.rbac.authorization.k8s.io": lambda item, creating: default_binding(item),
    "clusterrolebindings.rbac.authorization.k8s.io": lambda item, creating: default_binding(item),
    "nodes": _default_node,
    "persistentvolumeclaims": default_claim,
    "persistentvolumes": default_volume,
    "customresourcedefinitions.apiextensions.k8s.io": _default_crd,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _default_webhooks,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _default_webhooks,
}


def _immutable(item: Json, old: Json | None, *path: str) -> Iterator[Cause]:
    if old is not None:
        before, after = _at(old, path), _at(item, path)
        if before != after:
            yield bad_value(".".join(path), after, IMMUTABLE)


def _at(item: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        item = item.get(step) if isinstance(item, dict) else None
    return item


def _pod_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    if old is None:
        yield from pod_spec_causes(item["spec"], "spec")
        return
    before, after = dict(old["spec"]), dict(item["spec"])
    if not before.get("nodeName"):
        # Binding; a real API server has a subresource of its own for it.
        before.pop("nodeName", None)
        after.pop("nodeName", None)
    gates = [gate["name"] for gate in before.pop("schedulingGates", None) or ()]
    for index, gate in enumerate(after.pop("schedulingGates", None) or ()):
        if gate["name"] not in gates:
            yield forbidden_field(
                f"spec.schedulingGates[{index}]",
                f"only deletion is allowed, but found new scheduling gate '{gate['name']}'",
            )
    for spec in (before, after):
        for name in ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations"):
            spec.pop(name, None)
        for kind in ("containers", "initContainers"):
            if kind in spec:
                spec[kind] = [{**c, "image": "", "resources": {}} for c in spec[kind]]
    if before != after:
        yield forbidden_field(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
            "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
            "(allow it to be set to 1 if it was previously negative)",
        )


def _workload_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    spec = item["spec"]
    yield from _not_negative(spec, "replicas", "revisionHistoryLimit", "minReadySeconds")
    selector = spec.get("selector")
    template = spec.get("template") or {}
    if not isinstance(selector, dict) or not any(selector.values()):
        yield bad_value("spec.selector", {}, "empty selector is invalid for deployment")
    elif not matches_selector(selector, (template.get("metadata") or {}).get("labels") or {}):
        yield bad_value(
            "spec.template.metadata.labels",
            (template.get("metadata") or {}).get("labels") or {},
            "`selector` does not match template `labels`",
        )
    yield from _immutable(item, old, "spec", "selector")
    if "spec" not in template:
        yield required("spec.template.spec")
        return
    if old is None or old["spec"].get("template") != template:
        yield from pod_spec_causes(template["spec"], "spec.template.spec")
        if template["spec"].get("restartPolicy") != "Always":
            yield not_supported(
                "spec.template.spec.restartPolicy",
                template["spec"].get("restartPolicy"),
                ["Always"],
            )


def _deployment_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    yield from _workload_causes(item, old)
    strategy = item["spec"]["strategy"]
    kind = strategy.get("type")
    if kind not in ("Recreate", "RollingUpdate"):
        yield not_supported("spec.strategy.type", kind, ["Recreate", "RollingUpdate"])
    if kind == "Recreate" and strategy.get("rollingUpdate"):
        yield forbidden_field(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )
    rolling = strategy.get("rollingUpdate") or {}
    values = [str(rolling.get(name, "")) for name in ("maxUnavailable", "maxSurge")]
    if kind == "RollingUpdate" and all(v in ("0", "0%") for v in values):
        yield bad_value(
            "spec.strategy.rollingUpdate.maxUnavailable",
            rolling.get("maxUnavailable"),
            "may not be 0 when `maxSurge` is 0",
        )


def _not_negative(spec: Json, *names: str) -> Iterator[Cause]:
    for name in names:
        value = spec.get(name)
        if isinstance(value, int) and value < 0:
            yield bad_value(f"spec.{name}", value, "must be greater than or equal to 0")


_SERVICE_TYPES: Final = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]


def _service_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    spec = item["spec"]
    kind = spec.get("type")
    ports = spec.get("ports") or []
    if kind not in _SERVICE_TYPES:
        yield not_supported("spec.type", kind, _SERVICE_TYPES)
    if kind == "ExternalName":
        if not spec.get("externalName"):
            yield required("spec.externalName")
    elif not ports and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    before = old["spec"] if old is not None else {}
    address = before.get("clusterIP")
    if (
        address
        and "ExternalName" not in (kind, before.get("type"))
        and spec.get("clusterIP") != address
    ):
        shown = json.dumps([spec.get("clusterIP")])
        why = f"Invalid value: {shown}: may not change once set"
        yield Cause("FieldValueInvalid", why, "spec.clusterIPs[0]")
    seen: set[Any] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        if not 1 <= port.get("port", 0) <= 65535:
            yield bad_value(
                f"{path}.port", port.get("port", 0), "must be between 1 and 65535, inclusive"
            )
        if len(ports) > 1 and not port.get("name"):
            yield required(f"{path}.name")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield not_supported(f"{path}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"])
        name = port.get("name", "")
        if name and name in seen:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name")
        seen.add(name)


def _secret_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    yield from _immutable(item, old, "type")
    yield from _data_causes(item, old)
    for key, text in (item.get("data") or {}).items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            yield bad_value(f"data[{key}]", "<secret contents redacted>", "must be base64")


def _data_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    if old is not None and old.get("immutable"):
        if not item.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")
        for name in ("data", "binaryData"):
            if old.get(name) != item.get(name):
                yield forbidden_field(name, "field is immutable when `immutable` is set")
    size = 0
    for name in ("data", "binaryData"):
        for key, text in (item.get(name) or {}).items():
            size += len(text)
            if not key or not all(c.isalnum() or c in "-_." for c in key) or len(key) > 253:
                yield bad_value(
                    f"{name}[{key}]",
                    key,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                )
    if size > 1024 * 1024 * 4 // 3:
        yield Cause("FieldValueTooLong", "Too long: may not be more than 1048576 bytes", "data")


def _lease_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    duration = (item.get("spec") or {}).get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        yield bad_value("spec.leaseDurationSeconds", duration, "must be greater than 0")


def _event_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """Events of cluster-scoped objects live in ``default``."""
    concerned = (item.get("involvedObject") or {}).get("namespace") or ""
    if concerned != item["metadata"].get("namespace") and (
        concerned or item["metadata"].get("namespace") != "default"
    ):
        yield bad_value("involvedObject.namespace", concerned, "does not match event.namespace")


def _slice_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    kinds = ["IPv4", "IPv6", "FQDN"]
    if item.get("addressType") not in kinds:
        yield not_supported("addressType", item.get("addressType"), kinds)
    yield from _immutable(item, old, "addressType")


def _role_binding_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    yield from binding_causes(item)
    if old is not None and old.get("roleRef") != item.get("roleRef"):
        yield bad_value("roleRef", item.get("roleRef"), "cannot change roleRef")


_RULES: Final[dict[str, Callable[[Json, Json | None], Iterator[Cause]]]] = {
    "pods": _pod_causes,
    "deployments.apps": _deployment_causes,
    "replicasets.apps": _workload_causes,
    "services": _service_causes,
    "secrets": _secret_causes,
    "configmaps": _data_causes,
    "events": _event_causes,
    "limitranges": lambda item, old: limit_range_causes(item),
    "resourcequotas": quota_causes,
    "roles.rbac.authorization.k8s.io": lambda item, old: role_causes(item),
    "clusterroles.rbac.authorization.k8s.io": lambda item, old: role_causes(item),
    "persistentvolumeclaims": claim_causes,
    "persistentvolumes": volume_causes,
    "storageclasses.storage.k8s.io": class_causes,
    "leases.coordination.k8s.io": _lease_causes,
    "endpointslices.discovery.k8s.io": _slice_causes,
    "validatingadmissionpolicies.admissionregistration.k8s.io": lambda item, old: (
        admission_rules.policy_causes(item)
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": lambda item, old: (
        admission_rules.binding_causes(item)
    ),
    "rolebindings.rbac.authorization.k8s.io": _role_binding_causes,
    "clusterrolebindings.rbac.authorization.k8s.io": _role_binding_causes,
}
