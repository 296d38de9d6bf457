"""May this Policy be written, or deleted?

| request | situation                                              | then                         |
|---------|--------------------------------------------------------|------------------------------|
| write   | anything                                               | allowed                      |
| write   | a name is in no catalogue                              | warned                       |
| write   | deployments collide, move, lose pods or their place    | warned, with a few names     |
| delete  | nobody uses it                                         | allowed                      |
| delete  | mandatory in an Environment with deployments           | refused                      |
| delete  | the same, annotated `beamlit.com/allow-deletion: true` | allowed, warned              |
| delete  | used otherwise                                         | allowed, warned              |
"""

from __future__ import annotations

from collections.abc import Iterator

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.controllers.admission.decision import (
    Decision,
    Finding,
    counted,
    decided,
    some,
)
from beamlit_operator.controllers.admission.deletion import allowed_by_annotation, how_to
from beamlit_operator.controllers.admission.impact import World, impact
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held
from beamlit_operator.policy import unknown, values_of


def review(new: Held[Policy], old: Held[Policy] | None, picture: Picture) -> Decision:
    """The decision about a Policy that is created (``old`` is None) or changed."""
    if new.parsed is None:
        return Decision(warnings=(f"the spec cannot be read: {new.problem}",))
    catalogue = picture.settings.catalogue
    values = values_of(new.parsed, catalogue=catalogue)
    warnings = [Finding(each) for each in unknown(values, catalogue=catalogue)]
    before = old.parsed if old is not None else None
    warnings += _impact(new.key.namespace, new.key.name, before, new.parsed, picture)
    return decided(f"Policy {new.metadata.name}", warnings=warnings)


def users(namespace: str, name: str, picture: Picture) -> Iterator[Held[ModelDeployment]]:
    """The deployments that the Policy concerns, by way of their Environment or themselves."""
    environments = [each.metadata.name for each in picture.environments_with(namespace, name)]
    for environment in environments:
        yield from picture.deployments_in(namespace, environment)
    for each in picture.deployments_with(namespace, name):
        if each.parsed is not None and each.parsed.spec.environment not in environments:
            yield each


def _impact(
    namespace: str, name: str, old: Policy | None, new: Policy | None, picture: Picture
) -> list[Finding]:
    policies = picture.policies(namespace)

    def environment(of: str) -> Environment | None:
        return picture.environment(namespace, of)

    return impact(
        users(namespace, name, picture),
        before=World(environment, policies.with_change(name, old)),
        after=World(environment, policies.with_change(name, new)),
        picture=picture,
    )


def deletion(policy: Held[Policy], picture: Picture) -> Decision:
    """The decision about deleting a Policy."""
    namespace, name = policy.key
    bound = [
        (environment.metadata.name, [*picture.deployments_in(namespace, environment.metadata.name)])
        for environment in picture.environments_with(namespace, name)
        if environment.parsed is not None
        and any(each.mandatory and each.name == name for each in environment.parsed.spec.policies)
    ]
    held = [(environment, found) for environment, found in bound if found]
    if held and not allowed_by_annotation(policy.metadata):
        environments = [environment for environment, _ in held]
        deployments = [each.metadata.name for _, found in held for each in found]
        refusal = Finding(
            f"it is mandatory in environment {some(environments)}, which holds "
            f"{counted(len(deployments), 'ModelDeployment')} ({some(deployments)}): take it out of "
            f"spec.policies of the environment first, or {_annotate(policy)}",
            frozenset(
                {Key(Kind.ENVIRONMENT, Workspace(namespace), each) for each in environments[:4]}
                | {
                    Key(Kind.MODEL_DEPLOYMENT, Workspace(namespace), each)
                    for each in deployments[:4]
                }
                | {Key(Kind.POLICY, Workspace(namespace), name)}
            ),
        )
        return decided(f"Policy {name} is in use", refusals=[refusal])
    warnings = _impact(namespace, name, policy.parsed, None, picture)
    return decided(f"Policy {name}", warnings=warnings)


def _annotate(policy: Held[Policy]) -> str:
    return how_to("policy", policy.metadata).partition(", or ")[2]
