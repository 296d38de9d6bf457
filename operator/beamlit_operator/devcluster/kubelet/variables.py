"""The environment of a container: values, references, expansion. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from beamlit_operator.devcluster.quantities import parse, rounded_up
from beamlit_operator.kube import Json

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_VARIABLE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigError(Exception):
    """The container cannot be configured yet; kubelet's CreateContainerConfigError."""


TokenKey = tuple[str, int]
"""Audience (empty: the API server's) and lifetime in seconds of a ServiceAccount token."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What references may point to. A Secret or ConfigMap that does not exist is absent."""

    pod: Json
    pod_ip: str
    host_ip: str
    secrets: Mapping[str, Json] = field(default_factory=dict)
    config_maps: Mapping[str, Json] = field(default_factory=dict)
    node_allocatable: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[TokenKey, str] = field(default_factory=dict)
    claimed: Mapping[str, Json] = field(default_factory=dict)
    """The PersistentVolume of each claim, by the claim's name."""


def referenced(container: Json) -> tuple[set[str], set[str]]:
    """Names of the Secrets and of the ConfigMaps a container's environment refers to."""
    secrets, config_maps = set(), set()
    for source in container.get("envFrom") or ():
        if source.get("secretRef"):
            secrets.add(source["secretRef"]["name"])
        if source.get("configMapRef"):
            config_maps.add(source["configMapRef"]["name"])
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        if value_from.get("secretKeyRef"):
            secrets.add(value_from["secretKeyRef"]["name"])
        if value_from.get("configMapKeyRef"):
            config_maps.add(value_from["configMapKeyRef"]["name"])
    return secrets, config_maps


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces ``$(NAME)``; ``$$`` is a dollar sign; an unknown name stays as written."""

    def one(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        return values.get(found[1], found[0])

    return _REFERENCE.sub(one, text)


def environment(container: Json, facts: Facts, image: Mapping[str, str]) -> dict[str, str]:
    """The image's variables, then ``envFrom``, then ``env``; later ones win.

    Raises:
        ConfigError: something that is not optional is missing.
    """
    values = dict(image)
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for name, value in _all_of(source, facts).items():
            if _VARIABLE_NAME.fullmatch(prefix + name):
                values[prefix + name] = value
    for variable in container.get("env") or ():
        if variable.get("valueFrom"):
            found = _from(container, variable["valueFrom"], facts)
            if found is not None:
                values[variable["name"]] = found
        else:
            values[variable["name"]] = expand(variable.get("value") or "", values)
    return values


def _all_of(source: Json, facts: Facts) -> dict[str, str]:
    if source.get("secretRef"):
        reference = source["secretRef"]
        item = _object("secret", reference, facts.secrets)
        return {} if item is None else secret_texts(item)
    reference = source.get("configMapRef") or {"name": "", "optional": True}
    item = _object("configmap", reference, facts.config_maps)
    return {} if item is None else dict(item.get("data") or {})


def _from(container: Json, source: Json, facts: Facts) -> str | None:
    if source.get("secretKeyRef"):
        reference = source["secretKeyRef"]
        item = _object("secret", reference, facts.secrets)
        return _key(reference, "Secret", facts, None if item is None else secret_texts(item))
    if source.get("configMapKeyRef"):
        reference = source["configMapKeyRef"]
        item = _object("configmap", reference, facts.config_maps)
        data = None if item is None else dict(item.get("data") or {})
        return _key(reference, "ConfigMap", facts, data)
    if source.get("fieldRef"):
        return field_value(source["fieldRef"]["fieldPath"], facts)
    if source.get("resourceFieldRef"):
        return resource_value(container, source["resourceFieldRef"], facts)
    raise ConfigError(f"env source {', '.join(source)} is not supported by the embedded cluster")


def _object(kind: str, reference: Json, known: Mapping[str, Json]) -> Json | None:
    item = known.get(reference["name"])
    if item is None and not reference.get("optional"):
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    return item


def _key(reference: Json, kind: str, facts: Facts, data: Mapping[str, str] | None) -> str | None:
    if data is None:
        return None
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        namespace = facts.pod["metadata"]["namespace"]
        raise ConfigError(
            f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}"
        )
    return data[reference["key"]]


def secret_bytes(secret: Json) -> dict[str, bytes]:
    """The decoded values of a Secret."""
    return {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}


def secret_texts(secret: Json) -> dict[str, str]:
    """The values of a Secret as environment variables see them."""
    return {name: value.decode(errors="replace") for name, value in secret_bytes(secret).items()}


def field_value(path: str, facts: Facts) -> str:
    """A field of the pod, as the downward API offers it.

    Raises:
        ConfigError: the field is not one of those.
    """
    metadata, spec = facts.pod["metadata"], facts.pod["spec"]
    found = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if found:
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = sorted((metadata.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f'{name}="{value}"' for name, value in items)
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(simple[path])


def resource_value(container: Json, reference: Json, facts: Facts) -> str:
    """A request or limit of a container; an absent limit is what the node has.

    Raises:
        ConfigError: the container or resource does not exist.
    """
    wanted = reference.get("containerName")
    if wanted and wanted != container.get("name"):
        spec = facts.pod["spec"]
        everyone = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        container = next((item for item in everyone if item["name"] == wanted), {})
        if not container:
            raise ConfigError(f"container {wanted} not found")
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    amount = (resources.get(kind) or {}).get(name)
    if amount is None and kind == "limits":
        amount = facts.node_allocatable.get(name)
    return str(rounded_up(parse(amount or "0"), reference.get("divisor") or 1))
