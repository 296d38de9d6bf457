"""What an edit of an Environment or a Policy does to the deployments that are there.

Deployments that attach, remove and ask for the same share one computation: thousands of them have
few shapes. Beyond :data:`SHAPES` and :data:`DEPLOYMENTS` none is looked at, and that is said.

| before the edit     | after it                | told                                  |
|---------------------|-------------------------|---------------------------------------|
| pods where they may | some where they may not | removed at once, how many and of whom |
| a policy counts     | it is overridden        | by whom, and in which deployments     |
| flavors allowed     | one is not              | FlavorNotAllowed                      |
| references resolve  | one does not            | nothing new is placed                 |
| removed or replaced | the policy is mandatory | it stays in force                     |
| a node fits         | none does               | NoPlacement                           |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from beamlit_operator.api import Environment, ModelDeployment
from beamlit_operator.controllers import bounds
from beamlit_operator.controllers.admission.decision import Finding, counted, some
from beamlit_operator.controllers.admission.deployments import losing, unplaceable
from beamlit_operator.controllers.admission.picture import Picture, Policies
from beamlit_operator.controllers.objects import Held
from beamlit_operator.kube import Json
from beamlit_operator.policy import Effect, EffectivePolicy, Trace, effective_policy
from beamlit_operator.policy.placement import place
from beamlit_operator.workloads.devices import devices_of

SHAPES = 48
"""Different kinds of deployments that are looked at; one costs about 0.2 ms."""

DEPLOYMENTS = 1000
"""Deployments that are looked at: the API server waits, and 5 µs each add up."""


@dataclass(frozen=True, slots=True)
class World:
    """Environments and Policies as they are, or as they will be."""

    environment: Callable[[str], Environment | None]
    policies: Policies


@dataclass(slots=True)
class _Shape:
    """What the edit does to deployments of one shape."""

    before: EffectivePolicy
    after: EffectivePolicy
    starved: bool = False
    unplaced: bool = False
    names: list[str] = field(default_factory=list)

    @property
    def moved(self) -> bool:
        return (self.before.location.allowed, self.before.flavor.allowed) != (
            self.after.location.allowed,
            self.after.flavor.allowed,
        )


def impact(
    deployments: Iterable[Held[ModelDeployment]], *, before: World, after: World, picture: Picture
) -> list[Finding]:
    """What the edit does to the deployments, worst first; nothing if it does nothing."""
    shapes: dict[object, _Shape] = {}
    evicted, all_seen = 0, True
    losers: list[str] = []
    kinds = [*picture.node_kinds()]
    verdicts = _Verdicts(picture)
    for number, each in enumerate(deployments):
        if number >= DEPLOYMENTS:
            all_seen = False
            break
        deployment = each.parsed
        assert deployment is not None
        shape = shapes.get(key := _shape(deployment))
        if shape is None:
            if len(shapes) >= SHAPES:
                all_seen = False
                continue
            shape = shapes[key] = _compare(deployment, before, after, picture, kinds)
        shape.names.append(each.metadata.name)
        if not shape.moved or not deployment.status.replicas:
            continue
        gone = verdicts.leaving(picture.pods_of(each.key), shape)
        if gone:
            evicted += gone
            losers.append(each.metadata.name)
    found = [*_told(shapes.values())]
    if evicted:
        text = f"{counted(evicted, 'running pod')} outside what it then allows will be removed"
        found.insert(0, Finding(f"{text} at once, of {some(losers)}"))
    if not all_seen:
        text = "there are too many deployments, or kinds of them, to look at all: there may be more"
        found.append(Finding(text))
    return found


def _shape(deployment: ModelDeployment) -> object:
    spec = deployment.spec
    return (
        spec.environment,
        tuple((each.name, each.replaces) for each in spec.policies),
        spec.without_policies,
        tuple((each.type, each.name) for each in spec.flavors),
    )


def _compare(
    deployment: ModelDeployment,
    before: World,
    after: World,
    picture: Picture,
    kinds: list[Mapping[str, str]],
) -> _Shape:
    old, new = (_effective(deployment, world, picture) for world in (before, after))
    shape = _Shape(old, new)
    if old.resolved and new.resolved and shape.moved:
        catalogue = picture.settings.catalogue
        requested = deployment.spec.flavors
        shape.starved = bool(
            place(new, requested=requested, catalogue=catalogue).forbidden
        ) and not bool(place(old, requested=requested, catalogue=catalogue).forbidden)
        shape.unplaced = (
            not shape.starved
            and unplaceable(new, deployment, picture, kinds) is not None
            and unplaceable(old, deployment, picture, kinds) is None
        )
    return shape


def _effective(deployment: ModelDeployment, world: World, picture: Picture) -> EffectivePolicy:
    return effective_policy(
        deployment,
        world.environment(deployment.spec.environment),
        policies=world.policies,
        catalogue=picture.settings.catalogue,
    )


class _Verdicts:
    """Whether pods on a node leave by the edit. Of one shape on one node, all do or none."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._known: dict[tuple[int, str, bool], bool] = {}

    def leaving(self, pods: Iterable[Json], shape: _Shape) -> int:
        """How many of a deployment's pods may stay now and may not after the edit."""
        return sum(self._leaves(pod, shape) for pod in pods)

    def _leaves(self, pod: Json, shape: _Shape) -> bool:
        if pod["metadata"].get("deletionTimestamp"):
            return False
        spec = pod.get("spec") or {}
        node = spec.get("nodeName") or ""
        catalogue = self._picture.settings.catalogue
        key = (id(shape), node, bool(devices_of(spec, catalogue=catalogue)))
        if key not in self._known:
            labels = self._picture.node_labels(node)
            known = {node: labels} if labels is not None else {}
            after, before = (
                bounds.outside([pod], policy, node_labels=known, catalogue=catalogue)
                for policy in (shape.after, shape.before)
            )
            self._known[key] = bool(after) and not before
        return self._known[key]


