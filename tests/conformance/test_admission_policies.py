"""ValidatingAdmissionPolicies: what they are told, what they refuse, and in which words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, ApiError, HttpClient, Json, Resource

from .objects import config_map, deployment

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(
    GROUP,
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
BINDINGS = Resource(
    GROUP,
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
WITHIN = 30.0
"""Seconds until a policy is in force; API servers learn of it by watching."""


class Policies:
    """Policies for one namespace, removed afterwards."""

    def __init__(self, client: HttpClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.name = f"conformance-{namespace}"

    def policy(self, *validations: Json, **spec: Any) -> Json:
        rule = {
            "apiGroups": ["", "apps"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["configmaps", "deployments"],
        }
        here = {"kubernetes.io/metadata.name": self.namespace}
        constraints = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": here}}
        return {
            "apiVersion": f"{GROUP}/v1",
            "kind": POLICIES.kind,
            "metadata": {"name": self.name},
            "spec": {"matchConstraints": constraints, "validations": [*validations], **spec},
        }

    async def put(
        self, *validations: Json, binding: Json | None = None, **spec: Any
    ) -> tuple[Json, Json]:
        policy = await self.client.create(POLICIES, self.policy(*validations, **spec))
        use = {"policyName": self.name, "validationActions": ["Deny"], **(binding or {})}
        body = {
            "apiVersion": f"{GROUP}/v1",
            "kind": BINDINGS.kind,
            "metadata": {"name": self.name},
            "spec": use,
        }
        return policy, await self.client.create(BINDINGS, body)

    async def refused(self, item: Json, *, resource: Resource = CONFIG_MAPS) -> ApiError:
        """How a dry-run of creating the object is refused, once the policy is in force."""
        deadline = time.monotonic() + WITHIN
        while True:
            try:
                await self.attempt(item, resource=resource)
            except ApiError as error:
                return error
            assert time.monotonic() < deadline, "the policy is not in force"
            await asyncio.sleep(0.1)

    async def attempt(self, item: Json, *, resource: Resource = CONFIG_MAPS) -> Any:
        path = resource.path(self.namespace)
        return await self.client.request("POST", path, query={"dryRun": "All"}, body=item)

    async def remove(self) -> None:
        for resource in (BINDINGS, POLICIES):
            try:
                await self.client.delete(resource, self.name)
            except ApiError as error:
                if not error.not_found:
                    raise


@pytest.fixture
async def policies(client: HttpClient, namespace: str) -> AsyncIterator[Policies]:
    found = Policies(client, namespace)
    yield found
    await found.remove()


NO_BAD = {"expression": "!has(object.data) || !('bad' in object.data)", "message": "bad is bad"}


async def test_a_write_is_refused_with_policy_binding_and_message(policies: Policies) -> None:
    policy, _ = await policies.put(NO_BAD)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["spec"]["matchConstraints"]["matchPolicy"] == "Equivalent"
    assert policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"] == "*"
    error = await policies.refused(config_map("x", bad="1"))
    assert (error.status, error.reason) == (422, "Invalid")
    assert error.message == (
        f"configmaps \"x\" is forbidden: ValidatingAdmissionPolicy '{policies.name}' with binding "
        f"'{policies.name}' denied request: bad is bad"
    )
    assert error.details["causes"] == [{"message": error.message.partition("forbidden: ")[2]}]
    await policies.attempt(config_map("x", good="1"))


@pytest.mark.parametrize(
    ("validation", "reason", "status", "said"),
    [
        ({"expression": "!('bad' in object.data)"}, "Invalid", 422, "failed expression: !('bad'"),
        (
            {"expression": "!('bad' in object.data)", "reason": "Forbidden", "message": "no"},
            "Forbidden",
            403,
            "denied request: no",
        ),
        (
            {
                "expression": "!('bad' in object.data)",
                "message": "no",
                "messageExpression": "'bad is ' + object.data.bad + ' in ' + request.namespace",
            },
            "Invalid",
            422,
            "denied request: bad is 1 in ",
        ),
        (
            {
                "expression": "!('bad' in object.data)",
                "message": "no",
                "messageExpression": "string(object.data.other)",
            },
            "Invalid",
            422,
            "denied request: no",
        ),
        (
            {"expression": "object.data.other == 'x'"},
            "Invalid",
            422,
            "resulted in error: no such key: other",
        ),
    ],
    ids=["plain", "reason", "message expression", "broken message expression", "error"],
)
async def test_what_a_refusal_says(
    policies: Policies, validation: Json, reason: str, status: int, said: str
) -> None:
    await policies.put(validation)
    error = await policies.refused(config_map("x", bad="1"))
    assert (error.reason, error.status) == (reason, status)
    assert said in error.message


async def test_variables_build_on_each_other_and_errors_in_unused_ones_do_no_harm(
    policies: Policies,
) -> None:
    await policies.put(
        {"expression": "variables.words.all(w, w != 'bad')"},
        variables=[
            {"name": "text", "expression": "object.data.text"},
            {"name": "words", "expression": "variables.text.split(' ')"},
            {"name": "broken", "expression": "object.data.missing"},
        ],
    )
    await policies.refused(config_map("x", text="a bad word"))
    await policies.attempt(config_map("x", text="a good word"))


def widget(name: str, **spec: Any) -> Json:
    """A parameter. Not a ConfigMap: API servers (1.36 and before) stop watching a built-in type of
    parameters with the last policy that has any, and do not begin again."""
    body = {"apiVersion": "conformance.beamlit.com/v1", "kind": "Widget"}
    return {**body, "metadata": {"name": name, "labels": {"kind": "words"}}, "spec": spec}


PARAMETERS = {"apiVersion": "conformance.beamlit.com/v1", "kind": "Widget"}


async def test_parameters_by_name_come_from_the_namespace_that_the_binding_names(
    policies: Policies, client: HttpClient, namespace: str, widgets: Resource
) -> None:
    await client.create(widgets, widget("limits", size=3), namespace)
    await policies.put(
        {
            "expression": "!has(object.data.text) || size(object.data.text) <= params.spec.size",
            "messageExpression": "'longer than ' + string(params.spec.size)",
        },
        paramKind=PARAMETERS,
        binding={
            "paramRef": {
                "name": "limits",
                "namespace": namespace,
                "parameterNotFoundAction": "Allow",
            }
        },
    )
    error = await policies.refused(config_map("x", text="long"))
    assert "denied request: longer than 3" in error.message
    await policies.attempt(config_map("x", text="abc"))


async def test_parameters_by_selector_must_all_be_met(
    policies: Policies, client: HttpClient, namespace: str, widgets: Resource
) -> None:
    for name in ("a", "b"):
        await client.create(widgets, widget(name, size=1), namespace)
    await policies.put(
        {"expression": "!has(object.data.text) || object.data.text.contains(params.metadata.name)"},
        paramKind=PARAMETERS,
        binding={
            "paramRef": {
                "selector": {"matchLabels": {"kind": "words"}},
                "parameterNotFoundAction": "Deny",
            }
        },
    )
    await policies.refused(config_map("x", text="a"))
    await policies.refused(config_map("x", text="b"))
    await policies.attempt(config_map("x", text="ab"))


async def test_missing_parameters_deny_where_the_binding_says_so(
    policies: Policies, namespace: str
) -> None:
    await policies.put(
        {"expression": "true"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"name": "gone", "parameterNotFoundAction": "Deny"}},
    )
    error = await policies.refused(config_map("x"))
    assert "no params found for policy binding with `Deny` parameterNotFoundAction" in error.message


@pytest.mark.parametrize(
    ("what", "spec", "admitted"),
    [
        (
            "another object",
            {"matchConditions": [{"name": "c", "expression": "object.metadata.name != 'y'"}]},
            config_map("y", bad="1"),
        ),
        (
            "an error where failures are ignored",
            {
                "failurePolicy": "Ignore",
                "matchConditions": [
                    {
                        "name": "c",
                        "expression": "object.metadata.name == 'x' || object.data.no == '1'",
                    }
                ],
            },
            config_map("y", bad="1"),
        ),
    ],
)
async def test_match_conditions_leave_out(
    policies: Policies, what: str, spec: Json, admitted: Json
) -> None:
    await policies.put(NO_BAD, **spec)
    await policies.refused(config_map("x", bad="1"))
    await policies.attempt(admitted)


async def test_updates_and_deletions_see_the_old_object(
    policies: Policies, client: HttpClient, namespace: str
) -> None:
    await client.create(CONFIG_MAPS, config_map("kept", keep="yes"), namespace)
    await policies.put(
        {
            "expression": "request.operation == 'CREATE' ? !has(object.data.bad) : "
            "oldObject.metadata.name != 'kept' || (object != null && "
            "object.data.keep == oldObject.data.keep)"
        }
    )
    await policies.refused(config_map("x", bad="1"))
    with pytest.raises(ApiError, match="denied request"):
        await client.merge_patch(CONFIG_MAPS, "kept", {"data": {"keep": "no"}}, namespace)
    with pytest.raises(ApiError, match="denied request"):
        await client.delete(CONFIG_MAPS, "kept", namespace)
    await client.merge_patch(CONFIG_MAPS, "kept", {"data": {"more": "1"}}, namespace)


async def test_objects_of_other_groups_are_named_with_their_group(policies: Policies) -> None:
    await policies.put({"expression": "object.kind != 'Deployment'", "message": "none"})
    item = deployment("web")
    resource = Resource("apps", "v1", "deployments", "Deployment")
    error = await policies.refused(item, resource=resource)
    assert error.message.startswith('deployments.apps "web" is forbidden: ')


async def test_a_warning_is_told_and_refuses_nothing(policies: Policies) -> None:
    await policies.put(NO_BAD, binding={"validationActions": ["Warn"]})
    deadline = time.monotonic() + WITHIN
    while True:
        answer = await policies.attempt(config_map("x", bad="1"))
        if told := answer.headers.getall("Warning", []):
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert told == [
        f"299 - \"Validation failed for ValidatingAdmissionPolicy '{policies.name}' with binding "
        f"'{policies.name}': bad is bad\""
    ]


async def test_the_object_selector_chooses(policies: Policies) -> None:
    body = policies.policy(NO_BAD)
    chosen = {"matchExpressions": [{"key": "governed", "operator": "Exists"}]}
    constraints = {**body["spec"]["matchConstraints"], "objectSelector": chosen}
    await policies.put(NO_BAD, matchConstraints=constraints)
    item = config_map("x", bad="1")
    item["metadata"]["labels"] = {"governed": "yes"}
    await policies.refused(item)
    await policies.attempt(config_map("x", bad="1"))


Change = Callable[[Json], Any]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.pop("matchConstraints"), "spec.matchConstraints"),
        (lambda s: s.update(validations=[]), "spec.validations"),
        (
            lambda s: s.update(validations=[{"expression": "object.("}]),
            "spec.validations[0].expression",
        ),
        (
            lambda s: s.update(validations=[{"expression": "nobody == 1"}]),
            "spec.validations[0].expression",
        ),
        (
            lambda s: s.update(validations=[{"expression": "params == null"}]),
            "spec.validations[0].expression",
        ),
        (
            lambda s: s.update(validations=[{"expression": "'text'"}]),
            "spec.validations[0].expression",
        ),
        (
            lambda s: s.update(validations=[{"expression": "object.data.x"}]),
            "spec.validations[0].expression",
        ),
        (
            lambda s: s.update(matchConditions=[{"name": "c", "expression": "variables.x"}]),
            "spec.matchConditions[0].expression",
        ),
        (
            lambda s: s.update(variables=[{"name": "1x", "expression": "1"}]),
            "spec.variables[0].name",
        ),
    ],
    ids=[
        "no rules",
        "nothing",
        "syntax",
        "unknown",
        "no params",
        "no bool",
        "dyn",
        "early",
        "identifier",
    ],
)
async def test_a_policy_that_could_never_work_is_refused(
    policies: Policies, change: Change, field: str
) -> None:
    body = policies.policy(NO_BAD)
    change(body["spec"])
    with pytest.raises(ApiError) as caught:
        await policies.client.create(POLICIES, body)
    assert caught.value.status == 422
    fields = [cause["field"] for cause in caught.value.details["causes"]]
    assert field in fields


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"validationActions": []}, "spec.validationActions"),
        ({"validationActions": ["Deny", "Warn"]}, "spec.validationActions"),
        ({"validationActions": ["Shout"]}, "spec.validationActions[0]"),
        ({"policyName": ""}, "spec.policyName"),
        ({"paramRef": {"name": "x"}}, "spec.paramRef.parameterNotFoundAction"),
        ({"paramRef": {"parameterNotFoundAction": "Deny"}}, "spec.paramRef"),
    ],
)
async def test_a_binding_that_could_never_work_is_refused(
    policies: Policies, spec: Json, field: str
) -> None:
    use = {"policyName": policies.name, "validationActions": ["Deny"], **spec}
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": BINDINGS.kind,
        "metadata": {"name": policies.name},
        "spec": use,
    }
    with pytest.raises(ApiError) as caught:
        await policies.client.create(BINDINGS, body)
    assert caught.value.status == 422
    assert any(cause["field"].startswith(field) for cause in caught.value.details["causes"])
