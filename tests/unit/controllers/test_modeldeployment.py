"""What is decided for a ModelDeployment, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.situations import (
    FOUND,
    NOW,
    Situation,
    conditions_of,
    metadata,
    plan_of,
    ready_of,
    revision_of,
    settled,
)

from beamlit_operator.api import ModelDeployment
from beamlit_operator.controllers.modeldeployment import decide, unreadable
from beamlit_operator.controllers.objects import held
from beamlit_operator.controllers.originbook import Failed
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.origins import OriginError, OriginReason


def test_a_new_deployment_is_placed_idle_with_its_endpoint() -> None:
    plan = plan_of(Situation())
    assert [o["kind"] for o in plan.apply] == ["Service", "Service", "Deployment"]
    assert all("replicas" not in o["spec"] for o in plan.apply)
    assert plan.first_replicas == {revision_of(plan): 0}
    assert plan.status is not None
    assert plan.status["phase"] == "Idle"
    assert plan.status["url"] == "http://gateway.example/team/models/iris?environment=production"
    assert ready_of(plan) == ("True", "Idle")


def test_a_minimum_of_replicas_is_started_with() -> None:
    plan = plan_of(Situation().with_spec(serverlessConfig={"minNumReplicas": 2}))
    assert plan.first_replicas == {revision_of(plan): 2}
    assert ready_of(plan) == ("False", "Starting")
    assert plan.status is not None
    assert plan.status["phase"] == "Pending"


def test_carrying_out_and_deciding_again_changes_nothing() -> None:
    situation, _ = settled(Situation())
    second = plan_of(situation)
    third = plan_of(situation.with_status(second.status))
    assert third.status == second.status
    assert third.apply == second.apply
    assert (third.delete, third.scale, third.events) == ((), (), ())


BLOCKED: list[tuple[str, Situation, str, str]] = [
    ("the model is missing", Situation().without_model(), "ModelNotFound", "iris"),
    (
        "the environment is missing",
        Situation().without_environment(),
        "EnvironmentNotFound",
        "production",
    ),
    (
        "a policy of the environment is missing",
        Situation().environment(gone=True),
        "PolicyNotFound",
        "gone",
    ),
    (
        "a policy of its own is missing",
        Situation().with_spec(policies=[{"name": "lost"}]),
        "PolicyNotFound",
        "lost",
    ),
    (
        "a field has no effect yet",
        Situation().with_spec(modelSourceRef={"name": "x"}),
        "UnsupportedField",
        "spec.modelSourceRef",
    ),
    (
        "a flavor is not allowed",
        Situation()
        .flavor_policy("cpus", cpu="x86")
        .environment(cpus=True)
        .with_spec(flavors=[{"type": "gpu", "name": "t4"}]),
        "FlavorNotAllowed",
        "gpu:t4",
    ),
    (
        "the secret is missing",
        Situation().origin(Failed("SecretNotFound", "Secret s3 does not exist", False)),
        "SecretNotFound",
        "the origin of Model iris cannot be used: Secret s3",
    ),
    (
        "the bucket is missing",
        Situation().origin(Failed("BucketNotFound", "no bucket models", True)),
        "OriginNotReady",
        "no bucket models",
    ),
    (
        "the origin was not looked at yet",
        Situation().origin(None),
        "Resolving",
        "being looked at",
    ),
    (
        "the origin cannot be right",
        replace(
            Situation(),
            question=OriginError(OriginReason.INVALID_REFERENCE, "no such place"),
        ),
        "OriginNotReady",
        "no such place",
    ),
    ("the model has no origin", replace(Situation(), question=None), "OriginNotReady", "origin"),
    (
        "a version is pinned that the store does not hold",
        Situation().with_spec(version="sha256:bbb"),
        "InvalidSpec",
        "sha256:bbb",
    ),
    (
        "the files do not tell the runtime",
        Situation().origin(replace(FOUND, paths=("what.ever",))),
        "InvalidSpec",
        "spec.runtime.type",
    ),
    (
        "the model needs pickles and does not allow them",
        Situation().origin(replace(FOUND, paths=("model-settings.json", "model.joblib"))),
        "PickleNotAllowed",
        "spec.allowPickle",
    ),
]


@pytest.mark.parametrize(
    ("situation", "reason", "told"), [b[1:] for b in BLOCKED], ids=[b[0] for b in BLOCKED]
)
def test_nothing_is_placed_when(situation: Situation, reason: str, told: str) -> None:
    plan = plan_of(situation)
    assert plan.apply == ()
    assert ready_of(plan) == ("False", reason)
    assert told in conditions_of(plan)["Ready"]["message"]


@pytest.mark.parametrize(
    ("situation", "reason"), [b[1:3] for b in BLOCKED], ids=[b[0] for b in BLOCKED]
)
def test_what_serves_goes_on_serving_when(situation: Situation, reason: str) -> None:
    """Nothing is scaled or deleted, and the status keeps the revision and its traffic."""
    running, name = settled(Situation(), replicas=1, ready=1)
    later = replace(
        situation, children=running.children, meta={**running.meta, "generation": 2}
    ).with_status(running.status)
    later = later.pod(name)
    plan = plan_of(later)
    assert (plan.scale, plan.delete) == ((), ())
    assert plan.status is not None
    assert plan.status["revisions"][0]["traffic"] == 100
    assert ready_of(plan)[1] == reason
    assert plan.status["phase"] == "Active"


def test_an_origin_that_is_away_for_a_moment_does_not_disturb_what_serves() -> None:
    running, _ = settled(Situation(), replicas=1, ready=1)
    plan = plan_of(running.origin(Failed("Unreachable", "no answer", False)))
    assert ready_of(plan) == ("True", "Serving")
    assert plan.apply == ()


def test_after_a_restart_the_status_is_left_until_the_origin_was_looked_at() -> None:
    running, _ = settled(Situation(), replicas=1, ready=1)
    plan = plan_of(running.origin(None))
    assert plan.status is None
    assert (plan.apply, plan.events) == ((), ())


def test_the_older_deployment_of_an_endpoint_wins() -> None:
    younger = plan_of(Situation().rival("other", older=True))
    assert ready_of(younger) == ("False", "Duplicate")
    assert "other" in conditions_of(younger)["Ready"]["message"]
    assert ready_of(plan_of(Situation().rival("other", older=False))) == ("True", "Idle")


def test_of_two_of_the_same_second_the_one_that_serves_stays() -> None:
    running, _ = settled(Situation(), replicas=1, ready=1)
    for uid in ("0", "zz"):
        assert ready_of(plan_of(running.twin(uid=uid, serves=False))) == ("True", "Serving")
        assert ready_of(plan_of(Situation().twin(uid=uid, serves=True)))[1] == "Duplicate"


def test_a_rival_that_is_being_deleted_does_not_count() -> None:
    plan = plan_of(Situation().rival("other", older=True, deleting=True))
    assert ready_of(plan) == ("True", "Idle")


def test_a_duplicate_that_got_in_loses_what_it_has() -> None:
    running, name = settled(Situation(), replicas=1, ready=1)
    plan = plan_of(running.rival("other", older=True))
    assert {d.name for d in plan.delete} == {"iris", name}


def test_a_deactivated_deployment_runs_nothing_and_routes_nothing() -> None:
    running, name = settled(Situation(), replicas=3, ready=3)
    plan = plan_of(running.with_spec(enabled=False))
    assert [(s.name, s.replicas) for s in plan.scale] == [(name, 0)]
    assert ready_of(plan) == ("True", "Deactivated")
    assert plan.status is not None
    assert plan.status["phase"] == "Deactivated"
    assert all(row["traffic"] == 0 for row in plan.status["revisions"])
    assert [row["role"] for row in plan.status["revisions"]] == ["stable"]
    asleep = running.with_status(plan.status).scaled(name, 0)
    again = plan_of(asleep)
    assert again.status is not None
    assert {row["name"]: row["traffic"] for row in again.status["revisions"]} == {name: 100}


def test_a_deployment_being_deleted_is_left_to_its_owner_references() -> None:
    situation = replace(Situation(), meta=metadata("iris", deletionTimestamp=NOW.isoformat()))
    assert plan_of(situation) == Plan()


def test_ready_replicas_make_it_active() -> None:
    running, _ = settled(Situation(), replicas=2, ready=1)
    plan = plan_of(running)
    assert ready_of(plan) == ("True", "Serving")
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["replicas"], plan.status["readyReplicas"]) == (
        "Active",
        2,
        1,
    )


CRASH: dict[str, Any] = {
    "containerStatuses": [
        {
            "name": "model",
            "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no GPU"}},
        }
    ]
}


def test_a_server_that_crashes_at_start_is_told_with_its_own_words() -> None:
    running, name = settled(Situation(), replicas=1)
    plan = plan_of(running.pod(name, **CRASH))
    assert ready_of(plan) == ("False", "StartFailed")
    assert "exit code 3: no GPU" in conditions_of(plan)["Ready"]["message"]
    assert plan.status is not None
    assert plan.status["phase"] == "Failed"
    assert [e.reason for e in plan.events] == ["StartFailed"]


def test_a_new_revision_starts_while_the_old_one_serves() -> None:
    running, old = settled(Situation(), replicas=1, ready=1)
    changed = running.with_spec(runtime={"envs": [{"name": "A", "value": "1"}]})
    plan = plan_of(changed)
    new = revision_of(plan)
    assert new != old
    assert plan.first_replicas == {new: 1}
    assert plan.delete == ()
    assert ready_of(plan) == ("True", "RollingOut")
    assert "Reconciling" in conditions_of(plan)
    there = changed.applied([o for o in plan.apply if o["kind"] == "Deployment"], replicas=1)
    there = there.with_status(plan.status)
    waiting = plan_of(there)
    assert waiting.status is not None
    assert {r["name"]: r["traffic"] for r in waiting.status["revisions"]} == {old: 100, new: 0}
    over = plan_of(there.scaled(new, 1, ready=1))
    assert over.status is not None
    assert {r["name"]: r["traffic"] for r in over.status["revisions"]} == {old: 0, new: 100}
    assert ready_of(over) == ("True", "Serving")
    drained = there.scaled(new, 1, ready=1).with_status(over.status)
    assert plan_of(drained.idle_for(old, 1.0)).delete == ()
    later = NOW + timedelta(seconds=60)
    assert {d.name for d in plan_of(drained.idle_for(old, 60.0), later).delete} == {old}
    # The clock was set forward: nobody saw it without traffic for long enough.
    assert plan_of(drained.idle_for(old, 1.0), later).delete == ()


def test_a_new_revision_that_cannot_start_leaves_the_old_one_serving() -> None:
    running, old = settled(Situation(), replicas=1, ready=1)
    changed = running.with_spec(runtime={"envs": [{"name": "A", "value": "1"}]})
    plan = plan_of(changed)
    new = revision_of(plan)
    there = changed.applied([o for o in plan.apply if o["kind"] == "Deployment"], replicas=1)
    failed = plan_of(there.with_status(plan.status).pod(new, **CRASH))
    assert ready_of(failed) == ("True", "RollingOut")
    assert "no GPU" in conditions_of(failed)["Stalled"]["message"]
    assert failed.status is not None
    assert {r["name"]: r["traffic"] for r in failed.status["revisions"]} == {old: 100, new: 0}


def test_mandatory_us_policy_wins_over_deployment_in_australia() -> None:
    situation = (
        Situation()
        .policy("us", country="us")
        .policy("au", country="au")
        .environment(us=True)
        .with_spec(policies=[{"name": "au"}])
    )
    plan = plan_of(situation)
    overridden = conditions_of(plan)["PolicyOverridden"]
    assert (overridden["status"], overridden["reason"]) == ("True", "PolicyCollision")
    assert "PolicyCollision" in [e.reason for e in plan.events]
    assert plan.status is not None
    assert plan.status["effectivePolicy"]["location"]["allowed"] == ["country:us"]
    again = plan_of(situation.with_status(plan.status))
    assert again.events == ()


def test_no_node_within_the_policies_is_told_with_what_exists() -> None:
    plan = plan_of(Situation().policy("br", country="br").environment(br=True))
    assert ready_of(plan) == ("False", "NoPlacement")
    message = conditions_of(plan)["Ready"]["message"]
    assert "country:br" in message
    assert "us-east-1" in message
    assert plan.apply, "an autoscaled group of nodes only grows for pods that exist"


def test_transition_times_move_only_with_the_status() -> None:
    situation, _ = settled(Situation())
    later = decide(situation.snapshot(), NOW + timedelta(hours=1))
    assert later.status is not None
    before = {c["type"]: c["lastTransitionTime"] for c in situation.status["conditions"]}
    after = {c["type"]: c["lastTransitionTime"] for c in later.status["conditions"]}
    assert after == before


def test_an_unreadable_spec_becomes_a_condition() -> None:
    broken = held(
        ModelDeployment,
        {"apiVersion": "v", "kind": "ModelDeployment", "metadata": metadata("x"), "spec": {}},
    )
    plan = unreadable(broken, NOW)
    assert ready_of(plan) == ("False", "InvalidSpec")
    assert "spec.model" in conditions_of(plan)["Ready"]["message"]


def test_what_a_server_speaks_is_told_before_any_pod_exists_and_only_where_it_is_not_http() -> None:
    plan = plan_of(
        Situation().with_spec(runtime={"image": "x", "appProtocol": "kubernetes.io/h2c"})
    )
    assert plan.status is not None
    (row,) = plan.status["revisions"]
    assert (row["appProtocol"], row["replicas"]) == ("kubernetes.io/h2c", 0)
    again = settled(Situation().with_spec(runtime={"image": "x", "appProtocol": "http"}))[0]
    assert "appProtocol" not in again.status["revisions"][0]


def test_what_a_revision_speaks_stays_told_while_another_takes_over() -> None:
    situation = Situation().with_spec(runtime={"image": "x", "appProtocol": "kubernetes.io/h2c"})
    running, name = settled(situation, replicas=1)
    plan = plan_of(running.with_spec(runtime={"image": "x"}))
    assert plan.status is not None
    told = {row["name"]: row.get("appProtocol") for row in plan.status["revisions"]}
    assert told.pop(name) == "kubernetes.io/h2c"
    assert list(told.values()) == [None]


def test_a_pod_that_waits_by_an_affinity_of_yesterday_says_nothing_about_the_start() -> None:
    waiting = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available",
    }
    nowhere = Situation().policy("where", country="br").environment(where=True)
    running, name = settled(nowhere, replicas=1)
    running = running.pod(name, "old", node="", phase="Pending", conditions=[waiting])
    live = next(c for c in running.children if c["kind"] == "Deployment")
    running.pods[-1]["spec"]["affinity"] = live["spec"]["template"]["spec"]["affinity"]
    mended = running.policy("where", country="us").environment(where=True)
    assert ready_of(plan_of(mended))[1] == "Starting"


def test_while_a_fresh_operator_looks_at_the_origin_callers_are_held_and_not_refused() -> None:
    loose = Situation().policy("where", country="us").environment(where=True)
    asleep, name = settled(loose)
    tightened_now = asleep.policy("where", continent="eu").scaled(name, 1).origin(None)
    plan = plan_of(tightened_now)
    assert plan.status is None, "what is written holds until the origin was looked at"
    assert [(s.name, s.replicas) for s in plan.scale] == [(name, 0)], "nothing starts outside"
