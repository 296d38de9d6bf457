"""May this Environment be written, or deleted?

| request | situation                                            | then                           |
|---------|------------------------------------------------------|--------------------------------|
| write   | anything                                             | allowed                        |
| write   | a policy does not exist                              | warned: applied in any order   |
| write   | two mandatory policies of one type                   | warned: they add up            |
| write   | a mandatory policy excludes or narrows an optional   | warned                         |
| write   | deployments collide, move, lose pods or their place  | warned, with a few names       |
| delete  | no deployment in it                                  | allowed                        |
| delete  | deployments, annotated `beamlit.com/allow-deletion`  | allowed                        |
| delete  | deployments                                          | refused                        |
"""

from __future__ import annotations

from collections.abc import Iterator

from beamlit_operator.api import Environment, ModelDeployment
from beamlit_operator.api.meta import ObjectMeta
from beamlit_operator.api.modeldeployment import ModelDeploymentSpec
from beamlit_operator.controllers.admission.decision import (
    ALLOWED,
    Decision,
    Finding,
    counted,
    decided,
    some,
)
from beamlit_operator.controllers.admission.deletion import allowed_by_annotation, how_to
from beamlit_operator.controllers.admission.deployments import losing
from beamlit_operator.controllers.admission.impact import World, impact
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held
from beamlit_operator.policy import EffectivePolicy, effective_policy
from beamlit_operator.policy.because import listed


def review(new: Held[Environment], old: Held[Environment] | None, picture: Picture) -> Decision:
    """The decision about an Environment that is created (``old`` is None) or changed."""
    if new.parsed is None:
        return Decision(warnings=(f"the spec cannot be read: {new.problem}",))
    subject = f"Environment {new.metadata.name}"
    warnings = [
        *missing(new.parsed, picture),
        *adding_up(new.parsed, picture),
        *excluded(new.parsed, picture),
        *_impact(new.parsed, old.parsed if old is not None else None, picture),
    ]
    return decided(subject, warnings=warnings)


def missing(environment: Environment, picture: Picture) -> Iterator[Finding]:
    """Do its policies exist?"""
    workspace = environment.metadata.namespace
    known = picture.policies(workspace)
    gone = sorted({p.name for p in environment.spec.policies if p.name not in known})
    if gone:
        named = some(gone)
        subject = f"Policy {named} does" if len(gone) == 1 else f"Policies {named} do"
        yield Finding(
            f"{subject} not exist yet: nothing new is placed in this environment until then",
            frozenset(Key(Kind.POLICY, Workspace(workspace), name) for name in gone[:4]),
        )


def adding_up(environment: Environment, picture: Picture) -> Iterator[Finding]:
    """Are several mandatory policies of one type? Their union holds, not what they share."""
    known = picture.policies(environment.metadata.namespace)
    by_type: dict[str, list[str]] = {}
    for each in environment.spec.policies:
        policy = known.get(each.name)
        if each.mandatory and policy is not None:
            by_type.setdefault(policy.spec.type, []).append(each.name)
    allowed = _alone(environment, picture)
    for policy_type, names in sorted(by_type.items()):
        if len(names) > 1:
            aspect = allowed.location if policy_type == "location" else allowed.flavor
            yield Finding(
                f"policies {some(names)} are mandatory and both of type {policy_type}: they add "
                f"up, so that {listed(aspect.allowed)} is allowed"
                if len(names) == 2
                else f"{len(names)} mandatory policies are of type {policy_type} ({some(names)}): "
                f"they add up, so that {listed(aspect.allowed)} is allowed"
            )


def excluded(environment: Environment, picture: Picture) -> Iterator[Finding]:
    """Does what is mandatory leave its optional policies without effect?"""
    for row, bound in losing(_alone(environment, picture)):
        yield Finding(f"policy {row.name} is {row.effect} by {bound}: {row.because}")


def _alone(environment: Environment, picture: Picture) -> EffectivePolicy:
    """What holds for a deployment in it that has no policies of its own."""
    metadata = ObjectMeta(name="any", namespace=environment.metadata.namespace)
    # Unchecked: its name may be none yet (`generateName`), or one that the API server will refuse.
    spec = ModelDeploymentSpec.model_construct(
        model="any", environment=environment.metadata.name or "any"
    )
    return effective_policy(
        ModelDeployment(metadata=metadata, spec=spec),
        environment,
        policies=picture.policies(environment.metadata.namespace),
        catalogue=picture.settings.catalogue,
    )


def _impact(new: Environment, old: Environment | None, picture: Picture) -> list[Finding]:
    workspace, name = new.metadata.namespace, new.metadata.name
    policies = picture.policies(workspace)
    return impact(
        picture.deployments_in(workspace, name),
        before=World(lambda _: old, policies),
        after=World(lambda _: new, policies),
        picture=picture,
    )


def deletion(environment: Held[Environment], picture: Picture) -> Decision:
    """The decision about deleting an Environment."""
    workspace, name = environment.key
    users = [each.metadata.name for each in picture.deployments_in(workspace, name)]
    if not users or allowed_by_annotation(environment.metadata):
        return ALLOWED
    finding = Finding(
        f"{counted(len(users), 'ModelDeployment')} in it would be without its policies, and "
        f"nothing new would be placed for them ({some(users)}): "
        f"{how_to('environment', environment.metadata)}",
        frozenset(Key(Kind.MODEL_DEPLOYMENT, Workspace(workspace), user) for user in users[:4])
        | {Key(Kind.ENVIRONMENT, Workspace(workspace), name)},
    )
    return decided(f"Environment {name} is in use", refusals=[finding])
