"""Admission: the steps a write goes through, one after the other.

Accounts and limits come before webhooks, so that those see the pod as it will be; quota comes
last, so that what others refuse is not counted.
"""

from __future__ import annotations

from dataclasses import replace

from beamlit_operator.devcluster.apiserver.admission_review import Admission, Review
from beamlit_operator.kube import Json


class Steps:
    """Several admissions as one."""

    def __init__(self) -> None:
        self._steps: tuple[Admission, ...] = ()

    def set(self, *steps: Admission) -> None:
        """The steps from now on; before, everything is admitted."""
        self._steps = steps

    def concerns(self, review: Review) -> bool:
        """Whether any step has to be asked."""
        return any(step.concerns(review) for step in self._steps)

    async def mutate(self, review: Review) -> Json:
        """The object as all steps leave it."""
        assert review.new is not None
        item = review.new
        for step in self._steps:
            current = replace(review, new=item)
            if step.concerns(current):
                item = await step.mutate(current)
        return item

    async def validate(self, review: Review) -> None:
        """Raises ApiError when a step refuses."""
        for step in self._steps:
            if step.concerns(review):
                await step.validate(review)
