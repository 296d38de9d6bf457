"""What a model's files say about it: ``reading`` asks, the others judge what was read."""

from beamlit_operator.origins.inspection.reading import Inspection, inspect

__all__ = ["Inspection", "inspect"]