def _told(shapes: Iterable[_Shape]) -> Iterator[Finding]:
    unresolved: list[str] = []
    starved: list[str] = []
    unplaced: list[str] = []
    overridden: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    for shape in shapes:
        if shape.before.resolved and not shape.after.resolved:
            unresolved += shape.names
        if shape.starved:
            starved += shape.names
        if shape.unplaced:
            unplaced += shape.names
        known = {(row.name, bound) for row, bound in _overridden(shape.before)}
        for row, bound in _overridden(shape.after):
            if (row.name, bound) not in known:
                text = f"policy {row.name} is overridden by {bound}: {row.because}"
                overridden.setdefault(text, []).extend(shape.names)
        old = {each.policy for each in shape.before.ignored}
        for attempt in shape.after.ignored:
            if attempt.policy not in old:
                kept.setdefault(attempt.policy, []).extend(shape.names)
    for names, one, many in (
        (unresolved, *_both("refers", "refer", "to what is missing: nothing new is placed")),
        (starved, *_both("asks", "ask", "for a flavor that is not allowed")),
        (unplaced, *_both("fits", "fit", "on no node that is there now")),
        *(
            (of, *_both("removes or replaces", "remove or replace", f"{policy}, now mandatory"))
            for policy, of in kept.items()
        ),
    ):
        if names:
            what = one if len(names) == 1 else many
            found = f"{counted(len(names), 'deployment')} then {what}: {some(sorted(names))}"
            yield Finding(found)
    for text, names in overridden.items():
        yield Finding(f"{text}; in {counted(len(names), 'deployment')}: {some(sorted(names))}")


def _both(one: str, many: str, rest: str) -> tuple[str, str]:
    return f"{one} {rest}", f"{many} {rest}"


def _overridden(policy: EffectivePolicy) -> Iterator[tuple[Trace, str]]:
    """The policies that stronger ones override, with these. What only waits for a missing one is
    told as that."""
    return (
        (row, bound) for row, bound in losing(policy) if row.effect is Effect.OVERRIDDEN and bound
    )
