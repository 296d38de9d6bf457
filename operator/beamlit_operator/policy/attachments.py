"""Who attached which policy, and where each one stands after removals and replacements.

| attached by     | it is                                     | stands in |
|-----------------|-------------------------------------------|-----------|
| the environment | mandatory                                 | M         |
| the environment | optional                                  | O         |
| the environment | optional, and replaced                    | nowhere   |
| the environment | optional, and removed                     | nowhere   |
| the deployment  | replacing an optional one of its own type | O         |
| the deployment  | anything else                             | D         |

A name that an environment lists twice is mandatory if either says so. A policy that is replaced and
removed counts as replaced. A removal or replacement of a mandatory policy is ignored and reported;
what was to replace it stands among the deployment's own. Order and repetition never matter.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import because

Level = Literal["environment", "deployment"]
Group = Literal["M", "O", "D"]


class Attached(NamedTuple):
    """One attachment."""

    name: str
    level: Level
    mandatory: bool = False
    replaced_by: str | None = None
    removed: bool = False
    stands_for: str | None = None
    """The optional policy of the environment that it replaces."""

    @property
    def in_force(self) -> bool:
        """Whether it counts: it was neither replaced nor removed."""
        return self.replaced_by is None and not self.removed

    @property
    def group(self) -> Group:
        """Where it stands in the rules, or would if it were in force."""
        if self.mandatory:
            return "M"
        return "D" if self.level == "deployment" and self.stands_for is None else "O"


class IgnoredAttempt(NamedTuple):
    """The deployment tried to remove or replace a mandatory policy."""

    policy: str
    action: Literal["remove", "replace"]
    message: str


class Attachments(NamedTuple):
    """All of them, strongest first, and what the deployment asked for in vain."""

    rows: tuple[Attached, ...]
    ignored: tuple[IgnoredAttempt, ...] = ()
    notes: tuple[str, ...] = ()


def attachments(
    deployment: ModelDeployment,
    environment: Environment | None,
    policies: Mapping[str, Policy],
) -> Attachments:
    """Who attached what, in an order that depends on names only."""
    attached = () if environment is None else environment.spec.policies
    inherited: dict[str, bool] = {}
    for each in attached:
        inherited[each.name] = each.mandatory or inherited.get(each.name, False)
    own = {(each.name, each.replaces or "") for each in deployment.spec.policies}
    removed = frozenset(deployment.spec.without_policies)
    if environment is None or not (removed or any([old for _, old in own])):
        return Attachments((*_inherited(tuple(inherited.items())), *_own(frozenset(own))))
    return _with_changes(environment, inherited, own=own, removed=removed, policies=policies)


@lru_cache(maxsize=16384)
def _inherited(names: tuple[tuple[str, bool], ...]) -> tuple[Attached, ...]:
    return _ordered([Attached(name, "environment", must) for name, must in names], [])


@lru_cache(maxsize=16384)
def _own(names: frozenset[tuple[str, str]]) -> tuple[Attached, ...]:
    return _ordered([], [Attached(name, "deployment") for name in {name for name, _ in names}])


def _with_changes(
    environment: Environment,
    inherited: Mapping[str, bool],
    *,
    own: set[tuple[str, str]],
    removed: frozenset[str],
    policies: Mapping[str, Policy],
) -> Attachments:
    where = environment.metadata.name
    ignored: list[IgnoredAttempt] = []
    notes: list[str] = []
    replaced: dict[str, list[str]] = {}
    mine: set[Attached] = set()
    for name, old in sorted(own):
        stands_for = None
        if not old:
            pass
        elif old not in inherited:
            notes.append(because.replaces_nothing(name, old, where))
        elif inherited[old]:
            message = because.mandatory_stays(old, where, replacement=name)
            ignored.append(IgnoredAttempt(old, "replace", message))
        elif defect(name, policies.get(name)) or defect(old, policies.get(old)):
            # Unresolved anyway; until it is, what the environment says stays in force.
            pass
        elif policies[name].spec.type != policies[old].spec.type:
            types = (policies[name].spec.type, policies[old].spec.type)
            notes.append(because.replaces_another_type(name, old, types=types))
        else:
            stands_for = old
            replaced.setdefault(old, []).append(name)
        mine.add(Attached(name, "deployment", stands_for=stands_for))
    for name in sorted(removed):
        if name not in inherited:
            notes.append(because.removes_nothing(name, where))
        elif inherited[name]:
            ignored.append(IgnoredAttempt(name, "remove", because.mandatory_stays(name, where)))
    of_environment = [
        Attached(
            name,
            "environment",
            mandatory=mandatory,
            replaced_by=" and ".join(replaced.get(name, ())) or None,
            removed=not mandatory and name in removed and name not in replaced,
        )
        for name, mandatory in inherited.items()
    ]
    return Attachments(_ordered(of_environment, [*mine]), tuple(ignored), tuple(notes))


def _ordered(of_environment: list[Attached], mine: list[Attached]) -> tuple[Attached, ...]:
    of_environment.sort(key=lambda each: (not each.mandatory, each.name))
    mine.sort(key=lambda each: (each.name, each.stands_for or ""))
    return (*of_environment, *mine)


def defect(name: str, policy: Policy | None, *, named: str = "") -> str | None:
    """Why a reference to a policy cannot be resolved; None if it can. ``named``: by which field."""
    if policy is None:
        return because.no_policy(name, named=named)
    if policy.spec.entries:
        return None
    return because.empty_policy(name, policy.spec.type, named=named)
