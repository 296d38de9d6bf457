"""What holds for all policies: order and repetition never matter, nothing widens a bound."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import Aspect, Effect, EffectivePolicy, built_in, effective_policy
from beamlit_operator.policy.algebra import ValueSet, intersection, reduced, subset, union
from beamlit_operator.policy.effective import values_of
from beamlit_operator.policy.locations import PolicyType, parents

PARENT = parents(PolicyType.LOCATION, built_in())

LOCATIONS = [
    ("continent", "na"), ("continent", "EU"), ("country", "us"), ("country", "CA"),
    ("country", "de"), ("country", "jp"), ("location", "us-east-1"), ("location", "eastus"),
    ("location", "eu-central-1"), ("location", "berlin-1"),
]  # fmt: skip
FLAVORS = [("cpu", "x86"), ("cpu", "arm"), ("gpu", "t4"), ("gpu", "Tesla-T4"), ("gpu", "l4")]
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


@settings(max_examples=300, deadline=None)
@given(world=worlds(), data=st.data())
def test_order_and_repetition_never_matter(world: World, data: st.DataObject) -> None:
    shuffled = World(
        policies=dict(data.draw(st.permutations(list(world.policies.items())))),
        inherited=tuple(data.draw(st.permutations(world.inherited + world.inherited[:1]))),
        own=tuple(data.draw(st.permutations(world.own + world.own[:1]))),
        without=tuple(data.draw(st.permutations(world.without + world.without[:1]))),
    )
    assert shuffled.decide() == world.decide()


@settings(max_examples=300, deadline=None)
@given(world=worlds())
def test_nothing_widens_a_mandatory_bound_and_nothing_is_ever_empty(world: World) -> None:
    for policy_type, aspect in aspects(world.decide()):
        assert aspect.allowed is None or aspect.allowed
        hard = bound(world, policy_type)
        if hard is not None:
            assert aspect.allowed is not None
            assert subset(aspect.allowed, hard, parents(policy_type, built_in()))


@settings(max_examples=300, deadline=None)
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


@settings(max_examples=300, deadline=None)
@given(world=worlds())
def test_explanation_and_result_agree(world: World) -> None:
    result = world.decide()
    for policy_type, aspect in aspects(result):
        counting = [
            row for row in aspect.policies if row.effect in (Effect.ENFORCED, Effect.NARROWED)
        ]
        assert all(row.contribution for row in counting)
        # The weakest group that still counts for something gives the result.
        groups = [[row for row in counting if row.group == group] for group in "DOM"]
        weakest = next((group for group in groups if group), [])
        expected = union((row.contribution for row in weakest), parents(policy_type, built_in()))
        assert aspect.allowed == (expected or None)
    assert all(len(row.because) <= 1024 for _, each in aspects(result) for row in each.policies)


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


@settings(max_examples=300, deadline=None)
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
