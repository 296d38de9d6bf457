"""How a fetching container proves who it is, whom it trusts, and which state of a store it reads.

None of it is what a model runs, so none of it defines a revision:

| the revision has replicas, and | its pods get                                                    |
|--------------------------------|-----------------------------------------------------------------|
| none at all                    | what the Model says now                                         |
| one is ready                   | what they were made with: another role restarts nobody          |
| none is ready                  | what the Model says now, so that a start that fails heals; only |
|                                | the time as of which it reads a store stays: a later one with   |
|                                | the same files must not begin a fetch anew                      |

Only the fetching container gets any of it. Of the ServiceAccount that `webIdentity` names, a pod
has nothing but a token for the store, mounted there; Amazon's webhook, which would give one to each
container, is told to leave them all alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from beamlit_operator.workloads.placing import has_replicas

Json = dict[str, Any]

AUTHORITIES_VARIABLE = "BEAMLIT_ORIGIN_CA_FILE"
TOKEN_VARIABLE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 (a variable's name)
ROLE_VARIABLE = "AWS_ROLE_ARN"
SESSION_NAME_VARIABLE = "AWS_ROLE_SESSION_NAME"
STS_VARIABLE = "AWS_ENDPOINT_URL_STS"
NODE_VARIABLE = "BEAMLIT_NODE_CREDENTIALS"

SKIP_CONTAINERS = "eks.amazonaws.com/skip-containers"
"""Annotation of a pod: the containers that get no token from Amazon's pod identity webhook
(github.com/aws/amazon-eks-pod-identity-webhook, README)."""

_PLAIN_VARIABLES = (ROLE_VARIABLE, SESSION_NAME_VARIABLE, STS_VARIABLE, NODE_VARIABLE)
_AS_OF = "--as-of"
_FLAGS = ("--addressing-style", "--version-id", _AS_OF)

_AUTHORITIES_VOLUME = "beamlit-origin-authorities"
_AUTHORITIES_FOLDER = "/etc/beamlit/origin"
_TOKEN_VOLUME = "beamlit-identity"  # noqa: S105 (a volume's name)
_TOKEN_FOLDER = "/var/run/secrets/beamlit.com/identity"  # noqa: S105 (a path in the pod)
_TOKEN_SECONDS = 3600
"""How long a token lives; the kubelet renews it before."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a fetching container gets.

    Attributes:
        authorities: ConfigMap and key with certificates that are trusted for the origin.
        service_account: the ServiceAccount of the pod; empty: the workspace's default one.
        audience: whom its token is for; empty: there is none.
        variables: what else says who it is; no secret is among them.
        arguments: flags and their values.
    """

    authorities: tuple[str, str] | None = None
    service_account: str = ""
    audience: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()


def access_problem(access: Access, pod: Mapping[str, Any]) -> str | None:
    """Why a pod's template and the origin cannot both have their way, if so."""
    named = pod.get("serviceAccountName") or pod.get("serviceAccount")
    if not access.service_account or named in (None, "", access.service_account):
        return None
    return (
        f"spec.podTemplate.spec.serviceAccountName is {named}, but the Model's origin is read by "
        f"ServiceAccount {access.service_account} (webIdentity), and a pod has one: remove it from "
        f"the template, or name {named} in webIdentity too"
    )


def with_access(pod: Mapping[str, Any], container: str, *, access: Access) -> Json:
    """The pod, whose container of that name is given the access."""
    if access == Access():
        return dict(pod)
    variables = dict(access.variables)
    mounts: list[Json] = []
    volumes: list[Json] = []
    if access.authorities is not None:
        name, key = access.authorities
        variables[AUTHORITIES_VARIABLE] = f"{_AUTHORITIES_FOLDER}/ca.crt"
        mounts.append(_mount(_AUTHORITIES_VOLUME, _AUTHORITIES_FOLDER))
        items = [{"key": key, "path": "ca.crt"}]
        config_map = {"name": name, "items": items, "defaultMode": 0o644}
        volumes.append({"name": _AUTHORITIES_VOLUME, "configMap": config_map})
    if access.audience:
        variables[TOKEN_VARIABLE] = f"{_TOKEN_FOLDER}/token"
        mounts.append(_mount(_TOKEN_VOLUME, _TOKEN_FOLDER))
        token = {
            "audience": access.audience,
            "expirationSeconds": _TOKEN_SECONDS,
            "path": "token",
        }
        projected = {"sources": [{"serviceAccountToken": token}]}
        volumes.append({"name": _TOKEN_VOLUME, "projected": projected})

    def given(each: Mapping[str, Any]) -> Json:
        if each.get("name") != container:
            return dict(each)
        env = each.get("env") or []
        names = {variable.get("name") for variable in env}
        own = [{"name": n, "value": value} for n, value in variables.items() if n not in names]
        arguments = [word for pair in access.arguments for word in pair]
        return {
            **each,
            **({"args": [*(each.get("args") or []), *arguments]} if arguments else {}),
            "env": [*env, *own],
            "volumeMounts": [*(each.get("volumeMounts") or []), *mounts],
        }

    account = {"serviceAccountName": access.service_account} if access.service_account else {}
    return {
        **pod,
        **account,
        "initContainers": [given(each) for each in pod.get("initContainers") or []],
        "volumes": [*(pod.get("volumes") or []), *volumes],
    }


def access_annotations(pod: Mapping[str, Any], access: Access) -> dict[str, str]:
    """The annotations that the pod needs."""
    if not access.audience:
        return {}
    containers = [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]
    return {SKIP_CONTAINERS: ",".join(str(each.get("name")) for each in containers)}


def kept(access: Access, live: Mapping[str, Any] | None, container: str) -> Access:
    """What the pods of a revision get, by the table above."""
    if live is None or not has_replicas(live):
        return access
    before = access_of(live["spec"]["template"]["spec"], container)
    if (live.get("status") or {}).get("readyReplicas"):
        return before
    times = dict(before.arguments)
    if _AS_OF not in times:
        return access
    return replace(
        access,
        arguments=tuple(
            (name, times[_AS_OF] if name == _AS_OF else value) for name, value in access.arguments
        ),
    )


def access_of(pod: Mapping[str, Any], container: str) -> Access:
    """What `with_access` gave the container of a pod that is there."""
    variables: dict[str, str] = {}
    words: list[str] = []
    for each in pod.get("initContainers") or []:
        if each.get("name") == container:
            words = list(each.get("args") or [])
            for variable in each.get("env") or []:
                variables[variable["name"]] = variable.get("value", "")
    authorities, audience = None, ""
    for volume in pod.get("volumes") or []:
        if volume.get("name") == _AUTHORITIES_VOLUME:
            source = volume["configMap"]
            authorities = (source["name"], source["items"][0]["key"])
        if volume.get("name") == _TOKEN_VOLUME:
            audience = volume["projected"]["sources"][0]["serviceAccountToken"]["audience"]
    return Access(
        authorities=authorities,
        audience=audience,
        service_account=str(pod.get("serviceAccountName") or "") if audience else "",
        variables=tuple((n, variables[n]) for n in _PLAIN_VARIABLES if n in variables),
        arguments=tuple((word, value) for word, value in pairwise(words) if word in _FLAGS),
    )


def _mount(volume: str, folder: str) -> Json:
    return {"name": volume, "mountPath": folder, "readOnly": True}
