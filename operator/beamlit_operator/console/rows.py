"""What the page is told about each object: rows, made of what is public in specs and statuses.

Pure. Only fields named here leave: nothing of metadata but the name, and no Secret is ever read.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from beamlit_operator.api import Condition, Environment, Model, ModelDeployment
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.api.model import ResolvedOrigin
from beamlit_operator.api.modeldeployment import EffectiveAspect
from beamlit_operator.api.rollout import RolloutStatus
from beamlit_operator.api.summary import counted, facts_line, size

Json = dict[str, Any]


def row_of(item: Json) -> Json | None:
    """The row of an object of ours; None for one that cannot be read."""
    try:
        match item.get("kind"):
            case "Model":
                return _model(Model.model_validate(item))
            case "ModelDeployment":
                return _deployment(ModelDeployment.model_validate(item))
            case "Environment":
                return _environment(Environment.model_validate(item))
            case _:
                return None
    except ValidationError:
        return None


def _model(model: Model) -> Json:
    origin = model.status.origin
    return {
        "kind": "Model",
        "workspace": model.metadata.namespace,
        "name": model.metadata.name,
        "displayName": model.spec.display_name,
        "phase": model.status.phase,
        "origin": origin.uri if origin else None,
        "revision": origin.revision if origin else None,
        "files": _files(model),
        "ready": _ready(model.status.conditions),
    }


def _files(model: Model) -> list[str]:
    """What is known of the files, a line each."""
    status = model.status
    lines = [
        status.origin and status.origin.files and _held(status.origin),
        status.facts and facts_line(status.facts),
        status.gpu_memory_bytes is not None
        and f"needs {size(status.gpu_memory_bytes)} of GPU memory at least",
        status.prefetch and f"prefetch {status.prefetch.phase}: {status.prefetch.message}",
    ]
    return [line for line in lines if line]


def _held(origin: ResolvedOrigin) -> str:
    return f"{counted(origin.files, 'file')}, {size(origin.bytes)}"


def _deployment(deployment: ModelDeployment) -> Json:
    status = deployment.status
    policy = status.effective_policy
    return {
        "kind": "ModelDeployment",
        "workspace": deployment.metadata.namespace,
        "name": deployment.metadata.name,
        "model": deployment.spec.model,
        "environment": deployment.spec.environment,
        "phase": status.phase,
        "replicas": status.replicas or 0,
        "readyReplicas": status.ready_replicas or 0,
        "url": status.url,
        "ready": _ready(status.conditions),
        "revisions": [
            {
                "name": revision.name,
                "version": revision.version,
                "replicas": revision.replicas,
                "readyReplicas": revision.ready_replicas,
                "traffic": revision.traffic,
                "role": revision.role,
            }
            for revision in status.revisions
        ],
        "rollout": _rollout(status.rollout),
        "policy": {
            "location": _aspect(policy.location if policy else None),
            "flavor": _aspect(policy.flavor if policy else None),
        },
    }


def _environment(environment: Environment) -> Json:
    return {
        "kind": "Environment",
        "workspace": environment.metadata.namespace,
        "name": environment.metadata.name,
        "displayName": environment.spec.display_name,
        "policies": [
            {"name": policy.name, "mandatory": policy.mandatory}
            for policy in environment.spec.policies
        ],
    }


def _rollout(rollout: RolloutStatus | None) -> Json | None:
    if rollout is None:
        return None
    seen = rollout.analysis
    return {
        "phase": rollout.phase,
        "stable": rollout.stable,
        "canary": rollout.canary,
        "step": rollout.step,
        "steps": rollout.steps,
        "weight": rollout.weight,
        "since": rollout.since.isoformat(),
        "message": rollout.message,
        "analysis": None
        if seen is None
        else {
            "requests": seen.requests,
            "errorPercent": seen.error_percent,
            "p95Milliseconds": seen.p95_milliseconds,
            "stableP95Milliseconds": seen.stable_p95_milliseconds,
            "message": seen.message,
        },
    }


def _ready(conditions: tuple[Condition, ...]) -> Json:
    ready = find(conditions, READY)
    if ready is None:
        return {"status": "Unknown", "reason": "", "message": "no status yet"}
    return {"status": ready.status, "reason": ready.reason, "message": ready.message}


def _aspect(aspect: EffectiveAspect | None) -> Json | None:
    if aspect is None:
        return None
    return {
        "allowed": None if aspect.allowed is None else list(aspect.allowed),
        "policies": [
            {
                "name": trace.name,
                "level": trace.level,
                "mandatory": trace.mandatory,
                "effect": trace.effect,
                "because": trace.because,
            }
            for trace in aspect.policies
        ],
    }
