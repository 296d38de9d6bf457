"""What the fetching of models needs to get out of this cluster: a proxy, authorities of its own.

| the revision | its pods get |
|---|---|
| has no replicas | what the operator is told now |
| has replicas | what they were made with: another proxy restarts nobody |

None of it defines a revision, so that it may change without a new one. What a user's pod template
says of the same variables counts more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
AUTHORITIES_VARIABLE = "BEAMLIT_CA_FILE"
"""Tells the fetcher where its own authorities' certificates are, if they are there."""

_VOLUME = "beamlit-authorities"
_FOLDER = "/etc/beamlit/authorities"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The way out.

    Attributes:
        variables: of `PROXY_VARIABLES`, those that are set.
        authorities: the ConfigMap in each workspace that holds certificates; empty: there is none.
        key: its key.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    authorities: str = ""
    key: str = "ca.crt"


def with_way_out(pod: Mapping[str, Any], container: str, *, outgoing: Outgoing) -> Json:
    """The pod, whose container of that name is told the way out."""
    if not outgoing.variables and not outgoing.authorities:
        return dict(pod)
    variables = dict(outgoing.variables)
    mounts: list[Json] = []
    volumes: list[Json] = []
    if outgoing.authorities:
        variables[AUTHORITIES_VARIABLE] = f"{_FOLDER}/{outgoing.key}"
        mounts.append({"name": _VOLUME, "mountPath": _FOLDER, "readOnly": True})
        # Optional: a workspace without the ConfigMap still reaches public origins.
        config_map = {"name": outgoing.authorities, "optional": True, "defaultMode": 0o644}
        volumes.append({"name": _VOLUME, "configMap": config_map})

    def told(each: Mapping[str, Any]) -> Json:
        if each.get("name") != container:
            return dict(each)
        given = each.get("env") or []
        names = {variable.get("name") for variable in given}
        own = [{"name": n, "value": value} for n, value in variables.items() if n not in names]
        return {
            **each,
            "env": [*given, *own],
            "volumeMounts": [*(each.get("volumeMounts") or []), *mounts],
        }

    return {
        **pod,
        "initContainers": [told(each) for each in pod.get("initContainers") or []],
        "volumes": [*(pod.get("volumes") or []), *volumes],
    }


def way_out_of(pod: Mapping[str, Any], container: str) -> Outgoing:
    """What `with_way_out` told the container of a pod that is there."""
    variables: dict[str, str] = {}
    for each in pod.get("initContainers") or []:
        if each.get("name") == container:
            for variable in each.get("env") or []:
                variables[variable["name"]] = variable.get("value", "")
    path = variables.get(AUTHORITIES_VARIABLE, "")
    authorities = ""
    for volume in pod.get("volumes") or []:
        if volume.get("name") == _VOLUME:
            authorities = (volume.get("configMap") or {}).get("name", "")
    return Outgoing(
        variables={name: variables[name] for name in PROXY_VARIABLES if name in variables},
        authorities=authorities,
        key=path.rpartition("/")[2] or "ca.crt",
    )
