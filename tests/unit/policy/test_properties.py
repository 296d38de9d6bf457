"""What holds for all policies: order and repetition never matter, nothing widens a bound."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import (
    Aspect,
    Effect,
    EffectivePolicy,
    built_in,
    effective_policy,
    explain_json,
)
from beamlit_operator.policy.algebra import (
    ValueSet,
    intersection,
    reduced,
    subset,
    union,
    written,
)
from beamlit_operator.policy.effective import values_of
from beamlit_operator.policy.locations import PolicyType, parents

PARENT = parents(PolicyType.LOCATION, built_in())

LOCATIONS = [
    ("continent", "na"), ("continent", "EU"), ("country", "us"), ("country", "CA"),
    ("country", "de"), ("country", "jp"), ("location", "us-east-1"), ("location", "eastus"),
    ("location", "eu-central-1"), ("location", "berlin-1"),
]  # fmt: skip
FLAVORS = [("cpu", "x86"), ("cpu", "arm"), ("gpu", "t4"), ("gpu", "Tesla-T4"), ("gpu", "l4")]
DEPLOYMENT = ModelDeployment.model_validate({"metadata": {"name": "iris"}, "spec": {"model": "m"}})
NAMES = ["p0", "p1", "p2", "p3", "p4", "p5"]


@dataclass(frozen=True)
class World:
    policies: dict[str, Policy]
    inherited: tuple[tuple[str, bool], ...]
    own: tuple[tuple[str, str | None], ...]
    without: tuple[str, ...]

    def decide(self) -> EffectivePolicy:
        environment = Environment.model_validate(
            {
                "metadata": {"name": "production"},
                "spec": {"policies": [{"name": n, "mandatory": m} for n, m in self.inherited]},
            }
        )
        deployment = ModelDeployment.model_validate(
            {
                "metadata": {"name": "iris"},
                "spec": {
                    "model": "iris",
                    "policies": [{"name": n, "replaces": r} for n, r in self.own],
                    "withoutPolicies": self.without,
                },
            }
        )
        return effective_policy(deployment, environment, policies=self.policies)


@st.composite
def policies(draw: st.DrawFn, name: str) -> Policy:
    kind, entries = draw(st.sampled_from([("location", LOCATIONS), ("flavor", FLAVORS)]))
    chosen = draw(st.lists(st.sampled_from(entries), min_size=1, max_size=4))
    return Policy.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"type": kind, f"{kind}s": [{"type": t, "name": n} for t, n in chosen]},
        }
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    present = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=3))
    name = st.sampled_from(NAMES)
    return World(
        policies={each: draw(policies(each)) for each in present},
        inherited=tuple(draw(st.lists(st.tuples(name, st.booleans()), max_size=4))),
        own=tuple(draw(st.lists(st.tuples(name, st.none() | name), max_size=3))),
        without=tuple(draw(st.lists(name, max_size=2))),
    )


def aspects(result: EffectivePolicy) -> list[tuple[PolicyType, Aspect]]:
    return [(PolicyType.LOCATION, result.location), (PolicyType.FLAVOR, result.flavor)]


def bound(world: World, policy_type: PolicyType) -> ValueSet | None:
    """The union of the mandatory policies of a type that exist."""
    sets = [
        values_of(world.policies[name], catalogue=built_in())
        for name, mandatory in world.inherited
        if mandatory and name in world.policies and world.policies[name].spec.type == policy_type
    ]
    return union(sets, parents(policy_type, built_in())) if sets else None


@settings(max_examples=200, deadline=None)
@given(world=worlds(), data=st.data())
def test_order_and_repetition_never_matter(world: World, data: st.DataObject) -> None:
    shuffled = World(
        policies=dict(data.draw(st.permutations(list(world.policies.items())))),
        inherited=tuple(data.draw(st.permutations(world.inherited + world.inherited[:1]))),
        own=tuple(data.draw(st.permutations(world.own + world.own[:1]))),
        without=tuple(data.draw(st.permutations(world.without + world.without[:1]))),
    )
    assert shuffled.decide() == world.decide()


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_nothing_widens_a_mandatory_bound_and_nothing_is_ever_empty(world: World) -> None:
    for policy_type, aspect in aspects(world.decide()):
        assert aspect.allowed is None or aspect.allowed
        hard = bound(world, policy_type)
        if hard is not None:
            assert aspect.allowed is not None
            assert subset(aspect.allowed, hard, parents(policy_type, built_in()))


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_what_a_deployment_attaches_never_widens_what_its_environment_allows(world: World) -> None:
    attaching = tuple((name, None) for name, _ in world.own)
    environment_alone = replace(world, own=()).decide()
    with_own = replace(world, own=attaching).decide()
    for (policy_type, alone), (_, both) in zip(
        aspects(environment_alone), aspects(with_own), strict=True
    ):
        if alone.allowed is not None:
            assert both.allowed is not None
            assert subset(both.allowed, alone.allowed, parents(policy_type, built_in()))


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_optional_and_own_policies_never_widen_what_the_mandatory_ones_allow(world: World) -> None:
    """Whatever else is attached, the result lies within that of the mandatory policies alone."""
    mandatory = tuple((name, True) for name, must in world.inherited if must)
    alone = replace(world, inherited=mandatory, own=(), without=()).decide()
    for (policy_type, bare), (_, full) in zip(aspects(alone), aspects(world.decide()), strict=True):
        if bare.allowed is not None:
            assert full.allowed is not None
            assert subset(full.allowed, bare.allowed, parents(policy_type, built_in()))


@settings(max_examples=200, deadline=None)
@given(world=worlds(), name=st.sampled_from(NAMES))
def test_only_a_second_mandatory_policy_of_a_type_widens_and_explain_says_so(
    world: World, name: str
) -> None:
    policy_type = world.policies[name].spec.type if name in world.policies else None
    before = replace(world, inherited=tuple(e for e in world.inherited if e[0] != name))
    added = replace(world, inherited=(*before.inherited, (name, True)))
    old, new = before.decide(), added.decide()
    if policy_type is None or not old.resolved or not new.resolved:
        return
    if any(replaces == name for _, replaces in world.own):
        # What was to replace it counts differently: it is no longer the deployment's own, or again.
        return
    first = not any(
        must and other in world.policies and world.policies[other].spec.type == policy_type
        for other, must in before.inherited
    )
    which = PolicyType(policy_type)
    was, now = getattr(old, policy_type), getattr(new, policy_type)
    if first and was.allowed is not None and was.allowed != now.allowed:
        # What was outside the new bound is overridden now; nothing else may appear.
        values = values_of(world.policies[name], catalogue=built_in())
        assert subset(now.allowed, values, parents(which, built_in()))
    others = {row.name for row in now.policies if row.mandatory}
    for row in now.policies:
        if row.mandatory:
            assert ("add up" in row.because) == (len(others) > 1)
            assert ("widens what the others allow" in row.because) == (len(others) > 1)


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_explanation_and_result_agree(world: World) -> None:
    result = world.decide()
    unresolved = {each.name for each in result.unresolved}
    for policy_type, aspect in aspects(result):
        counting = [
            row for row in aspect.policies if row.effect in (Effect.ENFORCED, Effect.NARROWED)
        ]
        assert all(row.contribution for row in counting)
        assert all(not row.contribution for row in aspect.policies if row not in counting)
        # The weakest group that still counts for something gives the result.
        groups = [[row for row in counting if row.group == group] for group in "DOM"]
        weakest = next((group for group in groups if group), [])
        expected = union((row.contribution for row in weakest), parents(policy_type, built_in()))
        assert aspect.allowed == (expected or None)
        for row in aspect.policies:
            assert (row.effect is Effect.MISSING) <= (
                row.name in {u.name for u in result.unresolved}
            )
            assert not row.waits or (row.effect is Effect.OVERRIDDEN and unresolved)
        told = explain_json(DEPLOYMENT, result)[policy_type.value]
        assert told["allowed"] == (None if aspect.allowed is None else written(aspect.allowed))
        assert [(each["name"], each["effect"], each["because"]) for each in told["policies"]] == [
            (row.name, row.effect.value, row.because) for row in aspect.policies
        ]
    assert all(len(row.because) <= 1024 for _, each in aspects(result) for row in each.policies)


@settings(max_examples=200, deadline=None)
@given(world=worlds(), gone=st.sampled_from(NAMES), strict=st.booleans())
def test_below_a_missing_policy_nothing_binds_what_runs(
    world: World, gone: str, strict: bool
) -> None:
    """A policy of the environment is deleted: what is weaker neither counts nor evicts."""
    inherited = (*(each for each in world.inherited if each[0] != gone), (gone, strict))
    without = tuple(name for name in world.without if name != gone)
    own = tuple((name, None) for name, _ in world.own if name != gone)
    policies = {name: each for name, each in world.policies.items() if name != gone}
    world = replace(world, policies=policies, inherited=inherited, own=own, without=without)
    binding = tuple(each for each in inherited if each[1] or not strict)
    known = replace(world, inherited=binding, own=())
    for (_, full), (_, above) in zip(aspects(world.decide()), aspects(known.decide()), strict=True):
        assert full.allowed == above.allowed
        weaker = "D" if not strict else "OD"
        for row in full.policies:
            if row.group in weaker and row.effect not in (Effect.REMOVED, Effect.MISSING):
                assert row.waits
                assert gone in row.because or "exists" in row.because
        assert not [row for row in full.overridden() if row.group in weaker]


SETS = st.lists(st.sampled_from(LOCATIONS), max_size=5).map(
    lambda entries: reduced(
        values_of(
            Policy.model_validate(
                {
                    "metadata": {"name": "p"},
                    "spec": {
                        "type": "location",
                        "locations": [{"type": t, "name": n} for t, n in entries],
                    },
                }
            ),
            catalogue=built_in(),
        ),
        PARENT,
    )
)


@settings(max_examples=200, deadline=None)
@given(a=SETS, b=SETS, c=SETS)
def test_sets_obey_the_laws_of_a_lattice(a: ValueSet, b: ValueSet, c: ValueSet) -> None:
    def meet(x: ValueSet, y: ValueSet) -> ValueSet:
        return intersection(x, y, PARENT)

    def join(x: ValueSet, y: ValueSet) -> ValueSet:
        return union([x, y], PARENT)

    assert meet(a, b) == meet(b, a)
    assert join(a, b) == join(b, a)
    assert meet(a, a) == join(a, a) == a
    assert meet(meet(a, b), c) == meet(a, meet(b, c))
    assert meet(a, join(b, c)) == join(meet(a, b), meet(a, c))
    assert meet(a, join(a, b)) == a
    assert subset(meet(a, b), a, PARENT)
    assert subset(a, join(a, b), PARENT)
