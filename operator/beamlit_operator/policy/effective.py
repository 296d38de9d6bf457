"""What a deployment is held to: the policies of its environment and its own, as one result.

For each policy type (design: "Policy semantics"), with sets of allowed values and *None* for
anything:

    M  union of the environment's mandatory policies
    O  union of its optional ones that the deployment neither removed nor replaced,
       and of the replacements
    D  union of the deployment's other policies

| M   | O   | D   | M∩O   | E   | E∩D   | effective | O is       | D is       |
|-----|-----|-----|-------|-----|-------|-----------|------------|------------|
| -   | -   | -   |       | -   |       | anything  |            |            |
| -   | -   | set |       | -   |       | D         |            | enforced   |
| -   | set | -   |       | O   |       | O         | enforced   |            |
| -   | set | set |       | O   | some  | O∩D       | enforced   | in force   |
| -   | set | set |       | O   | empty | O         | enforced   | overridden |
| set | -   | -   |       | M   |       | M         |            |            |
| set | -   | set |       | M   | some  | M∩D       |            | in force   |
| set | -   | set |       | M   | empty | M         |            | overridden |
| set | set | -   | some  | M∩O |       | M∩O       | in force   |            |
| set | set | -   | empty | M   |       | M         | overridden |            |
| set | set | set | some  | M∩O | some  | M∩O∩D     | in force   | in force   |
| set | set | set | some  | M∩O | empty | M∩O       | in force   | overridden |
| set | set | set | empty | M   | some  | M∩D       | overridden | in force   |
| set | set | set | empty | M   | empty | M         | overridden | overridden |

M is always enforced. "In force" is said per policy, against the bound above it (M for O, E for D):
*enforced* when the bound allows all of it, *narrowed* when a part, *overridden* when nothing.

Fails closed: a reference that cannot be resolved is reported in `unresolved`, and then nothing new
may be placed; what is returned besides holds what could be resolved, for what already runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import because
from beamlit_operator.policy.algebra import Parent, ValueSet, intersection, reduced, subset, union
from beamlit_operator.policy.catalogue import Catalogue, built_in
from beamlit_operator.policy.locations import PolicyType, normal, parents

Level = Literal["environment", "deployment"]


class Effect(StrEnum):
    """What became of a policy."""

    ENFORCED = "enforced"
    NARROWED = "narrowed"
    OVERRIDDEN = "overridden"
    REPLACED = "replaced"
    REMOVED = "removed"
    MISSING = "missing"


@dataclass(frozen=True)
class Trace:
    """What became of one attached policy, and why."""

    name: str
    level: Level
    mandatory: bool
    effect: Effect
    because: str
    group: Literal["M", "O", "D"]
    """Where it stands in the rules above, or would if it were in force."""
    contribution: ValueSet = frozenset()
    """What it allows within the bound above it; empty unless it is enforced or narrowed."""


@dataclass(frozen=True)
class Aspect:
    """The result for one policy type. `allowed` is None for anything, and never empty."""

    allowed: ValueSet | None
    policies: tuple[Trace, ...]

    def overridden(self) -> tuple[Trace, ...]:
        """The policies that ended without effect because a stronger one excludes them."""
        return tuple(row for row in self.policies if row.effect is Effect.OVERRIDDEN)


@dataclass(frozen=True)
class Unresolved:
    """A reference that cannot be followed; while there is one, nothing new is placed."""

    kind: Literal["Environment", "Policy"]
    name: str
    message: str


@dataclass(frozen=True)
class IgnoredAttempt:
    """The deployment tried to remove or replace a mandatory policy."""

    policy: str
    action: Literal["remove", "replace"]
    message: str


@dataclass(frozen=True)
class EffectivePolicy:
    """What a deployment is held to."""

    location: Aspect
    flavor: Aspect
    unresolved: tuple[Unresolved, ...] = ()
    ignored: tuple[IgnoredAttempt, ...] = ()
    notes: tuple[str, ...] = ()
    """Things that have no effect and that their author should know: sentences."""

    @property
    def resolved(self) -> bool:
        """Whether every reference was found; if not, nothing new may be placed."""
        return not self.unresolved


@dataclass(frozen=True)
class _Attached:
    """One attachment with the policy it names."""

    name: str
    level: Level
    mandatory: bool = False
    replaced_by: str | None = None
    removed: bool = False
    stands_for: str | None = None

    @property
    def in_force(self) -> bool:
        return self.replaced_by is None and not self.removed

    @property
    def is_own(self) -> bool:
        """Whether it stands in D: of the deployment's, those that replace nothing."""
        return self.level == "deployment" and self.stands_for is None


