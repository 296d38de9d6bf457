"""What an order about a rollout means, and when it makes no sense. Pure.

An order is an annotation that names the revision it is for. A rollout is *under way* unless its
phase says that it has ended badly; *held* while `rollout-pause` names its revision; it *waits* when
it is Paused and not held: for an approval, or for a person's verdict.

| order          | not under way | waits            | held             | else                      |
|----------------|---------------|------------------|------------------|---------------------------|
| promote        | refused       | leave this step  | refused: resume  | refused: goes by itself   |
| promote --full | refused       | all traffic      | the same, resume | all traffic               |
| pause          | refused       | go no further    | refused: it is   | go no further             |
| resume         | refused       | refused: promote | not held         | refused: it is not paused |
| abort          | refused       | back to stable   | back to stable   | back to stable            |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beamlit_operator.api import ModelDeployment, labels
from beamlit_operator.api.rollout import RolloutStatus

Verb = Literal["promote", "promote --full", "pause", "resume", "abort"]

ENDED = {
    "Aborted": "was aborted",
    "RolledBack": "was rolled back by its analysis",
    "Failed": "failed to start",
}


class OrderRefusedError(Exception):
    """The order makes no sense as things are; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The annotations to set, and to take away (None)."""

    annotations: dict[str, str | None]
    told: str
    """What was ordered, for people."""
    stale: tuple[str, ...] = field(default=())
    """Annotations that must be away for a moment first: as they are, they do not count."""


def orders(deployment: ModelDeployment, verb: Verb) -> Orders:
    """The annotations that give the order.

    Raises:
        OrderRefusedError: it makes no sense now.
    """
    name, rollout = deployment.metadata.name, deployment.status.rollout
    current = under_way(deployment)
    if current is None:
        if rollout is None:
            raise OrderRefusedError(f"{name} has no rollout under way")
        raise OrderRefusedError(
            f"the rollout of {rollout.canary} {ENDED.get(rollout.phase, 'ended')} and is not under "
            f"way: `beamlit rollout undo {name}` puts the spec back, any other edit tries again"
        )
    canary = current.canary
    annotations = _decided(deployment, current, verb)
    told = {
        "promote": f"{canary} leaves step {current.step or 1} of {current.steps or 1}",
        "promote --full": f"{canary} gets all requests",
        "pause": f"{canary} stays at {current.weight} % until it is resumed",
        "resume": f"the rollout of {canary} goes on",
        "abort": f"{current.stable} gets all requests back",
    }[verb]
    before = deployment.metadata.annotations
    used = deployment.status.used_orders
    stale = tuple(
        key
        for key, value in annotations.items()
        if value is not None and before.get(key) == value and said(key, value) in used
    )
    return Orders(annotations, told, stale)


def under_way(deployment: ModelDeployment) -> RolloutStatus | None:
    """The rollout that goes on now."""
    rollout = deployment.status.rollout
    return rollout if rollout is not None and rollout.phase not in ENDED else None


def held(deployment: ModelDeployment, rollout: RolloutStatus) -> bool:
    """Whether `rollout-pause` holds it."""
    return deployment.metadata.annotations.get(labels.ROLLOUT_PAUSE) == rollout.canary


def said(annotation: str, value: str) -> str:
    """An order as `status.usedOrders` has it: ``beamlit.com/rollout-promote=REVISION/STEP``."""
    return f"{annotation}={value}"


def _decided(
    deployment: ModelDeployment, rollout: RolloutStatus, verb: Verb
) -> dict[str, str | None]:
    name, canary = deployment.metadata.name, rollout.canary
    is_held = held(deployment, rollout)
    waits = rollout.phase == "Paused" and not is_held
    match verb:
        case "promote":
            if is_held:
                raise OrderRefusedError(
                    f"{name} is held by `rollout pause`: `beamlit rollout resume {name}` lets it "
                    f"go on, `promote --full` gives {canary} all requests"
                )
            if not waits:
                raise OrderRefusedError(
                    f"{name} does not wait for anybody ({rollout.phase}: {rollout.message}): "
                    f"`promote --full` gives {canary} all requests now"
                )
            return {labels.ROLLOUT_PROMOTE: f"{canary}/{rollout.step or 1}"}
        case "promote --full":
            resume: dict[str, str | None] = {labels.ROLLOUT_PAUSE: None} if is_held else {}
            return {labels.ROLLOUT_PROMOTE: canary, **resume}
        case "pause":
            if is_held:
                raise OrderRefusedError(f"{name} is paused already")
            return {labels.ROLLOUT_PAUSE: canary}
        case "resume":
            if waits:
                raise OrderRefusedError(
                    f"{name} was not paused by hand, it waits for you ({rollout.message}): "
                    f"`beamlit rollout promote {name}` or `abort`"
                )
            if not is_held:
                raise OrderRefusedError(f"{name} is not paused")
            return {labels.ROLLOUT_PAUSE: None}
        case "abort":
            return {labels.ROLLOUT_ABORT: canary}
