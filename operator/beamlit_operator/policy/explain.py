"""The effective policy told to people and programs: plain lines, JSON and status.

One source, the result of `effective_policy`; nothing is decided here.
"""

from collections.abc import Iterator
from typing import Any

from beamlit_operator.api import ModelDeployment
from beamlit_operator.api.modeldeployment import (
    EffectiveAspect,
    EffectivePolicyStatus,
    PolicyTrace,
)
from beamlit_operator.policy.algebra import written
from beamlit_operator.policy.because import listed
from beamlit_operator.policy.effective import Aspect, EffectivePolicy

_BECAUSE = 1024
"""Characters of a reason that the status keeps; its schema's limit."""


def explain_json(deployment: ModelDeployment, result: EffectivePolicy) -> dict[str, Any]:
    """The explanation as decoded JSON; `allowed` is None (null) for anything."""
    return {
        "deployment": deployment.metadata.name,
        "environment": deployment.spec.environment,
        "location": _aspect_json(result.location),
        "flavor": _aspect_json(result.flavor),
    }


def _aspect_json(aspect: Aspect) -> dict[str, Any]:
    return {
        "allowed": None if aspect.allowed is None else written(aspect.allowed),
        "policies": [
            {
                "name": row.name,
                "level": row.level,
                "mandatory": row.mandatory,
                "effect": str(row.effect),
                "because": row.because,
            }
            for row in aspect.policies
        ],
    }


def explain_lines(deployment: ModelDeployment, result: EffectivePolicy) -> list[str]:
    """The explanation line by line."""
    return list(_lines(deployment, result))


def _lines(deployment: ModelDeployment, result: EffectivePolicy) -> Iterator[str]:
    yield f"{deployment.metadata.name} in environment {deployment.spec.environment}"
    for title, aspect in (("location", result.location), ("flavor", result.flavor)):
        yield f"{title}: {listed(aspect.allowed)}"
        for row in aspect.policies:
            level = "mandatory" if row.mandatory else row.level
            yield f"  {row.effect}: {row.name} ({level}): {row.because}"
    for problem in result.unresolved:
        yield f"unresolved: {problem.message}"
    for attempt in result.ignored:
        yield f"ignored: {attempt.message}"
    for note in result.notes:
        yield f"note: {note}"


def policy_status(result: EffectivePolicy) -> EffectivePolicyStatus:
    """The result as `status.effectivePolicy`."""
    return EffectivePolicyStatus(
        location=_aspect_status(result.location), flavor=_aspect_status(result.flavor)
    )


def _aspect_status(aspect: Aspect) -> EffectiveAspect:
    return EffectiveAspect(
        allowed=None if aspect.allowed is None else tuple(written(aspect.allowed)),
        policies=tuple(
            PolicyTrace(
                name=row.name,
                level=row.level,
                mandatory=row.mandatory,
                effect=row.effect.value,
                because=row.because[:_BECAUSE],
            )
            for row in aspect.policies
        ),
    )
