"""A rollout in the operator: what its plan does, tells and asks the autoscaler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.pictures import body
from tests.support.situations import NOW, Situation, plan_of

from beamlit_operator.api import labels
from beamlit_operator.autoscaling import Target, scaling_config
from beamlit_operator.autoscaling.kpa import Observation, State
from beamlit_operator.autoscaling.kpa import decide as decide_replicas
from beamlit_operator.controllers.demand import Demand
from beamlit_operator.controllers.evidence import Witnesses
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.controllers.modeldeployment import decide, unreadable
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.outcomes import Outcomes
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.controllers.promql import Queries
from beamlit_operator.controllers.scaling import Scaling
from beamlit_operator.kube import DEPLOYMENTS, PODS, Json, ObjectKey

CANARY = {"strategy": "Canary", "steps": [{"weight": 50}]}
PLACE = ObjectKey("team", "iris")


def deployments(plan: Plan) -> list[str]:
    return [o["metadata"]["name"] for o in plan.apply if o["kind"] == "Deployment"]


def weights(plan: Plan) -> dict[str, int]:
    assert plan.status is not None
    return {r["name"]: r["traffic"] for r in plan.status["revisions"] if r["traffic"]}


def paused(replicas: int = 2, **spec: Any) -> tuple[Situation, str, str]:
    """A canary that waits at 50 %, as told: the stable revision, and the new one."""
    there = Situation().with_spec(**{"rollout": CANARY, **spec})
    first = plan_of(there)
    (old,) = deployments(first)
    there = there.applied(first.apply).scaled(old, replicas, ready=replicas)
    there = there.with_status(first.status)
    there = there.with_spec(runtime={"envs": [{"name": "A", "value": "1"}]})
    begun = plan_of(there)
    (new,) = deployments(begun)
    made = [o for o in begun.apply if o["kind"] == "Deployment"]
    there = (
        there.applied(tuple(made)).with_status(begun.status).scaled(new, replicas, ready=replicas)
    )
    return there.with_status(plan_of(there).status), old, new


def test_a_canary_splits_the_requests_and_says_how_to_go_on() -> None:
    there, old, new = paused()
    plan = plan_of(there)
    assert weights(plan) == {old: 50, new: 50}
    assert plan.status is not None
    run = plan.status["rollout"]
    assert (run["phase"], run["step"], run["weight"]) == ("Paused", 1, 50)
    assert f"beamlit.com/rollout-promote={new}/1" in run["message"]
    conditions = {c["type"]: c for c in plan.status["conditions"]}
    assert conditions["Ready"]["reason"] == "RolloutPaused"
    assert "Stalled" not in conditions


def test_deciding_again_changes_nothing_but_what_time_does() -> None:
    there, _, _ = paused()
    settled = there.with_status(plan_of(there).status)
    for minutes in (1, 60):
        again = plan_of(settled, NOW + timedelta(minutes=minutes))
        assert again.status == settled.status
        assert again.events == ()


def test_each_step_is_an_event_once() -> None:
    there, old, new = paused()
    ordered = replace(there, meta={**there.meta, "annotations": {labels.ROLLOUT_ABORT: new}})
    aborted = plan_of(ordered)
    assert weights(aborted) == {old: 100}
    assert [(e.type, e.reason) for e in aborted.events] == [("Warning", "RolloutAborted")]
    after = plan_of(ordered.with_status(aborted.status))
    assert after.events == ()
    assert deployments(after) == []


def test_an_order_that_does_not_count_is_an_event_once() -> None:
    there, _, new = paused()
    early = replace(there, meta={**there.meta, "annotations": {labels.ROLLOUT_PROMOTE: f"{new}/9"}})
    plan = plan_of(early)
    assert [e.reason for e in plan.events] == ["OrderIgnored"]
    assert plan.status is not None
    assert plan.status["usedOrders"] == [f"{labels.ROLLOUT_PROMOTE}={new}/9"]
    assert plan_of(early.with_status(plan.status)).events == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollout", {"surge": 0}),
        ("endpoint", {"maxConcurrency": 3}),
        ("serverlessConfig", {"minNumReplicas": 1}),
    ],
)
def test_what_does_not_change_what_runs_makes_no_revision(field: str, value: Json) -> None:
    there = Situation()
    (name,) = deployments(plan_of(there))
    assert deployments(plan_of(there.with_spec(**{field: value}))) == [name]


def test_by_cpu_each_revision_with_requests_has_an_autoscaler_and_keeps_its_replicas() -> None:
    resources = {"requests": {"cpu": "1"}}
    there, old, new = paused(serverlessConfig={"metric": "cpu"}, runtime={"resources": resources})
    plan = plan_of(there)
    scaled = [o["metadata"]["name"] for o in plan.apply if o["kind"] == "HorizontalPodAutoscaler"]
    assert sorted(scaled) == sorted([old, new])
    assert plan.scale == ()


def test_revisions_that_get_requests_are_listed_however_many_others_wait_for_their_end() -> None:
    there, old, new = paused()
    (made,) = (
        o for o in there.children if (o["kind"], o["metadata"]["name"]) == ("Deployment", new)
    )
    before = there.children
    for count in range(40):
        name = f"iris-{count:08d}"
        marks = {**made["metadata"]["labels"], labels.REVISION: name}
        other = {**made, "metadata": {**made["metadata"], "name": name, "labels": marks}}
        there = there.applied((other,)).scaled(name, 1, ready=1)
    there = replace(there, children=(*there.children[len(before) :], *before))
    plan = plan_of(there)
    assert plan.status is not None
    assert len(plan.status["revisions"]) == 32
    assert weights(plan) == {old: 50, new: 50}


def test_an_unreadable_spec_takes_the_traffic_from_nobody() -> None:
    there, old, new = paused()
    indexes = Indexes(lambda *_: None)
    item = body(Kind.MODEL_DEPLOYMENT, "iris", {"model": 5})
    indexes.put(Kind.MODEL_DEPLOYMENT, {**item, "status": there.status})
    plan = unreadable(indexes.deployments[PLACE], NOW)
    assert weights(plan) == {old: 50, new: 50}


# The autoscaler.


class Held:
    """Children of one kind, as the operator holds them."""

    def __init__(self, *items: Json) -> None:
        self._items = {each["metadata"]["name"]: each for each in items}

    def get(self, key: ObjectKey) -> Json | None:
        return self._items.get(key.name)

    def of(self, _place: ObjectKey) -> list[Json]:
        return []

    def when_set(self, touched: Callable[[ObjectKey], None]) -> None:
        """Nothing changes here."""


def scaling_of(there: Situation, demand: Demand) -> Scaling:
    indexes = Indexes(lambda *_: None)
    item = body(Kind.MODEL_DEPLOYMENT, "iris", there.spec)
    indexes.put(Kind.MODEL_DEPLOYMENT, {**item, "status": there.status})
    children: Any = {DEPLOYMENTS: Held(*there.snapshot().workloads), PODS: Held()}
    client: Any = None
    return Scaling(client, options=Options(), indexes=indexes, children=children, demand=demand)


async def test_the_autoscaler_sees_one_deployment_and_its_number_is_split_by_weight() -> None:
    there, old, new = paused(4)
    changed: list[ObjectKey] = []
    demand = Demand(changed.append)
    scaling = scaling_of(there, demand)
    (target,) = scaling.targets()
    assert (target.replicas, target.ready_replicas, target.traffic) == (4, 4, 1.0)
    await scaling.scale(target, 6)
    assert (changed, demand.of(PLACE)) == ([PLACE], 6)
    plan = decide(replace(there.snapshot(), demand=demand.of(PLACE)), NOW)
    assert {scale.name: scale.replicas for scale in plan.scale} == {old: 3, new: 3}
    assert plan.status is not None
    assert plan.status["rollout"]["replicas"] == 6


def test_a_canary_of_two_replicas_that_nobody_calls_goes_to_zero() -> None:
    there, *_ = paused(1)
    config = replace(scaling_config(None, max_concurrency=None), scale_to_zero_grace_seconds=0.0)
    state, wanted = State(), 1
    for seconds in (0.0, 120.0):
        (target,) = scaling_of(there, Demand(lambda _: None)).targets()
        seen = Observation(
            stable=0.0,
            panic=0.0,
            busy=False,
            full_window=True,
            replicas=target.replicas,
            ready_replicas=target.ready_replicas,
        )
        decision = decide_replicas(config, seen, state, now_seconds=seconds)
        state, wanted = decision.state, decision.desired
    assert wanted == 0


def test_at_rest_the_autoscaler_scales_the_revision_itself() -> None:
    there, old, _ = paused()
    status = {k: v for k, v in there.status.items() if k != "rollout"}
    rows = [row | {"traffic": 100 if row["name"] == old else 0} for row in status["revisions"]]
    scaling = scaling_of(there.with_status({**status, "revisions": rows}), Demand(lambda _: None))
    targets: list[Target] = list(scaling.targets())
    assert [(each.revision, each.replicas) for each in targets] == [(old, 2)]


def test_a_number_is_taken_once() -> None:
    changed: list[ObjectKey] = []
    demand = Demand(changed.append)
    demand.ask(PLACE, 3)
    demand.ask(PLACE, 3)
    assert changed == [PLACE]
    demand.taken(PLACE, 2)
    assert demand.of(PLACE) == 3
    demand.taken(PLACE, 3)
    assert demand.of(PLACE) is None
    demand.ask(PLACE, 3)
    demand.forget(PLACE)
    assert demand.of(PLACE) is None


# Evidence.


async def test_numbers_are_asked_for_only_while_a_step_with_an_analysis_is_reached() -> None:
    asked: list[str] = []

    class Counting(Outcomes):
        def since_step(self, deployment: ObjectKey, revision: str, step_id: str) -> None:
            asked.append(f"{revision} {step_id}")

    witnesses = Witnesses(Counting(), Queries(""))
    there, old, new = paused()
    witnesses.evidence(PLACE, there.snapshot().deployment)
    assert asked == []
    query = {"prometheus": {"query": "up", "maximum": 1}}
    there = there.with_spec(rollout={**CANARY, "analysis": query})
    found = witnesses.evidence(PLACE, there.snapshot().deployment)
    assert [each.split()[0] for each in asked] == [new, old]
    assert f"{new}/1/" in asked[0]
    assert found.answer is not None
    assert "--prometheus-url" in found.answer.problem
