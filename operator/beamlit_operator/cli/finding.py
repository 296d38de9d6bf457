"""Which ModelDeployment a person means: by its name, or by its model and environment.

| NAME is                                   | environment given | then                          |
|-------------------------------------------|-------------------|-------------------------------|
| a ModelDeployment                         | no                | that                          |
| a Model with one deployment               | no                | its deployment                |
| a Model with several                      | no                | refused: which environment?   |
| a Model with a deployment there           | yes               | that                          |
| anything else                             |                   | refused, with what there is   |
"""

from __future__ import annotations

from collections.abc import Collection

from beamlit_operator.cli.cluster import Target
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import MODEL_DEPLOYMENTS, HttpClient, Json


async def find(
    client: HttpClient, target: Target, name: str, environment: str | None = None
) -> Json:
    """The deployment that is meant.

    Raises:
        CommandError: there is none, or more than one could be meant.
    """
    there = (await client.list(MODEL_DEPLOYMENTS, target.workspace)).items
    return chosen(there, name, environment, workspace=target.workspace)


def chosen(there: Collection[Json], name: str, environment: str | None, *, workspace: str) -> Json:
    """The one of these that is meant; see the module."""
    if environment is None:
        for each in there:
            if each["metadata"]["name"] == name:
                return each
    of_model = [each for each in there if each["spec"].get("model") == name]
    found = [e for e in of_model if environment in (None, e["spec"].get("environment"))]
    if len(found) == 1:
        return found[0]
    places = ", ".join(sorted(str(e["spec"].get("environment")) for e in of_model))
    if environment is not None:
        hint = f"it is deployed in: {places}" if places else "it is deployed nowhere"
        raise CommandError(
            f"model {name} has no deployment in environment {environment} of workspace "
            f"{workspace}; {hint}"
        )
    if of_model:
        raise CommandError(f"model {name} is deployed in {places}: choose with -e")
    names = ", ".join(sorted(each["metadata"]["name"] for each in there)) or "none"
    raise CommandError(
        f"workspace {workspace} has no ModelDeployment and no Model named {name}; "
        f"deployments: {names}"
    )
