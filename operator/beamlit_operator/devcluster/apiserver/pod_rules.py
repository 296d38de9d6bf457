"""Pod specs, alone or in a template: dependent defaults and the rules a manifest can break."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.cel_library import parse_quantity
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    not_supported,
    required,
)
from beamlit_operator.devcluster.apiserver.volume_rules import no_backsteps
from beamlit_operator.kube import Json

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")


def default_pod_spec(spec: Json) -> None:
    """Fills in, in place, what depends on other fields."""
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or ():
            _default_container(container)
    for volume in spec.get("volumes") or ():
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}


def _default_container(container: Json) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(container.get("image") or "")
    resources: Json = container.get("resources") or {}
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)
    for kind in ("limits", "requests"):
        values: Json = resources.get(kind) or {}
        for name, value in values.items():
            # Quantities travel as text, whatever a manifest wrote.
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values[name] = str(value)


def _pull_policy(image: str) -> str:
    if "@" in image:
        return "IfNotPresent"
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def pod_spec_causes(spec: Json, path: str) -> Iterator[Cause]:
    """What is wrong with ``spec``, found at ``path``."""
    containers = spec.get("containers") or []
    if not containers:
        yield required(f"{path}.containers")
    policies = ["Always", "OnFailure", "Never"]
    if spec.get("restartPolicy") not in policies:
        yield not_supported(f"{path}.restartPolicy", spec.get("restartPolicy"), policies)
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        yield bad_value(
            f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"
        )
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        where = f"{path}.volumes[{index}]"
        name = volume.get("name", "")
        yield from _name_causes(name, f"{where}.name", volumes)
        if len([key for key in volume if key != "name"]) != 1:
            yield required(where, "must specify exactly one volume type")
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and not claim.get("claimName"):
            yield required(f"{where}.persistentVolumeClaim.claimName")
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _container_causes(container, f"{path}.{kind}[{index}]", names, volumes)


def _name_causes(name: str, path: str, seen: set[str]) -> Iterator[Cause]:
    if not name:
        yield required(path)
    elif not _LABEL.fullmatch(name):
        yield bad_value(path, name, "must be a lowercase RFC 1123 label of at most 63 characters")
    elif name in seen:
        yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', path)
    seen.add(name)


def _container_causes(
    container: Json, path: str, names: set[str], volumes: set[str]
) -> Iterator[Cause]:
    yield from _name_causes(container.get("name", ""), f"{path}.name", names)
    if not container.get("image"):
        yield required(f"{path}.image")
    pull = ["Always", "IfNotPresent", "Never"]
    if container.get("imagePullPolicy") not in pull:
        yield not_supported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), pull)
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort", 0)
        if not 1 <= number <= 65535:
            yield bad_value(
                f"{path}.ports[{index}].containerPort",
                number,
                "must be between 1 and 65535, inclusive",
            )
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield not_supported(
                f"{path}.ports[{index}].protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"]
            )
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{path}.env[{index}].name")
        if variable.get("value") and variable.get("valueFrom"):
            yield bad_value(
                f"{path}.env[{index}].valueFrom",
                "",
                "may not be specified when `value` is not empty",
            )
    yield from _resource_causes(container.get("resources") or {}, f"{path}.resources")
    yield from _mount_causes(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            yield from _probe_causes(container[name], f"{path}.{name}", name)


def _mount_causes(mounts: Sequence[Json], path: str, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where, name = f"{path}[{index}]", mount.get("name", "")
        if name not in volumes:
            yield Cause("FieldValueNotFound", f'Not found: "{name}"', f"{where}.name")
        target = mount.get("mountPath") or ""
        if not target:
            yield required(f"{where}.mountPath")
        if target in seen:
            yield bad_value(f"{where}.mountPath", target, "must be unique")
        seen.add(target)
        # Kubernetes names these two without the index.
        for kind in ("subPath", "subPathExpr"):
            part = mount.get(kind) or ""
            if part.startswith("/"):
                yield bad_value(f"{path}.{kind}", part, "must be a relative path")
            yield from no_backsteps(part, f"{path}.{kind}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            why = "subPathExpr and subPath are mutually exclusive"
            yield bad_value(f"{where}.subPathExpr", mount["subPathExpr"], why)


def _resource_causes(resources: Json, path: str) -> Iterator[Cause]:
    """Requests must fit the limits; what cannot be shared must equal them."""
    limits: Json = resources.get("limits") or {}
    for name, request in (resources.get("requests") or {}).items():
        whole = name.startswith("hugepages-") or (
            "/" in name and not name.split("/")[0].endswith("kubernetes.io")
        )
        if name not in limits:
            if whole:
                yield required(
                    f"{path}.limits", "Limit must be set for non overcommitable resources"
                )
            continue
        wanted, limit = parse_quantity(str(request)), parse_quantity(str(limits[name]))
        if whole and wanted != limit:
            why = f"must be equal to {name} limit of {limits[name]}"
            yield bad_value(f"{path}.requests", str(request), why)
        elif wanted > limit:
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            yield bad_value(f"{path}.requests", str(request), why)


def _probe_causes(probe: Json, path: str, kind: str) -> Iterator[Cause]:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if len(handlers) != 1:
        yield required(path, "must specify exactly one handler type")
    for name in ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"):
        value: Any = probe.get(name)
        if isinstance(value, int) and value < 1:
            yield bad_value(f"{path}.{name}", value, "must be greater than 0")
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield bad_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