def effective_policy(
    deployment: ModelDeployment,
    environment: Environment | None,
    *,
    policies: Mapping[str, Policy],
    catalogue: Catalogue | None = None,
) -> EffectivePolicy:
    """What the deployment is held to.

    Args:
        deployment: the deployment.
        environment: the Environment it names; None if there is none.
        policies: the Policies of its namespace by name.
        catalogue: what continents and countries contain; the built-in one by default.
    """
    known = catalogue or built_in()
    attached, ignored, notes = _attachments(deployment, environment, policies)
    unresolved: list[Unresolved] = []
    if environment is None:
        name = deployment.spec.environment
        unresolved.append(Unresolved("Environment", name, because.no_environment(name)))
    for name in sorted({each.name for each in attached if each.in_force}):
        message = _defect(name, policies.get(name))
        if message is not None:
            unresolved.append(Unresolved("Policy", name, message))
    broken = {each.name: each.message for each in unresolved if each.kind == "Policy"}
    location, flavor = (
        _aspect(policy_type, attached, policies=policies, broken=broken, catalogue=known)
        for policy_type in (PolicyType.LOCATION, PolicyType.FLAVOR)
    )
    return EffectivePolicy(
        location=location,
        flavor=flavor,
        unresolved=tuple(unresolved),
        ignored=tuple(ignored),
        notes=tuple(notes),
    )


def _attachments(
    deployment: ModelDeployment,
    environment: Environment | None,
    policies: Mapping[str, Policy],
) -> tuple[list[_Attached], list[IgnoredAttempt], list[str]]:
    """Who attached what, after removals and replacements; in an order that depends on names only.

    A replacement counts only for an optional policy of the environment of the same type. Otherwise
    the attempt has no effect on the environment, and the policy stands among the deployment's own.
    """
    inherited: dict[str, bool] = {}
    for attachment in environment.spec.policies if environment else ():
        inherited[attachment.name] = attachment.mandatory or inherited.get(attachment.name, False)
    ignored: list[IgnoredAttempt] = []
    notes: list[str] = []
    replaced: dict[str, list[str]] = {}
    own: set[_Attached] = set()
    for name, old in sorted(
        {(each.name, each.replaces or "") for each in deployment.spec.policies}
    ):
        stands_for = None
        if old and environment is not None:
            if old not in inherited:
                notes.append(because.replaces_nothing(name, old, environment.metadata.name))
            elif inherited[old]:
                message = because.mandatory_stays(old, environment.metadata.name, replacement=name)
                ignored.append(IgnoredAttempt(old, "replace", message))
            elif _defect(name, policies.get(name)) or _defect(old, policies.get(old)):
                # Unresolved anyway; until it is, what the environment says stays in force.
                pass
            elif policies[name].spec.type != policies[old].spec.type:
                types = (policies[name].spec.type, policies[old].spec.type)
                notes.append(because.replaces_another_type(name, old, types=types))
            else:
                stands_for = old
                replaced.setdefault(old, []).append(name)
        own.add(_Attached(name, "deployment", stands_for=stands_for))
    for name in sorted(set(deployment.spec.without_policies)):
        if environment is None:
            continue
        if name not in inherited:
            notes.append(because.removes_nothing(name, environment.metadata.name))
        elif inherited[name]:
            message = because.mandatory_stays(name, environment.metadata.name)
            ignored.append(IgnoredAttempt(name, "remove", message))
    removed = set(deployment.spec.without_policies)
    attached = [
        _Attached(
            name,
            "environment",
            mandatory=mandatory,
            replaced_by=" and ".join(replaced.get(name, ())) or None,
            removed=not mandatory and name in removed and name not in replaced,
        )
        for name, mandatory in inherited.items()
    ]
    attached.sort(key=lambda each: (not each.mandatory, each.name))
    attached += sorted(own, key=lambda each: (each.name, each.stands_for or ""))
    return attached, ignored, notes


