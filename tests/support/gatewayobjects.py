"""The objects a gateway reads, built short for tests."""

from __future__ import annotations

from collections.abc import Sequence

from beamlit_operator.kube import Json

CREATED = "2025-01-01T00:00:00Z"


def model_deployment(
    name: str,
    *,
    workspace: str = "demo",
    model: str = "iris",
    environment: str = "production",
    traffic: dict[str, int] | None = None,
    replicas: int = 0,
    enabled: bool = True,
    problem: tuple[str, str] | None = None,
    since: str = CREATED,
    generation: int = 1,
    created: str = CREATED,
    endpoint: Json | None = None,
    app_protocol: str | None = None,
    stable: str | None = None,
    sticky: Json | None = None,
) -> Json:
    """A ModelDeployment; ``problem`` is the reason and message of ``Ready=False``, ``stable`` the
    revision that a canary rollout moves callers away from."""
    ready: Json = {"type": "Ready", "status": "True", "reason": "Idle", "message": ""}
    if problem is not None:
        ready = {"type": "Ready", "status": "False", "reason": problem[0], "message": problem[1]}
    ready["lastTransitionTime"] = since
    return {
        "metadata": {
            "namespace": workspace,
            "name": name,
            "generation": generation,
            "creationTimestamp": created,
        },
        "spec": {
            "model": model,
            "environment": environment,
            "enabled": enabled,
            **({"endpoint": endpoint} if endpoint is not None else {}),
            **({"rollout": {"sticky": sticky}} if sticky is not None else {}),
        },
        "status": {
            "conditions": [ready],
            "revisions": [
                {
                    "name": revision,
                    "version": "v1",
                    "replicas": replicas,
                    "traffic": share,
                    **({"appProtocol": app_protocol} if app_protocol else {}),
                    **({"role": "stable" if revision == stable else "canary"} if stable else {}),
                }
                for revision, share in (traffic or {}).items()
            ],
        },
    }


def endpoint_slice(
    revision: str,
    pods: Sequence[tuple[str, int]],
    *,
    deployment: str,
    workspace: str = "demo",
    suffix: str = "a",
) -> Json:
    """The EndpointSlice of a revision with these ready pods."""
    return {
        "metadata": {
            "namespace": workspace,
            "name": f"{revision}-{suffix}",
            "labels": {
                "beamlit.com/model-deployment": deployment,
                "beamlit.com/revision": revision,
                "kubernetes.io/service-name": revision,
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": pods[0][1] if pods else 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [host], "conditions": {"ready": True, "serving": True}}
            for host, _ in pods
        ],
    }
