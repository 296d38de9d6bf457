"""Which deployment a person means: the table in `cli/finding`."""

from __future__ import annotations

import pytest

from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.finding import chosen
from beamlit_operator.kube import Json


def deployment(name: str, model: str, environment: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"model": model, "environment": environment}}


THERE = [
    deployment("iris-dev", "iris", "development"),
    deployment("iris-prod", "iris", "production"),
    deployment("wine", "wine", "production"),
    deployment("rose", "wine", "development"),
    deployment("other", "rose", "development"),
]


@pytest.mark.parametrize(
    ("name", "environment", "found"),
    [
        ("iris-dev", None, "iris-dev"),
        ("iris", "production", "iris-prod"),
        ("wine", None, "wine"),
        ("wine", "development", "rose"),
        # With an environment the name is that of a Model.
        ("rose", None, "rose"),
        ("rose", "development", "other"),
    ],
)
def test_a_name_is_a_deployments_or_a_models(
    name: str, environment: str | None, found: str
) -> None:
    assert chosen(THERE, name, environment, workspace="team")["metadata"]["name"] == found


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("iris", None, "deployed in development, production: choose with -e"),
        ("iris", "staging", "it is deployed in: development, production"),
        ("ghost", "production", "it is deployed nowhere"),
        ("ghost", None, "no ModelDeployment and no Model named ghost; deployments: iris-dev"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_there_is(
    name: str, environment: str | None, says: str
) -> None:
    with pytest.raises(CommandError, match=says):
        chosen(THERE, name, environment, workspace="team")
