"""Reading resources: lenient on what is unknown, exact on what is known."""

import pytest
from pydantic import ValidationError

from beamlit_operator.api import ModelDeployment, Policy, Reason
from beamlit_operator.origins import OriginReason


def deployment(**spec):
    return ModelDeployment.model_validate(
        {"metadata": {"name": "a", "namespace": "team"}, "spec": {"model": "iris", **spec}}
    )


def test_defaults_are_those_of_the_schema():
    spec = deployment().spec
    assert (spec.environment, spec.enabled, spec.policies) == ("production", True, ())


def test_an_old_operator_survives_a_new_field():
    assert deployment(someday={"x": 1}).spec.model == "iris"


@pytest.mark.parametrize("target", [5, "5"])
def test_a_target_may_be_a_number_or_a_string(target):
    config = deployment(serverlessConfig={"target": target}).spec.serverless_config
    assert config is not None
    assert config.target == "5"


def test_a_manifest_of_beamlit_is_read():
    spec = deployment(
        modelSourceRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
        policies=[{"refType": "remotePolicy", "name": "us"}],
        offloadingConfig={
            "remoteBackend": {
                "host": "run.example.com",
                "authConfig": {
                    "type": "oauth",
                    "oauthConfig": {
                        "clientId": "id",
                        "clientSecret": "secret",
                        "tokenUrl": "https://example.com/token",
                    },
                },
            },
            "behavior": {"percentage": 50},
        },
    ).spec
    assert spec.model_source_ref is not None
    assert spec.offloading_config is not None
    assert spec.offloading_config.behavior is not None
    assert spec.offloading_config.behavior.percentage == 50


def test_what_is_no_policy_type_is_refused():
    with pytest.raises(ValidationError, match="location"):
        Policy.model_validate({"metadata": {"name": "p"}, "spec": {"type": "colour"}})


def test_every_reason_is_one_documented_word():
    for reason in Reason:
        assert reason.value.isalpha()
        assert reason.doc.endswith(".")


def test_every_reason_an_origin_can_give_is_documented():
    assert {str(reason) for reason in OriginReason} <= {str(reason) for reason in Reason}