def _defect(name: str, policy: Policy | None) -> str | None:
    if policy is None:
        return because.no_policy(name)
    entries: Sequence[object] = (
        policy.spec.locations if policy.spec.type == "location" else policy.spec.flavors
    )
    return None if entries else because.empty_policy(name, policy.spec.type)


def values_of(policy: Policy, *, catalogue: Catalogue) -> ValueSet:
    """What a policy allows, in normal form and reduced."""
    policy_type = PolicyType(policy.spec.type)
    entries = policy.spec.locations if policy_type is PolicyType.LOCATION else policy.spec.flavors
    return reduced(
        (normal(each.type, each.name, catalogue=catalogue) for each in entries),
        parents(policy_type, catalogue),
    )


def applies_to_models(policy: Policy) -> bool:
    """Whether the policy governs models; one that names no resource types governs everything."""
    return not policy.spec.resource_types or "model" in policy.spec.resource_types


def _aspect(
    policy_type: PolicyType,
    attached: Sequence[_Attached],
    *,
    policies: Mapping[str, Policy],
    broken: Mapping[str, str],
    catalogue: Catalogue,
) -> Aspect:
    parent = parents(policy_type, catalogue)
    sets: dict[str, ValueSet] = {}
    for each in attached:
        policy = policies.get(each.name)
        if (
            policy is not None
            and policy.spec.type == policy_type
            and each.name not in broken
            and applies_to_models(policy)
        ):
            sets[each.name] = values_of(policy, catalogue=catalogue)
    live = [each for each in attached if each.in_force and each.name in sets]
    mandatory = [each.name for each in live if each.mandatory]
    optional = [each.name for each in live if not each.mandatory and not each.is_own]
    own = [each.name for each in live if each.is_own]

    m = union((sets[name] for name in mandatory), parent) if mandatory else None
    o = union((sets[name] for name in optional), parent) if optional else None
    d = union((sets[name] for name in own), parent) if own else None
    e = _narrow(m, o, parent)
    allowed = _narrow(e, d, parent)

    rows = []
    for each in attached:
        # A policy that is not there has no type: it is told under both.
        if each.in_force and each.name in broken:
            if each.name not in policies or policies[each.name].spec.type == policy_type:
                rows.append(_row(each, Effect.MISSING, broken[each.name]))
        elif each.replaced_by is not None:
            if each.name in sets:
                rows.append(_row(each, Effect.REPLACED, because.replaced(each.replaced_by)))
        elif each.removed:
            if each.name in sets:
                rows.append(_row(each, Effect.REMOVED, because.removed()))
        elif each.name in sets and each.mandatory:
            others = {name: sets[name] for name in mandatory if name != each.name}
            rows.append(
                _row(
                    each,
                    Effect.ENFORCED,
                    because.mandatory(sets[each.name], others=others, allowed=allowed),
                    sets[each.name],
                )
            )
        elif each.name in sets:
            above = e if each.is_own else m
            rows.append(_judged(each, sets[each.name], above=above, parent=parent))
    return Aspect(allowed=allowed, policies=tuple(rows))


def _narrow(bound: ValueSet | None, by: ValueSet | None, parent: Parent) -> ValueSet | None:
    """The bound narrowed by a weaker set; the bound alone where the two have nothing in common."""
    if bound is None or by is None:
        return by if bound is None else bound
    return intersection(bound, by, parent) or bound


def _judged(each: _Attached, values: ValueSet, *, above: ValueSet | None, parent: Parent) -> Trace:
    own = each.is_own
    contribution = values if above is None else intersection(values, above, parent)
    if not contribution:
        return _row(each, Effect.OVERRIDDEN, because.overridden(values, above, own=own))
    if subset(values, above, parent):
        text = because.enforced(own=own, stands_for=each.stands_for)
        return _row(each, Effect.ENFORCED, text, contribution)
    return _row(each, Effect.NARROWED, because.narrowed(values, above, own=own), contribution)


def _row(each: _Attached, effect: Effect, text: str, contribution: ValueSet = frozenset()) -> Trace:
    group: Literal["M", "O", "D"] = "M" if each.mandatory else "D" if each.is_own else "O"
    return Trace(each.name, each.level, each.mandatory, effect, text, group, contribution)
