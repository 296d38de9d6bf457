"""The sentences that explain what became of a policy. Words only, no decisions."""

from collections.abc import Iterable, Mapping

from beamlit_operator.policy.algebra import Value, ValueSet, written

_SHOWN = 6
"""Values a sentence names before it says how many more there are."""

_OTHERS = 3
"""Other policies that a sentence describes before it says how many more there are."""


def listed(values: Iterable[Value] | None) -> str:
    """A set in words: `country:us and country:ca`, or `anything`."""
    if values is None:
        return "anything"
    names = written(values)
    if len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def mandatory(
    values: ValueSet,
    *,
    others: Mapping[str, ValueSet],
    bound: ValueSet | None,
    allowed: ValueSet | None,
) -> str:
    text = f"mandatory in the environment; it allows {listed(values)}"
    if others:
        beside = [f"{name} ({listed(each)})" for name, each in sorted(others.items())]
        if len(beside) > _OTHERS:
            beside = [*beside[:_OTHERS], f"{len(beside) - _OTHERS} more"]
        text += (
            f"; mandatory policies of one type add up, so it stands beside {', '.join(beside)}: "
            f"each of them widens what the others allow"
        )
    if allowed != bound:
        text += f"; weaker policies narrow that to {listed(allowed)}"
    return text


def enforced(*, own: bool, stands_for: str | None) -> str:
    if stands_for is not None:
        return f"it stands in for the environment's optional policy {stands_for}"
    if own:
        return "all it allows is within what the environment allows"
    return "optional in the environment, and the deployment keeps it"


def narrowed(values: ValueSet, above: ValueSet | None, *, own: bool) -> str:
    return (
        f"of the {listed(values)} it allows, only the part within the {_above(own)} "
        f"({listed(above)}) counts"
    )


def overridden(values: ValueSet, above: ValueSet | None, *, own: bool) -> str:
    return (
        f"it allows {listed(values)}, which is outside the {_above(own)} ({listed(above)}); "
        f"that one is enforced"
    )


def _above(own: bool) -> str:
    return "environment's bound" if own else "environment's mandatory bound"


def waits(missing: str) -> str:
    return (
        f"it counts again when {missing} exists: what is left of it within the environment's bound "
        f"is not known, so it neither places nor removes anything"
    )


def replaced(by: str) -> str:
    return f"optional in the environment; the deployment replaces it by {by}"


def removed() -> str:
    return "optional in the environment; the deployment removes it (spec.withoutPolicies)"


def no_environment(name: str) -> str:
    return (
        f"Environment {name} does not exist: create it, or name another in spec.environment; "
        f"nothing is placed until then"
    )


def no_policy(name: str, *, named: str = "") -> str:
    """``named`` is the field that names it, where that is not told beside."""
    return (
        f"Policy {name} does not exist: create it{_or_taken_out(named)}; "
        f"nothing new is placed until then"
    )


def empty_policy(name: str, policy_type: str, *, named: str = "") -> str:
    return (
        f"Policy {name} has no entry in spec.{policy_type}s: add one{_or_taken_out(named)}; "
        f"nothing new is placed until then"
    )


def _or_taken_out(field: str) -> str:
    return f", or take it out of {field}" if field else ""


def mandatory_stays(policy: str, environment: str, *, replacement: str | None = None) -> str:
    field = "spec.withoutPolicies" if replacement is None else f"spec.policies[{replacement}]"
    verb = "removed" if replacement is None else f"replaced by {replacement}"
    return (
        f"policy {policy} is mandatory in environment {environment} and cannot be {verb}: "
        f"it stays in force; take it out of {field}"
    )


def replaces_nothing(name: str, old: str, environment: str) -> str:
    return (
        f"spec.policies[{name}].replaces names {old}, which environment {environment} does not "
        f"attach: {name} counts as the deployment's own"
    )


def replaces_another_type(name: str, old: str, *, types: tuple[str, str]) -> str:
    return (
        f"policy {name} is about {types[0]} and cannot replace {old}, which is about {types[1]}: "
        f"{old} stays, and {name} counts as the deployment's own"
    )


def removes_nothing(name: str, environment: str) -> str:
    return (
        f"spec.withoutPolicies names {name}, which environment {environment} does not attach: "
        f"it has no effect"
    )
