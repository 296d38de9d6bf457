"""Conditions: how every kind reports its state, compatible with kstatus.

kstatus (sigs.k8s.io/cli-utils) reads ``Ready``, ``Reconciling`` and ``Stalled``; Argo CD, Flux and
``kubectl wait`` follow. ``Ready`` is always there; the other two only while they are True.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from beamlit_operator.api.meta import Part

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
POLICY_OVERRIDDEN = "PolicyOverridden"
PROGRAMMED = "Programmed"
SCALING_BLOCKED = "ScalingBlocked"

ConditionStatus = Literal["True", "False", "Unknown"]

MAX_MESSAGE = 32768
"""Characters a message may have, the limit of ``metav1.Condition``."""


class Condition(Part):
    """One condition, as ``metav1.Condition``."""

    type: str = Field(max_length=316)
    """The name of the condition, such as `Ready`."""
    status: ConditionStatus
    """`True`, `False` or `Unknown`."""
    reason: str = Field(min_length=1, max_length=1024)
    """One word that programs can compare; the documentation lists them all."""
    message: str = Field(max_length=MAX_MESSAGE)
    """What is so and, when it is bad, what to do about it."""
    last_transition_time: datetime
    """When the status last changed."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the object that this condition was computed from."""


def condition(
    type_: str, status: bool | None, *, reason: str, message: str, generation: int, now: datetime
) -> Condition:
    """A condition as of ``now``; ``status=None`` means Unknown."""
    text: ConditionStatus = "Unknown" if status is None else ("True" if status else "False")
    return Condition(
        type=type_,
        status=text,
        reason=reason,
        message=message[:MAX_MESSAGE],
        # The API keeps whole seconds.
        last_transition_time=now.replace(microsecond=0),
        observed_generation=generation,
    )


def merge(old: Iterable[Condition], new: Iterable[Condition]) -> tuple[Condition, ...]:
    """The new conditions, with the old transition time where the status is as it was.

    A condition that is not in ``new`` is dropped.
    """
    before = {c.type: c for c in old}

    def settle(fresh: Condition) -> Condition:
        known = before.get(fresh.type)
        if known is None or known.status != fresh.status:
            return fresh
        return fresh.model_copy(update={"last_transition_time": known.last_transition_time})

    return tuple(settle(c) for c in new)


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if it is there."""
    return next((c for c in conditions if c.type == type_), None)
