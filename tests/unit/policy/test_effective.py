"""Walks the truth table of `policy.effective`, and what the design says beside it."""

import re
from collections.abc import Iterable

import pytest

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import effective
from beamlit_operator.policy.algebra import written
from beamlit_operator.policy.effective import EffectivePolicy, effective_policy
from beamlit_operator.policy.extending import extended


def policy(name: str, *values: str) -> Policy:
    """A policy named `name` over values such as `country:us`; its type follows from them."""
    entries = [dict(zip(("type", "name"), value.split(":"), strict=True)) for value in values]
    kind = "flavor" if entries[0]["type"] in ("cpu", "gpu") else "location"
    return Policy.model_validate(
        {"metadata": {"name": name}, "spec": {"type": kind, f"{kind}s": entries}}
    )


def environment(*, mandatory: Iterable[str] = (), optional: Iterable[str] = ()) -> Environment:
    attached = [{"name": name, "mandatory": True} for name in mandatory]
    attached += [{"name": name} for name in optional]
    return Environment.model_validate(
        {"metadata": {"name": "production"}, "spec": {"policies": attached}}
    )


def deployment(*policies: str | tuple[str, str], without: Iterable[str] = ()) -> ModelDeployment:
    attached = [
        {"name": each} if isinstance(each, str) else {"name": each[0], "replaces": each[1]}
        for each in policies
    ]
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris"},
            "spec": {"model": "iris", "policies": attached, "withoutPolicies": list(without)},
        }
    )


def decide(given: ModelDeployment, of: Environment | None, *policies: Policy) -> EffectivePolicy:
    return effective_policy(given, of, policies={each.metadata.name: each for each in policies})


def effects(result: EffectivePolicy) -> dict[str, str]:
    return {row.name: str(row.effect) for row in result.location.policies}


def allowed(result: EffectivePolicy) -> list[str] | None:
    found = result.location.allowed
    return None if found is None else written(found)


TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (effective.__doc__ or "").splitlines()
    if re.match(r"\| (-|set)", line)
]

# For each set of the table: what it holds when the one above it meets it in some values or in none.
MANDATORY = "continent:na"
OPTIONAL = {"some": "country:us", "empty": "country:de"}


def test_the_truth_table_was_found_in_the_docstring() -> None:
    assert len(TABLE) == 14


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row))
def test_every_row_of_the_truth_table_holds(row: list[str]) -> None:
    m, o, d, m_and_o, _, e_and_d, outcome, o_is, d_is = row
    sets: dict[str, str] = {}
    if m == "set":
        sets["m"] = MANDATORY
    if o == "set":
        sets["o"] = OPTIONAL[m_and_o or "some"]
    e = {"some": sets.get("o"), "empty": sets.get("m"), "": sets.get("m") or sets.get("o")}[m_and_o]
    if d == "set":
        inside = {"country:us": "location:us-east-1", "continent:na": "country:ca"}
        sets["d"] = "country:jp" if e_and_d == "empty" else inside.get(e or "", "country:us")
    result = decide(
        deployment(*(["d"] if "d" in sets else [])),
        environment(mandatory=["m"] if m == "set" else [], optional=["o"] if o == "set" else []),
        *(policy(name, value) for name, value in sets.items()),
    )
    # Each set is chosen within the one above it, so the smallest that is left is the meeting.
    expected = None if outcome == "anything" else [sets[outcome.split("∩")[-1].lower()]]
    assert allowed(result) == expected
    said = effects(result)
    assert said.get("m") == ("enforced" if m == "set" else None)
    in_force = {"in force": "enforced", "": None}
    assert said.get("o") == in_force.get(o_is, o_is)
    assert said.get("d") == in_force.get(d_is, d_is)
    assert result.resolved


def test_mandatory_us_policy_wins_over_deployment_in_australia() -> None:
    result = decide(
        deployment("australia"),
        environment(mandatory=["us-only"]),
        policy("us-only", "country:us"),
        policy("australia", "country:au"),
    )
    assert allowed(result) == ["country:us"]
    assert effects(result) == {"us-only": "enforced", "australia": "overridden"}
    (row,) = result.location.overridden()
    assert row.because == (
        "it allows country:au, which is outside the environment's bound (country:us); "
        "that one is enforced"
    )


def test_policies_of_one_type_at_one_level_add_up() -> None:
    result = decide(
        deployment(),
        environment(mandatory=["a", "b"]),
        policy("a", "country:de"),
        policy("b", "continent:eu", "country:us"),
    )
    assert allowed(result) == ["continent:eu", "country:us"]
    assert "add up" in result.location.policies[0].because


def test_a_policy_partly_within_the_bound_is_narrowed() -> None:
    result = decide(
        deployment("wide"),
        environment(mandatory=["us-only"]),
        policy("us-only", "country:us"),
        policy("wide", "continent:na", "country:de"),
    )
    assert allowed(result) == ["country:us"]
    assert effects(result)["wide"] == "narrowed"


def test_policies_of_different_types_both_hold() -> None:
    result = decide(
        deployment("t4"),
        environment(mandatory=["us-only"]),
        policy("us-only", "country:us"),
        policy("t4", "gpu:Tesla-T4"),
    )
    assert allowed(result) == ["country:us"]
    assert result.flavor.allowed is not None
    assert written(result.flavor.allowed) == ["gpu:t4"]


def test_an_optional_policy_can_be_removed() -> None:
    result = decide(
        deployment(without=["eu"]), environment(optional=["eu"]), policy("eu", "continent:eu")
    )
    assert allowed(result) is None
    assert effects(result) == {"eu": "removed"}


