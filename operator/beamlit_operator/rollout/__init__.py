"""How traffic moves from one revision of a deployment to the next. Pure."""

from beamlit_operator.rollout.analysis import Answer, Evidence, Measured
from beamlit_operator.rollout.machine import decide
from beamlit_operator.rollout.revisions import (
    GIVEN_UP,
    Ending,
    RevisionState,
    RolloutPlan,
    Scaling,
    Situation,
)

__all__ = [
    "GIVEN_UP",
    "Answer",
    "Ending",
    "Evidence",
    "Measured",
    "RevisionState",
    "RolloutPlan",
    "Scaling",
    "Situation",
    "decide",
]
