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
may be placed. What is returned besides binds what already runs, and holds what can be resolved:

| unresolved, of the type or of none | binds what runs | says nothing yet |
|------------------------------------|-----------------|------------------|
| the Environment                    | nothing         | D                |
| one in M                           | the rest of M   | O and D          |
| one in O                           | M, the rest of O| D                |
| one in D                           | M, O, rest of D |                  |

Below an unresolved level nothing is judged: what a weaker policy leaves depends on the bound that
is missing, and it might be overridden by it. A deployment's own policy never drives out what its
environment's policy, now gone, had put there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import because
from beamlit_operator.policy.algebra import Algebra, ValueSet
from beamlit_operator.policy.attachments import (
    Attached,
    Group,
    IgnoredAttempt,
    Level,
    attachments,
    defect,
)
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.locations import Entries, PolicyType, algebra, parsed
from beamlit_operator.policy.reading import built_in


class Effect(StrEnum):
    """What became of a policy."""

    ENFORCED = "enforced"
    NARROWED = "narrowed"
    OVERRIDDEN = "overridden"
    REPLACED = "replaced"
    REMOVED = "removed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of one attached policy, and why."""

    name: str
    level: Level
    mandatory: bool
    effect: Effect
    because: str
    group: Group
    """Where it stands in the rules above, or would if it were in force."""
    contribution: ValueSet = frozenset()
    """What it allows within the bound above it; empty unless it is enforced or narrowed."""
    waits: bool = False
    """Without effect only because something above it cannot be resolved."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """The result for one policy type. `allowed` is None for anything, and never empty."""

    allowed: ValueSet | None
    policies: tuple[Trace, ...]

    def overridden(self) -> tuple[Trace, ...]:
        """The policies that ended without effect because a stronger one excludes them."""
        return tuple(
            row for row in self.policies if row.effect is Effect.OVERRIDDEN and not row.waits
        )


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A reference that cannot be followed; while there is one, nothing new is placed."""

    kind: Literal["Environment", "Policy"]
    name: str
    message: str


@dataclass(frozen=True, slots=True)
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


class _Named(NamedTuple):
    """What a name that is attached somewhere stands for."""

    policy_type: str | None
    """None when there is no such policy: it counts for both types."""
    values: ValueSet | None
    """None when it cannot be resolved, or does not govern models."""
    problem: str | None = None


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
    attached = attachments(deployment, environment, policies)
    named = {
        name: _named(name, policies.get(name), known)
        for name in {each.name for each in attached.rows}
    }
    unresolved: list[Unresolved] = []
    if environment is None:
        where = deployment.spec.environment
        unresolved.append(Unresolved("Environment", where, because.no_environment(where)))
    broken: dict[str, str] = {}
    for each in attached.rows:
        if named[each.name].problem and each.in_force:
            its = "spec.policies"
            if each.level == "environment":
                its += f" of Environment {deployment.spec.environment}"
            broken.setdefault(each.name, its)
    for name, field in sorted(broken.items()):
        message = defect(name, policies.get(name), named=field) or ""
        unresolved.append(Unresolved("Policy", name, message))
    missing = f"Environment {unresolved[0].name}" if environment is None else None
    standing = [(each, named[each.name]) for each in attached.rows]
    location, flavor = (
        _aspect(
            policy_type,
            tuple([pair for pair in standing if pair[1].policy_type in (policy_type, None)]),
            missing,
            algebra(policy_type, known),
        )
        for policy_type in PolicyType
    )
    return EffectivePolicy(
        location=location,
        flavor=flavor,
        unresolved=tuple(unresolved),
        ignored=attached.ignored,
        notes=attached.notes,
    )


def values_of(policy: Policy, *, catalogue: Catalogue) -> ValueSet:
    """What a policy allows, in normal form and reduced."""
    return parsed(policy.spec.entries, PolicyType(policy.spec.type), catalogue)


def applies_to_models(policy: Policy) -> bool:
    """Whether the policy governs models; one that names no resource types governs everything."""
    return not policy.spec.resource_types or "model" in policy.spec.resource_types


def _named(name: str, policy: Policy | None, catalogue: Catalogue) -> _Named:
    if policy is None:
        return _Named(None, None, defect(name, policy))
    spec = policy.spec
    if not (entries := spec.entries):
        return _Named(spec.type, None, defect(name, policy))
    return _standing_for(entries, spec.type, applies_to_models(policy), catalogue)


