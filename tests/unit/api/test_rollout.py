"""What the definition says about `spec.rollout`: its rules, as an API server evaluates them."""

import pytest

from beamlit_operator.api import labels
from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.api.rollout import Rollout
from beamlit_operator.devcluster.apiserver.cel import rule_causes
from beamlit_operator.devcluster.apiserver.schemas import custom_root
from beamlit_operator.devcluster.apiserver.validating import causes_of, custom_checker

(KIND,) = (kind for kind in KINDS if kind.name == "ModelDeployment")
SCHEMA = crd(KIND)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
ROOT, CHECKER = custom_root(SCHEMA), custom_checker(SCHEMA)
ERRORS = {"maxErrorPercent": 5}


def complaints(rollout):
    """What an API server has against an object with this `spec.rollout`."""
    item = {
        "apiVersion": labels.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": "llama"},
        # As after defaulting.
        "spec": {"model": "llama", "rollout": {"strategy": "BlueGreen", **rollout}},
    }
    return [*causes_of(CHECKER, item), *rule_causes(item, None, ROOT)]


def canary(*weights, **more):
    return {"strategy": "Canary", "steps": [{"weight": weight} for weight in weights], **more}


@pytest.mark.parametrize(
    "rollout",
    [
        {},
        canary(10),
        canary(0, 10, 50, 100),
        canary(*range(32)),
        {"surge": 0},
        {"surge": "25%", "retention": "24h", "startDeadline": "30m", "trialStart": False},
        {"sticky": {"header": "X-User"}},
        {"sticky": {"cookie": "revision"}},
        canary(10, analysis=ERRORS),
        {"strategy": "Canary", "steps": [{"weight": 5, "pause": "5m", "analysis": ERRORS}]},
        {"analysis": {"prometheus": {"query": "up", "minimum": 1, "maximum": "1.5e3"}}},
    ],
)
def test_what_makes_sense_is_accepted_and_read(rollout):
    assert complaints(rollout) == []
    assert Rollout.model_validate(rollout).strategy == rollout.get("strategy", "BlueGreen")


@pytest.mark.parametrize(
    ("rollout", "field", "words"),
    [
        (canary(50, 10), "spec.rollout.steps", "must rise"),
        (canary(10, 10), "spec.rollout.steps", "must rise"),
        (canary(101), "spec.rollout.steps[0].weight", "less than or equal to 100"),
        (canary(-1), "spec.rollout.steps[0].weight", "greater than or equal to 0"),
        (canary(*range(33)), "spec.rollout.steps", "at most 32"),
        ({"steps": [{"weight": 10}]}, "spec.rollout.steps", "belong to strategy Canary"),
        ({"strategy": "Canary"}, "spec.rollout.steps", "needs steps"),
        ({"sticky": {}}, "spec.rollout.sticky", "only one"),
        ({"sticky": {"header": "a", "cookie": "b"}}, "spec.rollout.sticky", "only one"),
        ({"sticky": {"header": "a b"}}, "spec.rollout.sticky.header", "write a header's name"),
        ({"analysis": {"minimumRequests": 5}}, "spec.rollout.analysis", "needs a criterion"),
        (
            canary(5) | {"steps": [{"weight": 5, "analysis": {}}]},
            "spec.rollout.steps[0].analysis",
            "needs a criterion",
        ),
        (
            {"analysis": {"prometheus": {"query": "up"}}},
            "spec.rollout.analysis.prometheus",
            "needs a bound",
        ),
        (
            {"analysis": {"prometheus": {"query": "up", "minimum": "much"}}},
            "spec.rollout.analysis.prometheus.minimum",
            "should match",
        ),
        ({"surge": "half"}, "spec.rollout.surge", "should match"),
        ({"surge": -1}, "spec.rollout.surge", "greater than or equal to 0"),
        ({"retention": "soon"}, "spec.rollout.retention", "such as 90s or 1m30s"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_field_and_the_reason(rollout, field, words):
    causes = complaints(rollout)
    assert [cause.field for cause in causes] == [field]
    assert words in causes[0].message
