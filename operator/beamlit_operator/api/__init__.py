"""The four kinds, the conditions they report and the names used on other objects.

This room is the single source of the CRDs, of validation and of the field reference.
"""

from beamlit_operator.api.conditions import Condition
from beamlit_operator.api.environment import Environment
from beamlit_operator.api.model import Model
from beamlit_operator.api.modeldeployment import ModelDeployment
from beamlit_operator.api.policy import Policy
from beamlit_operator.api.reasons import Reason

__all__ = ["Condition", "Environment", "Model", "ModelDeployment", "Policy", "Reason"]