# Values, rows and whole aspects are remembered: the deployments of an environment have most of them
# in common. What goes in are values too, so the same question always has the same answer.
_remembered = lru_cache(maxsize=32768)


@_remembered
def _standing_for(
    entries: Entries,
    policy_type: Literal["location", "flavor"],
    governs: bool,
    catalogue: Catalogue,
) -> _Named:
    values = parsed(entries, PolicyType(policy_type), catalogue) if governs else None
    return _Named(policy_type, values)


_WEAKER: Mapping[Group, tuple[Group, ...]] = {"M": ("O", "D"), "O": ("D",), "D": ()}


@_remembered
def _aspect(
    policy_type: PolicyType,
    standing: tuple[tuple[Attached, _Named], ...],
    no_environment: str | None,
    sets: Algebra,
) -> Aspect:
    """The result for one type, of the attachments that concern it."""
    groups: dict[Group, list[ValueSet]] = {"M": [], "O": [], "D": []}
    waits_for: dict[Group, str | None] = {"M": None, "O": None, "D": no_environment}
    for each, named in standing:
        if not each.in_force:
            continue
        if named.values is not None:
            groups[each.group].append(named.values)
        elif named.problem:
            for weaker in _WEAKER[each.group]:
                waits_for[weaker] = waits_for[weaker] or f"Policy {each.name}"
    m = sets.union(*groups["M"]) if groups["M"] else None
    o = sets.union(*groups["O"]) if groups["O"] and not waits_for["O"] else None
    d = sets.union(*groups["D"]) if groups["D"] and not waits_for["D"] else None
    e = _narrow(m, o, sets)
    allowed = _narrow(e, d, sets)
    mandatory = tuple(
        (each.name, named.values)
        for each, named in standing
        if each.mandatory and named.values is not None
    )
    rows = []
    for each, named in standing:
        values = named.values
        if each.in_force and named.problem is not None:
            rows.append(_row(each, Effect.MISSING, named.problem))
        elif values is None:
            # It does not govern models, or nobody misses it: it was removed or replaced.
            continue
        elif each.replaced_by is not None:
            rows.append(_row(each, Effect.REPLACED, because.replaced(each.replaced_by)))
        elif each.removed:
            rows.append(_row(each, Effect.REMOVED, because.removed()))
        elif each.mandatory:
            rows.append(_enforced(each, values, mandatory, m, allowed))
        elif (missing := waits_for[each.group]) is not None:
            rows.append(_waiting(each, missing))
        else:
            above = e if each.group == "D" else m
            rows.append(_judged(each, values, above, sets))
    return Aspect(allowed, tuple(rows))


def _narrow(bound: ValueSet | None, by: ValueSet | None, sets: Algebra) -> ValueSet | None:
    """The bound narrowed by a weaker set; the bound alone where the two have nothing in common."""
    if bound is None or by is None:
        return by if bound is None else bound
    return sets.intersection(bound, by) or bound


@_remembered
def _enforced(
    each: Attached,
    values: ValueSet,
    mandatory: tuple[tuple[str, ValueSet], ...],
    bound: ValueSet | None,
    allowed: ValueSet | None,
) -> Trace:
    others = {name: other for name, other in mandatory if name != each.name}
    text = because.mandatory(values, others=others, bound=bound, allowed=allowed)
    return _row(each, Effect.ENFORCED, text, values)


@_remembered
def _judged(each: Attached, values: ValueSet, above: ValueSet | None, sets: Algebra) -> Trace:
    own = each.group == "D"
    contribution = values if above is None else sets.intersection(values, above)
    if not contribution:
        return _row(each, Effect.OVERRIDDEN, because.overridden(values, above, own=own))
    if above is None or sets.covers(above, values):
        text = because.enforced(own=own, stands_for=each.stands_for)
        return _row(each, Effect.ENFORCED, text, contribution)
    return _row(each, Effect.NARROWED, because.narrowed(values, above, own=own), contribution)


def _waiting(each: Attached, missing: str) -> Trace:
    text = because.waits(missing)
    return Trace(
        each.name, each.level, False, Effect.OVERRIDDEN, text, group=each.group, waits=True
    )


def _row(each: Attached, effect: Effect, text: str, contribution: ValueSet = frozenset()) -> Trace:
    return Trace(each.name, each.level, each.mandatory, effect, text, each.group, contribution)
