"""The pod that serves a model: an init container that fetches the files, and the model server.

It keeps to Kubernetes' Pod Security Standard `restricted`. A user's pod template may change
anything of it (native.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from beamlit_operator.workloads.claimed import filled_from, served_from, volume_of
from beamlit_operator.workloads.files import ModelFiles, SecretVariable
from beamlit_operator.workloads.runtimes import Server

Json = dict[str, Any]

SERVING = "model"
FETCHING = "fetch"

_TMP = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 (a path in the pod)

_USER = 1000
"""The user that pods run as: not root, and the one MLServer's and Triton's images are made for."""

_STOP_DELAY_SECONDS = 3
"""How long a stopping server goes on serving, so that gateways hear of it before it refuses."""

PROGRESS_PORT_VARIABLE = "BEAMLIT_PROGRESS_PORT"
"""Tells the fetcher where to say how far it is, and the operator where to ask."""

_PROGRESS_PORT = "15820"
"""Not 15020, which Istio's sidecar takes in every pod."""

LAST_WORDS = "FallbackToLogsOnError"
"""A container that fails leaves the end of its log in the pod's status: the reason that the
deployment's condition and the waiting callers are told."""


def pod_spec(serving: Server, files: ModelFiles, *, image: str) -> Json:
    """The pod spec of a revision before the user's template and before placement.

    Args:
        serving: the model server.
        files: what it serves.
        image: this project's image, which fetches them.
    """
    volumes: list[Json] = [volume_of(files), {"name": "tmp", "emptyDir": {}}]
    mounts: list[Json] = [served_from(files), _TMP]
    if serving.memory_volume:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108
    return {
        "initContainers": [fetching_container(files, image=image)],
        "containers": [_serving_container(serving, mounts)],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": (
            serving.termination_seconds or serving.grace_seconds + _STOP_DELAY_SECONDS
        ),
        "securityContext": pod_security(),
        **({"imagePullSecrets": [{"name": files.pull_secret}]} if files.pull_secret else {}),
    }


def fetching_container(files: ModelFiles, *, image: str) -> Json:
    """The container that fetches the files into the volume `models`."""
    return {
        "name": FETCHING,
        "image": image,
        "command": ["beamlit"],
        "args": files.fetch_arguments(),
        "env": [
            {"name": name, "value": value}
            for name, value in {
                **files.plain_variables(),
                PROGRESS_PORT_VARIABLE: _PROGRESS_PORT,
            }.items()
        ]
        + [_secret_variable(each) for each in files.secrets],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": restricted(),
        "terminationMessagePolicy": LAST_WORDS,
        "volumeMounts": [filled_from(files), _TMP],
    }


def pod_security() -> Json:
    """What the Pod Security Standard `restricted` asks of a pod, with volumes of its group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _serving_container(serving: Server, mounts: Sequence[Json]) -> Json:
    ports = [{"name": "http", "containerPort": serving.port, "protocol": "TCP"}]
    if serving.metric_port not in (None, serving.port):
        ports.append({"name": "metrics", "containerPort": serving.metric_port, "protocol": "TCP"})
    # The root file system is read-only: what servers write goes to /tmp, and so does their home.
    home = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108
    given = {each["name"] for each in serving.env}
    container: Json = {
        "name": SERVING,
        "image": serving.image,
        "env": [*(each for each in home if each["name"] not in given), *map(dict, serving.env)],
        "ports": ports,
        # Both every second: a started server is found ready within one, which a caller waits for.
        "startupProbe": _startup_probe(serving),
        "readinessProbe": {
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
            **serving.readiness,
        },
        "terminationMessagePolicy": LAST_WORDS,
        "lifecycle": {"preStop": {"sleep": {"seconds": _STOP_DELAY_SECONDS}}},
        "securityContext": restricted(),
        "volumeMounts": list(mounts),
    }
    if serving.command:
        container["command"] = list(serving.command)
    if serving.args:
        container["args"] = list(serving.args)
    if serving.resources:
        container["resources"] = dict(serving.resources)
    return container


def _startup_probe(serving: Server) -> Json:
    if serving.startup is None:
        return {
            **_handler(serving.readiness),
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": serving.start_seconds,
        }
    own = _handler(serving.startup)
    return {**({} if own else _handler(serving.readiness)), **serving.startup}


def _handler(probe: Mapping[str, Any]) -> Json:
    return {name: probe[name] for name in ("httpGet", "tcpSocket", "exec", "grpc") if name in probe}


def restricted() -> Json:
    """What the Pod Security Standard `restricted` asks of a container, and a little more."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _secret_variable(variable: SecretVariable) -> Json:
    reference: Json = {"name": variable.secret, "key": variable.key}
    if variable.optional:
        reference["optional"] = True
    return {"name": variable.name, "valueFrom": {"secretKeyRef": reference}}
