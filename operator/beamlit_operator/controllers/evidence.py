"""What is known of the step of a rollout: the gateways' numbers, and Prometheus' answer."""

from __future__ import annotations

from beamlit_operator.api.modeldeployment import ModelDeployment
from beamlit_operator.api.rollout import Rollout
from beamlit_operator.controllers.outcomes import Outcomes
from beamlit_operator.controllers.promql import Queries, filled
from beamlit_operator.controllers.rolling import measured, step_id
from beamlit_operator.kube import ObjectKey
from beamlit_operator.rollout import Evidence
from beamlit_operator.rollout.course import criteria_of


class Witnesses:
    """Asks for what the analysis of a step needs, and for nothing while none is under way."""

    def __init__(self, outcomes: Outcomes, queries: Queries) -> None:
        self._outcomes = outcomes
        self._queries = queries

    def evidence(self, place: ObjectKey, deployment: ModelDeployment) -> Evidence:
        """What is known of a deployment's rollout."""
        run = measured(deployment)
        criteria = criteria_of(deployment.spec.rollout or Rollout(), run.step) if run else None
        if run is None or criteria is None:
            return Evidence()
        step = step_id(run)
        answer = None
        if criteria.prometheus is not None:
            query = filled(
                criteria.prometheus.query,
                workspace=place.namespace,
                name=place.name,
                canary=run.canary,
                stable=run.stable,
            )
            answer = self._queries.latest(place, query, step)
        return Evidence(
            canary=self._outcomes.since_step(place, run.canary, step),
            stable=self._outcomes.since_step(place, run.stable, step),
            answer=answer,
        )
