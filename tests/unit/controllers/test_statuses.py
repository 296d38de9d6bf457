"""The statuses of Models, Environments and Policies, and the process's options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.situations import FOUND, NOW, QUESTION, metadata, ready_of

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.api.meta import Part
from beamlit_operator.controllers import environment, model, policy
from beamlit_operator.controllers.objects import Held, held
from beamlit_operator.controllers.options import Options, parse
from beamlit_operator.controllers.originbook import Entry, Failed
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.controllers.settings import operator_settings
from beamlit_operator.kube import Json
from beamlit_operator.policy import built_in


def make(kind: type[Any], spec: Json, status: Json | None = None) -> Held[Any]:
    assert issubclass(kind, Part)
    body = {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": kind.__name__,
        "metadata": metadata("iris"),
        "spec": spec,
    }
    return held(kind, {**body, "status": status} if status else body)


ORIGIN = {"origin": {"s3": {"uri": "s3://models/iris"}}}


def decide_model(entry: Entry | None, status: Json | None = None, **more: Any) -> Plan:
    question = QUESTION if entry is not None else None
    item = make(Model, ORIGIN if entry is not None else {}, status)
    return model.decide(item, question=question, entry=entry, deployments=[], now=NOW, **more)


def test_a_model_says_what_its_origin_holds() -> None:
    plan = decide_model(Entry(FOUND))
    assert ready_of(plan) == ("True", "OriginResolved")
    assert plan.status is not None
    assert plan.status["origin"]["files"] == 1
    assert plan.status["phase"] == "Created"
    assert plan.requeue_after is None


def test_a_model_that_needs_pickles_says_so_unless_they_are_allowed() -> None:
    entry = Entry(replace(FOUND, paths=("model-settings.json", "model.joblib")))
    plan = decide_model(entry)
    assert ready_of(plan) == ("False", "PickleNotAllowed")
    assert plan.status is not None
    assert plan.status["origin"]["files"] == 2
    allowed = make(Model, {**ORIGIN, "allowPickle": True})
    plan = model.decide(allowed, question=QUESTION, entry=entry, deployments=[], now=NOW)
    assert ready_of(plan) == ("True", "OriginResolved")


def test_a_model_without_an_origin_is_ready() -> None:
    assert ready_of(decide_model(None)) == ("True", "NoOrigin")


@pytest.mark.parametrize(("stalled", "types"), [(True, {"Ready", "Stalled"}), (False, {"Ready"})])
def test_a_failed_origin_is_stalled_only_when_a_person_must_act(
    stalled: bool, types: set[str]
) -> None:
    plan = decide_model(Entry(Failed("Gated", "ask for access", stalled)))
    assert plan.status is not None
    assert {c["type"] for c in plan.status["conditions"]} == types


def test_what_was_found_is_kept_while_the_origin_is_away() -> None:
    before = decide_model(Entry(FOUND)).status
    plan = decide_model(Entry(Failed("Unreachable", "no answer", False)), before)
    assert plan.status is not None
    assert plan.status["origin"]["revision"] == FOUND.revision
    assert ready_of(plan) == ("False", "Unreachable")


def test_after_a_restart_a_models_status_is_left_until_the_origin_was_looked_at() -> None:
    before = decide_model(Entry(FOUND)).status
    assert decide_model(Entry(None), before).status is None


def test_a_model_has_a_row_for_each_deployment() -> None:
    deployment = make(ModelDeployment, {"model": "iris"}, {"phase": "Idle", "url": "http://x"})
    plan = model.decide(
        make(Model, ORIGIN),
        question=QUESTION,
        entry=Entry(FOUND),
        deployments=[deployment],
        now=NOW,
    )
    assert plan.status is not None
    row = {"name": "iris", "environment": "production", "phase": "Idle", "url": "http://x"}
    assert plan.status["deployments"] == [row]
    assert plan.status["phase"] == "Deployed"


@pytest.mark.parametrize(
    ("weights", "version"), [({"v2": 10, "v1": 90}, "v1"), ({"v2": 60, "v1": 40}, "v2"), ({}, None)]
)
def test_a_models_row_names_the_version_with_most_of_the_requests(
    weights: dict[str, int], version: str | None
) -> None:
    revisions = [
        {"name": f"iris-{name}", "version": name, "traffic": weight}
        for name, weight in weights.items()
    ]
    deployment = make(ModelDeployment, {"model": "iris"}, {"revisions": revisions})
    plan = model.decide(
        make(Model, ORIGIN),
        question=QUESTION,
        entry=Entry(FOUND),
        deployments=[deployment],
        now=NOW,
    )
    assert plan.status is not None
    assert plan.status["deployments"][0].get("version") == version


def test_an_environment_names_its_missing_policies() -> None:
    item = make(Environment, {"policies": [{"name": "a"}, {"name": "b"}]})
    plan = environment.decide(item, policies={"a"}, deployments=3, now=NOW)
    assert ready_of(plan) == ("False", "PoliciesUnresolved")
    assert plan.status is not None
    assert plan.status["deployments"] == 3
    assert ": b." in plan.status["conditions"][0]["message"]
    whole = environment.decide(item, policies={"a", "b"}, deployments=3, now=NOW)
    assert ready_of(whole) == ("True", "Ready")


@pytest.mark.parametrize(("name", "ready"), [("us", "True"), ("zz", "False")])
def test_a_policy_says_whether_its_names_are_known(name: str, ready: str) -> None:
    spec = {"type": "location", "locations": [{"type": "country", "name": name}]}
    plan = policy.decide(make(Policy, spec), catalogue=built_in(), now=NOW)
    assert ready_of(plan)[0] == ready


def test_options_come_from_flags_then_from_the_environment_then_from_defaults() -> None:
    environ = {"BEAMLIT_GATEWAY_URL": "http://env/", "BEAMLIT_NAMESPACES": "a, b", "POD_NAME": "p"}
    options = parse(["--gateway-url", "http://flag/"], environ)
    assert options.gateway_url == "http://flag"
    assert options.namespaces == ("a", "b")
    assert options.identity == "p"
    assert options.origin_resync == Options().origin_resync
    assert options.scale_to_zero_grace == 30.0
    assert parse(["--scale-to-zero-grace", "5"], environ).scale_to_zero_grace == 5.0
    assert options.image.startswith("ghcr.io/beamlit/beamlit-operator:")


def test_a_wrong_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--workers", "0"], {})
    assert "below 1" in capsys.readouterr().err


def test_kopf_is_set_up_to_write_nothing_and_to_outlive_an_outage() -> None:
    settings = operator_settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.queueing.worker_limit is None
    assert isinstance(settings.watching.server_timeout, int)
    backoffs = settings.networking.error_backoffs
    assert not isinstance(backoffs, float | int)
    assert sum(backoffs) > 3000
