"""How traffic moves from one revision of a deployment to the next. Pure."""

from beamlit_operator.rollout.bluegreen import (
    DRAIN,
    RevisionState,
    RolloutPlan,
    Scaling,
    decide,
)

__all__ = ["DRAIN", "RevisionState", "RolloutPlan", "Scaling", "decide"]