def test_an_optional_policy_can_be_replaced_and_the_replacement_stands_in_its_place() -> None:
    result = decide(
        deployment(("ch", "eu"), "own"),
        environment(optional=["eu", "jp"]),
        policy("eu", "country:de"),
        policy("jp", "country:jp"),
        policy("ch", "country:ch"),
        policy("own", "country:ch", "country:fr"),
    )
    assert allowed(result) == ["country:ch"]
    assert effects(result) == {
        "eu": "replaced",
        "jp": "enforced",
        "ch": "enforced",
        "own": "narrowed",
    }


def test_removing_or_replacing_a_mandatory_policy_is_ignored_and_reported() -> None:
    result = decide(
        deployment(("au", "us-only"), without=["us-only"]),
        environment(mandatory=["us-only"]),
        policy("us-only", "country:us"),
        policy("au", "country:au"),
    )
    assert allowed(result) == ["country:us"]
    assert effects(result) == {"us-only": "enforced", "au": "overridden"}
    assert [(each.policy, each.action) for each in result.ignored] == [
        ("us-only", "replace"),
        ("us-only", "remove"),
    ]


def test_a_replacement_of_another_type_replaces_nothing() -> None:
    result = decide(
        deployment(("t4", "us-only")),
        environment(optional=["us-only", "x86"]),
        policy("us-only", "country:us"),
        policy("x86", "cpu:x86"),
        policy("t4", "gpu:t4"),
    )
    assert allowed(result) == ["country:us"]
    assert result.flavor.allowed is not None
    assert written(result.flavor.allowed) == ["cpu:x86"]
    assert any("cannot replace" in note for note in result.notes)


def test_removing_what_the_environment_does_not_attach_is_noted() -> None:
    result = decide(deployment(without=["ghost"]), environment())
    assert result.resolved
    assert any("ghost" in note for note in result.notes)


def test_a_missing_environment_fails_closed() -> None:
    result = decide(deployment(), None)
    assert not result.resolved
    assert [(each.kind, each.name) for each in result.unresolved] == [("Environment", "production")]


def test_a_missing_policy_fails_closed_and_what_is_known_still_holds() -> None:
    result = decide(
        deployment(),
        environment(mandatory=["us-only", "ghost"]),
        policy("us-only", "country:us"),
    )
    assert not result.resolved
    assert [(each.kind, each.name) for each in result.unresolved] == [("Policy", "ghost")]
    assert allowed(result) == ["country:us"]
    assert effects(result) == {"us-only": "enforced", "ghost": "missing"}
    assert "ghost" in {row.name for row in result.flavor.policies}


def test_what_names_a_missing_policy_is_told() -> None:
    result = decide(deployment("ghost"), environment(mandatory=["gone"]))
    assert {each.name: each.message for each in result.unresolved} == {
        "ghost": "Policy ghost does not exist: create it, or take it out of spec.policies; "
        "nothing new is placed until then",
        "gone": "Policy gone does not exist: create it, or take it out of spec.policies of "
        "Environment production; nothing new is placed until then",
    }


def test_a_missing_replacement_leaves_the_policy_of_the_environment_in_force() -> None:
    result = decide(
        deployment(("ghost", "us-only")),
        environment(optional=["us-only"]),
        policy("us-only", "country:us"),
    )
    assert not result.resolved
    assert allowed(result) == ["country:us"]


def test_a_missing_policy_that_the_deployment_removes_is_not_missed() -> None:
    result = decide(deployment(without=["ghost"]), environment(optional=["ghost"]))
    assert result.resolved


def test_a_policy_without_entries_fails_closed() -> None:
    empty = Policy.model_validate({"metadata": {"name": "empty"}, "spec": {"type": "location"}})
    result = decide(deployment(), environment(mandatory=["empty"]), empty)
    assert not result.resolved
    assert allowed(result) is None
    assert "spec.locations" in result.unresolved[0].message


def test_names_are_case_insensitive() -> None:
    result = decide(
        deployment("d"),
        environment(mandatory=["m"]),
        policy("m", "country:US"),
        policy("d", "location:US-East-1"),
    )
    assert allowed(result) == ["location:us-east-1"]


def test_what_is_remembered_is_never_another_policys_or_another_catalogues() -> None:
    given, held = deployment("d"), environment(mandatory=["m"])
    wide, narrow = policy("m", "country:us"), policy("m", "country:de")
    own = policy("d", "location:us-east-1")
    for _ in range(2):
        assert allowed(decide(given, held, wide, own)) == ["location:us-east-1"]
        assert allowed(decide(given, held, narrow, own)) == ["country:de"]
    moved = extended({"regions.yaml": "clouds: {own: {regions: us-east-1 de moved}}"}).catalogue
    known = {"m": narrow, "d": own}
    after = effective_policy(given, held, policies=known, catalogue=moved)
    assert allowed(after) == ["location:us-east-1"]
    assert allowed(decide(given, held, narrow, own)) == ["country:de"]


def test_names_attached_twice_count_once_also_without_an_environment() -> None:
    twice = deployment("d", ("d", "gone"))
    assert effects(decide(twice, None, policy("d", "country:us"))) == {"d": "overridden"}
    assert len(decide(twice, None, policy("d", "country:us")).location.policies) == 1


def test_a_mandatory_policy_that_is_deleted_leaves_those_it_placed_alone() -> None:
    us, au = policy("us-only", "country:us"), policy("australia", "country:au")
    given, held = deployment("australia"), environment(mandatory=["us-only"])
    assert allowed(decide(given, held, us, au)) == ["country:us"]
    after = decide(given, held, au)
    assert not after.resolved
    assert allowed(after) is None
    assert after.location.overridden() == ()
    (_, waiting) = after.location.policies
    assert waiting.waits
    assert waiting.because.startswith("it counts again when Policy us-only exists")
