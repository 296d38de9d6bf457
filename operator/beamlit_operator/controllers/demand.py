"""What the autoscaler asks for while two revisions share the load of a deployment.

It computes one number for both; the rollout splits it (`rollout.capacity`). Each number is taken
once, and lives on in `status.rollout.replicas`: one that is older than a start from zero must not
end what was just woken.
"""

from __future__ import annotations

from collections.abc import Callable

from beamlit_operator.kube import ObjectKey


class Demand:
    """The numbers that were not taken yet, by deployment."""

    def __init__(self, on_change: Callable[[ObjectKey], None]) -> None:
        self._asked: dict[ObjectKey, int] = {}
        self._on_change = on_change

    def ask(self, deployment: ObjectKey, replicas: int) -> None:
        """Takes the autoscaler's number."""
        if self._asked.get(deployment) != replicas:
            self._asked[deployment] = replicas
            self._on_change(deployment)

    def of(self, deployment: ObjectKey) -> int | None:
        """The number that was not taken yet, if there is one."""
        return self._asked.get(deployment)

    def taken(self, deployment: ObjectKey, replicas: int | None) -> None:
        """What was planned with that number is carried out."""
        if replicas is not None and self._asked.get(deployment) == replicas:
            del self._asked[deployment]

    def forget(self, deployment: ObjectKey) -> None:
        """It is gone."""
        self._asked.pop(deployment, None)
