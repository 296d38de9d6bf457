"""What is refused, what is warned about, and in which words: the modules' truth tables."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.pictures import DELETED, Workspace, body, gpus, location

from beamlit_operator.controllers.admission.review import review
from beamlit_operator.controllers.admission.wire import MalformedError, Request, answer, parse
from beamlit_operator.controllers.keys import Kind

MD = Kind.MODEL_DEPLOYMENT


def governed() -> Workspace:
    """`production`: us-only and t4-only are mandatory, `cheap` and `north` are not."""
    return (
        Workspace()
        .policy("us-only", location("us"))
        .policy("t4-only", gpus("t4"))
        .policy("north", location("us", "ca"))
        .policy("australia", location("au"))
        .policy("europe", location("de", "fr"))
        .policy("any-us", location("us", "mx"))
        .environment(**{"us-only": True, "t4-only": True, "north": False})
        .model()
    )


REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "a mandatory policy is removed",
        {"withoutPolicies": ["us-only"]},
        ["us-only", "mandatory in environment production", "spec.withoutPolicies"],
    ),
    (
        "a mandatory policy is replaced",
        {"policies": [{"name": "europe", "replaces": "us-only"}]},
        ["us-only", "environment production", "spec.policies[europe]"],
    ),
    (
        "a policy of another type stands in",
        {"policies": [{"name": "t4-only", "replaces": "north"}]},
        ["t4-only is about flavor", "cannot replace north"],
    ),
    (
        "a flavor is not allowed",
        {"flavors": [{"type": "gpu", "name": "A100"}]},
        ["spec.flavors", "gpu:a100", "t4-only (mandatory in environment production)", "gpu:t4"],
    ),
    (
        "a device is asked for in the resources",
        {"runtime": {"resources": {"limits": {"amd.com/gpu": 1}}}},
        ["amd.com/gpu", "t4-only", "gpu:t4"],
    ),
    (
        "a device is asked for in the pod template",
        {
            "podTemplate": {
                "spec": {"containers": [{"name": "x", "resources": {"limits": {"amd.com/gpu": 1}}}]}
            }
        },
        ["amd.com/gpu", "gpu:t4"],
    ),
    (
        "the scheduler is bypassed",
        {"podTemplate": {"spec": {"nodeName": "eu"}}},
        ["spec.podTemplate.spec.nodeName", "use nodeSelector"],
    ),
    (
        "rights on the node are borrowed",
        {"podTemplate": {"spec": {"hostNetwork": True}}},
        ["spec.podTemplate.spec.hostNetwork", "remove it"],
    ),
    (
        "the template is none",
        {"podTemplate": {"spec": {"containers": "x"}}},
        ["spec.podTemplate.spec.containers must be a list"],
    ),
]


@pytest.mark.parametrize(("what", "spec", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_policies_forbid_is_refused_with_policy_environment_and_fix(
    what: str, spec: dict[str, Any], words: list[str]
) -> None:
    decision = governed().create(**spec)
    assert not decision.allowed, what
    assert decision.message.startswith("ModelDeployment new: ")
    for word in words:
        assert word in decision.message


@pytest.mark.parametrize(("what", "spec", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_an_edit_of_something_else_is_not_refused_for_what_was_so_before(
    what: str, spec: dict[str, Any], words: list[str]
) -> None:
    workspace = governed().deployment("old", **spec)
    later = {"model": "iris", **spec, "serverlessConfig": {"maxNumReplicas": 3}}
    decision = workspace.change(MD, "old", later)
    assert decision.allowed, what
    assert any(words[0] in warning for warning in decision.warnings)


def test_an_edit_may_not_add_what_is_forbidden() -> None:
    workspace = governed().deployment("old")
    spec = {"model": "iris", "withoutPolicies": ["us-only"]}
    assert not workspace.change(MD, "old", spec).allowed


def test_a_second_deployment_of_an_endpoint_is_refused_and_the_older_one_named() -> None:
    workspace = governed()
    workspace.deployment("younger", creationTimestamp="2026-05-04T13:00:00Z")
    workspace.put(MD, "older", {"model": "iris"}, creationTimestamp="2026-05-04T11:00:00Z")
    decision = workspace.create("third")
    assert not decision.allowed
    assert "ModelDeployment older already serves model iris in environment production" in (
        decision.message
    )


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("another environment", {"model": "iris", "environment": "dev"}),
        ("another model", {"model": "wine"}),
    ],
)
def test_an_endpoint_of_its_own_is_not_refused(what: str, other: dict[str, Any]) -> None:
    assert governed().put(MD, "other", other).create().allowed, what


def test_a_deployment_that_is_being_deleted_owns_nothing() -> None:
    workspace = governed().put(MD, "leaving", {"model": "iris"}, deletionTimestamp=DELETED)
    assert workspace.create().allowed


def test_missing_references_are_warnings_because_git_applies_in_any_order() -> None:
    decision = Workspace().create(policies=[{"name": "gone"}])
    assert decision.allowed
    said = "\n".join(decision.warnings)
    for word in ("Model iris", "Environment production", "Policy gone"):
        assert f"{word} does not exist" in said
    assert {(key.kind, key.name) for key in decision.doubts} == {
        (Kind.MODEL, "iris"),
        (Kind.ENVIRONMENT, "production"),
        (Kind.POLICY, "gone"),
    }


WARNED: list[tuple[str, dict[str, Any], str]] = [
    ("overridden", {"policies": [{"name": "australia"}]}, "policy australia is overridden by"),
    ("narrowed", {"policies": [{"name": "any-us"}]}, "policy any-us is narrowed by"),
    ("removes nothing", {"withoutPolicies": ["x"]}, "names x, which environment production does"),
    (
        "replaces nothing",
        {"policies": [{"name": "any-us", "replaces": "x"}]},
        "replaces names x, which environment production does not attach",
    ),
    (
        "a remote policy",
        {"policies": [{"name": "any-us", "refType": "remotePolicy"}]},
        "refType remotePolicy has no effect",
    ),
    ("no node", {}, "no node fits now"),
    (
        "an unknown runtime",
        {"runtime": {"type": "own"}},
        "spec.runtime.type 'own' is not known here: nothing is placed until a ConfigMap adds it",
    ),
]


def test_gpus_that_cannot_hold_the_model_are_warned_about() -> None:
    facts = {"format": "safetensors", "task": "generate", "weightBytes": 141 * 2**30}
    status = {"facts": facts, "suggestedRuntime": {"type": "vllm", "because": "x"}}
    workspace = Workspace().environment().put(Kind.MODEL, "iris", {}, status=status)
    t4 = {"flavors": [{"type": "gpu", "name": "t4"}]}
    decision = workspace.create(**t4)
    assert decision.allowed
    assert any("1 x gpu:t4 has 16.0 GiB" in warning for warning in decision.warnings)
    for spec in (
        {"flavors": [{"type": "gpu", "name": "b200"}]},
        {**t4, "runtime": {"type": "llamacpp"}},
        {**t4, "runtime": {"image": "my/server:1"}},
        {**t4, "runtime": {"type": "vllm", "args": ["--cpu-offload-gb=100"]}},
    ):
        warnings = workspace.create(**spec).warnings
        assert not any("GiB" in warning for warning in warnings), spec


@pytest.mark.parametrize(
    ("runtime", "spec", "warned"),
    [
        ({"resources": {"limits": {"memory": "1Gi"}}}, {}, True),
        ({"resources": {"limits": {"memory": "4Gi"}}}, {}, False),
        ({"resources": {"requests": {"memory": "1Gi"}}}, {}, False),
        ({"resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}}}, {}, False),
        (
            {"resources": {"limits": {"memory": "1Gi"}}},
            {"flavors": [{"type": "gpu", "name": "l4"}]},
            False,
        ),
        ({"type": "llamacpp", "resources": {"limits": {"memory": "1Gi"}}}, {}, False),
        ({"image": "my/server:1", "resources": {"limits": {"memory": "1Gi"}}}, {}, False),
    ],
)
def test_a_limit_of_memory_below_the_weights_is_warned_about(
    runtime: dict[str, Any], spec: dict[str, Any], warned: bool
) -> None:
    facts = {"format": "safetensors", "task": "embed", "weightBytes": 2 * 2**30}
    status = {"facts": facts, "suggestedRuntime": {"type": "tei", "because": "x"}}
    workspace = Workspace().environment().put(Kind.MODEL, "iris", {}, status=status)
    warnings = workspace.create(runtime=runtime, **spec).warnings
    said = "limits.memory is 1.0 GiB, and the model's weights alone are 2.0 GiB"
    assert any(said in warning for warning in warnings) == warned


@pytest.mark.parametrize(("what", "spec", "words"), WARNED, ids=[case[0] for case in WARNED])
def test_what_has_no_effect_is_allowed_and_told(
    what: str, spec: dict[str, Any], words: str
) -> None:
    decision = governed().create(**spec)
    assert decision.allowed, what
    assert any(words in warning for warning in decision.warnings), decision.warnings


def test_the_overriding_policies_are_named() -> None:
    (first, *_) = governed().create(policies=[{"name": "australia"}]).warnings
    assert "overridden by us-only" in first
    assert "country:us" in first


def test_a_plain_deployment_is_allowed_without_a_word() -> None:
    workspace = Workspace().policy("us-only", location("us")).environment(**{"us-only": True})
    decision = workspace.model().create()
    assert (decision.allowed, decision.warnings) == (True, ())


# Environments.


def test_two_mandatory_policies_of_one_type_add_up_and_it_says_so() -> None:
    workspace = governed()
    attached = [{"name": "us-only", "mandatory": True}, {"name": "europe", "mandatory": True}]
    new = body(Kind.ENVIRONMENT, "dev", {"policies": attached})
    said = workspace.ask(Kind.ENVIRONMENT, "CREATE", new=new).warnings
    assert any("us-only and europe are mandatory and both of type location" in w for w in said)
    assert any("country:de, country:fr and country:us" in w for w in said)


def test_an_environment_that_makes_an_optional_policy_void_says_so() -> None:
    attached = [{"name": "us-only", "mandatory": True}, {"name": "australia"}, {"name": "gone"}]
    new = body(Kind.ENVIRONMENT, "dev", {"policies": attached})
    said = governed().ask(Kind.ENVIRONMENT, "CREATE", new=new).warnings
    assert any(w.startswith("policy australia is overridden by us-only") for w in said)
    assert any(w.startswith("Policy gone does not exist yet") for w in said)


def test_a_policy_that_waits_for_a_missing_one_is_not_called_overridden_by_nobody() -> None:
    workspace = governed().environment("dev", **{"gone": True})
    workspace.deployment("iris", environment="dev", policies=[{"name": "late"}])
    spec = {"type": "location", "locations": [{"type": "country", "name": "au"}]}
    said = workspace.ask(Kind.POLICY, "CREATE", new=body(Kind.POLICY, "late", spec)).warnings
    assert not any("overridden" in warning for warning in said), said


def test_an_environment_edit_tells_whom_it_moves_and_what_it_breaks() -> None:
    workspace = governed().environment("production")
    workspace.deployment("in-us", on="us").deployment("in-eu", on="eu")
    workspace.deployment("wants-a100", flavors=[{"type": "gpu", "name": "a100"}])
    workspace.deployment("without", withoutPolicies=["us-only"])
    workspace.deployment("down-under", policies=[{"name": "australia"}])
    attached = [{"name": "us-only", "mandatory": True}, {"name": "t4-only"}]
    said = workspace.change(Kind.ENVIRONMENT, "production", {"policies": attached}).warnings
    text = "\n".join(said)
    assert said[0].startswith("2 running pods outside what it then allows will be removed")
    assert "1 deployment then asks for a flavor that is not allowed: wants-a100" in text
    assert "1 deployment then removes or replaces us-only, now mandatory: without" in text
    assert "policy australia is overridden by us-only" in text
    assert "in 1 deployment: down-under" in text


def test_an_edit_that_changes_nothing_for_anybody_says_nothing() -> None:
    workspace = Workspace().policy("us-only", location("us"))
    workspace.environment(**{"us-only": True}).deployment("a", on="us")
    attached = {"displayName": "P", "policies": [{"name": "us-only", "mandatory": True}]}
    decision = workspace.change(Kind.ENVIRONMENT, "production", attached)
    assert (decision.allowed, decision.warnings) == (True, ())


# Policies.


def test_a_tightened_policy_tells_how_many_pods_it_removes() -> None:
    workspace = Workspace().policy("where", location("us", "ie")).environment(where=True)
    for number in range(5):
        workspace.deployment(f"iris-{number}", model=f"m{number}", on="eu")
    workspace.deployment("stays", model="m", on="us")
    said = workspace.change(Kind.POLICY, "where", location("us")).warnings
    assert said == (
        "5 running pods outside what it then allows will be removed at once, of iris-0, iris-1, "
        "iris-2 and 2 more",
    )


def test_a_loosened_policy_disturbs_nobody_and_says_nothing() -> None:
    workspace = Workspace().policy("where", location("us")).environment(where=True)
    workspace.deployment("a", on="us")
    assert workspace.change(Kind.POLICY, "where", location("us", "ie")).warnings == ()


def test_an_unknown_country_is_told() -> None:
    new = body(Kind.POLICY, "where", location("uk"))
    (said,) = Workspace().ask(Kind.POLICY, "CREATE", new=new).warnings
    assert "the United Kingdom is gb" in said


# Deletions.


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Kind.ENVIRONMENT, "production"), (Kind.POLICY, "us-only"), (Kind.MODEL, "iris")],
)
def test_deleting_what_is_in_use_needs_the_annotation(kind: Kind, name: str) -> None:
    workspace = governed().deployment("iris-production")
    refused = workspace.delete(kind, name)
    assert not refused.allowed
    assert f"{kind} {name} is in use" in refused.message
    assert "iris-production" in refused.message
    assert "beamlit.com/allow-deletion=true" in refused.message
    assert workspace.delete(kind, name, **{"beamlit.com/allow-deletion": "true"}).allowed
    assert not workspace.delete(kind, name, **{"beamlit.com/allow-deletion": "yes"}).allowed


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.ENVIRONMENT, "production"),
        (Kind.POLICY, "us-only"),
        (Kind.MODEL, "iris"),
        (Kind.POLICY, "australia"),
    ],
)
def test_what_nobody_uses_is_deleted_without_a_word(kind: Kind, name: str) -> None:
    decision = governed().delete(kind, name)
    assert (decision.allowed, decision.warnings) == (True, ())


def test_an_optional_policy_in_use_is_deleted_with_a_warning() -> None:
    decision = governed().deployment("a").delete(Kind.POLICY, "north")
    assert decision.allowed
    assert decision.warnings == (
        "1 deployment then refers to what is missing: nothing new is placed: a",
    )


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
def test_what_is_being_deleted_is_never_in_the_way(kind: Kind, operation: str) -> None:
    workspace = governed().deployment("a", withoutPolicies=["us-only"])
    spec = {"model": "iris", "withoutPolicies": ["us-only"]} if kind is MD else {}
    item = body(kind, "production", spec, deletionTimestamp=DELETED, finalizers=["x"])
    changed = {**item, "spec": {**spec, "displayName": "x"}}
    decision = workspace.ask(kind, operation, new=changed, old=item)
    assert (decision.allowed, decision.warnings) == (True, ())


def test_metadata_may_change_whatever_the_spec_says() -> None:
    workspace = governed().deployment("a", withoutPolicies=["us-only"])
    spec = {"model": "iris", "withoutPolicies": ["us-only"]}
    decision = workspace.change(MD, "a", spec)
    assert (decision.allowed, decision.warnings) == (True, ())


def test_thousands_of_shapes_are_not_all_looked_at_and_that_is_said() -> None:
    workspace = Workspace().policy("where", location("us")).environment(where=True)
    for number in range(60):
        workspace.deployment(f"d{number}", model=f"m{number}", withoutPolicies=[f"p{number}"])
    said = workspace.change(Kind.POLICY, "where", location("ie")).warnings
    assert any("too many deployments" in warning for warning in said)


# The wire.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
FIELDS = ("model", "environment", "policies", "withoutPolicies", "flavors", "podTemplate")
MORE = ("runtime", "type", "locations", "resourceTypes", "enabled", "rollout", "serverlessConfig")
specs = st.dictionaries(st.sampled_from(FIELDS + MORE), json_values, max_size=6)
metadatas = st.fixed_dictionaries(
    {}, optional={name: json_values for name in ("name", "namespace", "annotations", "labels")}
)
items = st.fixed_dictionaries({}, optional={"metadata": metadatas | json_values, "spec": specs})


@settings(deadline=None)
@given(json_values)
def test_any_json_is_parsed_or_called_malformed(value: Any) -> None:
    with contextlib.suppress(MalformedError):
        parse(value)


@settings(deadline=None)
@given(
    kind=st.sampled_from([str(kind) for kind in Kind]),
    operation=st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT", ""]),
    new=items | json_values,
    old=items | json_values,
)
@example(kind="Model", operation="UPDATE", new={}, old={"metadata": {"annotations": [None]}})
@example(kind="Model", operation="UPDATE", new={}, old={"metadata": [None]})
@example(kind="Environment", operation="CREATE", new={"metadata": {"name": ":"}}, old={})
def test_a_review_of_any_object_never_raises(kind: str, operation: str, new: Any, old: Any) -> None:
    request = {
        "uid": "u",
        "kind": {"group": "beamlit.com", "version": "v1alpha1", "kind": kind},
        "operation": operation,
        "namespace": "team",
        "object": new,
        "oldObject": old,
    }
    asked = parse(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    )
    decision = review(asked, WORLD.picture)
    assert answer("u", decision)["response"]["allowed"] is decision.allowed


WORLD = governed().deployment("iris-production")

template = st.fixed_dictionaries(
    {},
    optional={
        "spec": st.dictionaries(
            st.sampled_from(["containers", "initContainers", "nodeName", "affinity", "volumes"]),
            st.lists(
                st.dictionaries(
                    st.sampled_from(["name", "resources", "securityContext", "$patch"]), json_values
                ),
                max_size=2,
            )
            | json_values,
            max_size=4,
        ),
        "metadata": json_values,
    },
)
resources = st.dictionaries(
    st.sampled_from(["limits", "requests"]),
    json_values | st.dictionaries(st.sampled_from(["nvidia.com/gpu", "amd.com/gpu"]), json_values),
)


@settings(deadline=None)
@given(template=template, resources=resources)
def test_a_review_of_any_pod_template_never_raises(template: Any, resources: Any) -> None:
    spec = {"model": "iris", "podTemplate": template, "runtime": {"resources": resources}}
    new = body(MD, "new", spec)
    review(Request("u", MD, "CREATE", "team", "new", new=new), WORLD.picture)


def test_more_warnings_than_a_client_shows_are_counted() -> None:
    decision = Workspace().create(
        policies=[{"name": "a-long-name-" * 15 + str(n)} for n in range(32)]
    )
    lines = answer("u", decision)["response"]["warnings"]
    assert sum(map(len, lines)) < 4096
    assert lines[-1].startswith("and ")
