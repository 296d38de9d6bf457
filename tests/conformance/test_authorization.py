"""RBAC: what roles allow and refuse, in which words, and what reviews say about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SECRETS,
    ApiError,
    HttpClient,
    Json,
)

from .conftest import Eventually
from .identities import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    RBAC,
    READ_PODS,
    ROLE_BINDINGS,
    ROLES,
    account,
    bind,
    binding_of,
    embedded_server,
    grant,
    impersonating,
    review,
    speaking_as,
    token_of,
    whoami,
)
from .objects import config_map


@pytest.fixture(scope="module")
def kubeconfig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A cluster where roles decide; any real one is taken to be such."""
    given = request.config.getoption("--kubeconfig")
    if given:
        yield Path(given)
        return
    home = tmp_path_factory.mktemp("rbac")
    with embedded_server(home, authorization="RBAC") as found:
        yield found


@pytest.fixture
async def user(client: HttpClient, namespace: str) -> str:
    return await account(client, namespace, "robot")


@pytest.fixture
async def robot(client: HttpClient, namespace: str, user: str) -> AsyncIterator[HttpClient]:
    async with speaking_as(client, await token_of(client, namespace, "robot")) as found:
        yield found


async def _refusal(call: Awaitable[Any]) -> str:
    """The message of the 403 that ``call`` gets; empty if it gets none."""
    try:
        await call
    except ApiError as error:
        if (error.status, error.reason) != (403, "Forbidden"):
            raise
        return error.message
    return ""


async def _allowed(call: Awaitable[Any]) -> bool:
    return not await _refusal(call)


async def test_who_has_no_role_may_do_nothing(robot: HttpClient, user: str, namespace: str) -> None:
    head, home = f'User "{user}" cannot', f'in the namespace "{namespace}"'
    cases = [
        (
            robot.list(PODS, namespace),
            f'pods is forbidden: {head} list resource "pods" in API group "" {home}',
        ),
        (
            robot.list(PODS),
            f'pods is forbidden: {head} list resource "pods" in API group "" at the cluster scope',
        ),
        (
            robot.get(NAMESPACES, namespace),
            f'namespaces "{namespace}" is forbidden: {head} get resource "namespaces" in API '
            f'group "" {home}',
        ),
        (
            robot.get(DEPLOYMENTS, "x", namespace, subresource="scale"),
            f'deployments.apps "x" is forbidden: {head} get resource "deployments/scale" in API '
            f'group "apps" {home}',
        ),
        (
            robot.create(CONFIG_MAPS, config_map("x"), namespace),
            f'configmaps is forbidden: {head} create resource "configmaps" in API group "" {home}',
        ),
        (
            robot.request("DELETE", f"/api/v1/namespaces/{namespace}/pods"),
            f'pods is forbidden: {head} deletecollection resource "pods" in API group "" {home}',
        ),
        (
            robot.request("GET", "/apis/nope.example.com/v1/things"),
            f'things.nope.example.com is forbidden: {head} list resource "things" in API group '
            '"nope.example.com" at the cluster scope',
        ),
        (robot.request("GET", "/metrics"), f'forbidden: {head} get path "/metrics"'),
    ]
    assert [await _refusal(call) for call, _ in cases] == [wanted for _, wanted in cases]


async def test_everybody_known_may_look_around(robot: HttpClient) -> None:
    for path in ("/api", "/apis", "/apis/apps/v1", "/version", "/openapi/v3"):
        assert await (await robot.request("GET", path)).read()


async def test_who_is_not_known_is_anonymous(client: HttpClient) -> None:
    async with speaking_as(client, "") as nobody:
        assert await (await nobody.request("GET", "/version")).read()
        refused = await _refusal(nobody.request("GET", "/apis"))
        assert refused == 'forbidden: User "system:anonymous" cannot get path "/apis"'
        assert await _refusal(nobody.list(PODS)) == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group '
            '"" at the cluster scope'
        )


async def test_a_role_allows_what_it_lists_in_its_namespace(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, READ_PODS)
    await eventually(lambda: _allowed(robot.list(PODS, namespace)))
    assert await _refusal(robot.list(PODS))
    assert await _refusal(robot.list(PODS, "default"))
    assert await _refusal(robot.delete(PODS, "x", namespace))
    with pytest.raises(ApiError) as caught:
        await robot.get(PODS, "x", namespace)
    assert caught.value.not_found
    # A role for pods says nothing about their subresources.
    path = f"/api/v1/namespaces/{namespace}/pods/x/log"
    assert "pods/log" in await _refusal(robot.request("GET", path))


async def test_taking_the_binding_away_takes_the_right_away(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, READ_PODS)
    await eventually(lambda: _allowed(robot.list(PODS, namespace)))
    await client.delete(ROLE_BINDINGS, "granted", namespace)
    await eventually(lambda: _refusal(robot.list(PODS, namespace)))


async def test_resource_names_allow_these_objects_only(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    for name in ("mine", "yours"):
        await client.create(CONFIG_MAPS, config_map(name), namespace)
    rule = {**READ_PODS, "resources": ["configmaps"], "resourceNames": ["mine"]}
    await grant(client, namespace, user, rule)
    await eventually(lambda: _allowed(robot.get(CONFIG_MAPS, "mine", namespace)))
    assert await _refusal(robot.get(CONFIG_MAPS, "yours", namespace))
    assert await _refusal(robot.list(CONFIG_MAPS, namespace))
    found = await robot.list(CONFIG_MAPS, namespace, field_selector="metadata.name=mine")
    assert [item["metadata"]["name"] for item in found.items] == ["mine"]


async def test_a_group_of_accounts_can_be_bound(
    client: HttpClient, robot: HttpClient, namespace: str, eventually: Eventually
) -> None:
    await client.create(ROLES, {"metadata": {"name": "read"}, "rules": [READ_PODS]}, namespace)
    body = binding_of("all", "x", "Role", "read")
    group = {"kind": "Group", "apiGroup": RBAC, "name": f"system:serviceaccounts:{namespace}"}
    await client.create(ROLE_BINDINGS, {**body, "subjects": [group]}, namespace)
    await eventually(lambda: _allowed(robot.list(PODS, namespace)))


async def test_view_shows_everything_but_secrets(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await bind(client, namespace, user, "ClusterRole", "view", binding="view")
    await eventually(lambda: _allowed(robot.list(CONFIG_MAPS, namespace)))
    await robot.list(DEPLOYMENTS, namespace)
    assert await _refusal(robot.list(SECRETS, namespace))
    assert await _refusal(robot.create(CONFIG_MAPS, config_map("x"), namespace))


async def test_a_binding_to_a_role_that_is_not_there_says_so(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await bind(client, namespace, user, "ClusterRole", "conformance-none", binding="loose")

    async def told() -> bool:
        return (await _refusal(robot.list(PODS, namespace))).endswith(
            f'in the namespace "{namespace}": RBAC: clusterrole.rbac.authorization.k8s.io '
            '"conformance-none" not found'
        )

    await eventually(told)


async def test_a_cluster_role_is_made_of_those_its_selector_finds(
    client: HttpClient, namespace: str, eventually: Eventually
) -> None:
    whole, part = f"{namespace}-whole", f"{namespace}-part"
    selector = {"matchLabels": {"conformance.beamlit.com/part-of": whole}}
    body: Json = {
        "metadata": {"name": whole},
        "aggregationRule": {"clusterRoleSelectors": [selector]},
        "rules": [],
    }
    await client.create(CLUSTER_ROLES, body)
    labels = selector["matchLabels"]
    await client.create(
        CLUSTER_ROLES, {"metadata": {"name": part, "labels": labels}, "rules": [READ_PODS]}
    )
    try:

        async def made() -> bool:
            found = await client.get(CLUSTER_ROLES, whole)
            return [r["resources"] for r in found.get("rules") or ()] == [["pods"]]

        await eventually(made)
    finally:
        await client.delete(CLUSTER_ROLES, whole)
        await client.delete(CLUSTER_ROLES, part)


async def test_paths_are_granted_by_cluster_roles(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    rule = {"nonResourceURLs": ["/conformance/*"], "verbs": ["get"]}
    await client.create(CLUSTER_ROLES, {"metadata": {"name": namespace}, "rules": [rule]})
    try:
        body = binding_of(namespace, user, "ClusterRole", namespace)
        await client.create(CLUSTER_ROLE_BINDINGS, body)
        asked = {"nonResourceAttributes": {"path": "/conformance/a", "verb": "get"}}

        async def may() -> bool:
            return bool((await review(robot, "SelfSubjectAccessReview", asked))["allowed"])

        await eventually(may)
        with pytest.raises(ApiError) as caught:
            await robot.request("GET", "/conformance/a")
        assert caught.value.status == 404
    finally:
        await client.delete(CLUSTER_ROLES, namespace)
        await client.delete(CLUSTER_ROLE_BINDINGS, namespace)


# Reviews


async def test_an_access_review_says_what_is_allowed_and_why(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, READ_PODS)
    await eventually(lambda: _allowed(robot.list(PODS, namespace)))
    pods = {"namespace": namespace, "verb": "list", "resource": "pods"}
    good = {
        "allowed": True,
        "reason": f'RBAC: allowed by RoleBinding "granted/{namespace}" of Role "granted" to '
        f'ServiceAccount "robot/{namespace}"',
    }
    asked = {"user": user, "resourceAttributes": pods}
    assert await review(client, "SubjectAccessReview", asked) == good
    assert await review(client, "LocalSubjectAccessReview", asked, namespace) == good
    self_asked = {"resourceAttributes": pods}
    assert await review(robot, "SelfSubjectAccessReview", self_asked) == good
    for change in ({"verb": "delete"}, {"namespace": "default"}, {"group": "apps"}):
        other = {**asked, "resourceAttributes": {**pods, **change}}
        assert await review(client, "SubjectAccessReview", other) == {"allowed": False}
    stranger = {**asked, "user": "somebody-else"}
    assert await review(client, "SubjectAccessReview", stranger) == {"allowed": False}


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        (
            {"resourceAttributes": {"verb": "list", "resource": "pods"}},
            "spec.user",
            'Invalid value: "": at least one of user or group must be specified',
        ),
        (
            {"user": "joe"},
            "spec.resourceAttributes",
            "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must "
            "be specified",
        ),
    ],
)
async def test_an_access_review_must_ask_something(
    client: HttpClient, spec: Json, field: str, why: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await review(client, "SubjectAccessReview", spec)
    assert caught.value.status == 422
    assert caught.value.message == f'.authorization.k8s.io "" is invalid: {field}: {why}'


async def test_an_access_review_of_others_needs_a_right(robot: HttpClient, user: str) -> None:
    spec = {"user": "joe", "resourceAttributes": {"verb": "list", "resource": "pods"}}
    assert await _refusal(review(robot, "SubjectAccessReview", spec)) == (
        f'subjectaccessreviews.authorization.k8s.io is forbidden: User "{user}" cannot create '
        'resource "subjectaccessreviews" in API group "authorization.k8s.io" at the cluster scope'
    )


async def test_a_rules_review_lists_what_one_has(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, READ_PODS)
    await eventually(lambda: _allowed(robot.list(PODS, namespace)))
    status = await review(robot, "SelfSubjectRulesReview", {"namespace": namespace})
    assert READ_PODS in status["resourceRules"]
    paths = [url for rule in status["nonResourceRules"] for url in rule["nonResourceURLs"]]
    assert "/apis/*" in paths
    assert status["incomplete"] is False
    elsewhere = await review(robot, "SelfSubjectRulesReview", {"namespace": "default"})
    assert READ_PODS not in elsewhere["resourceRules"]


# Escalation

WRITE_ROLES: Json = {
    "apiGroups": [RBAC],
    "resources": ["roles", "rolebindings"],
    "verbs": ["create", "get", "update", "patch"],
}


async def test_nobody_grants_more_than_they_have(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, WRITE_ROLES, READ_PODS)
    own = {"metadata": {"name": "own"}, "rules": [READ_PODS]}
    await eventually(lambda: _allowed(robot.create(ROLES, own, namespace)))
    more = {"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["delete"]}
    refused = await _refusal(
        robot.create(ROLES, {"metadata": {"name": "more"}, "rules": [READ_PODS, more]}, namespace)
    )
    groups = " ".join(
        f'"{name}"'
        for name in (
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        )
    )
    lines = [
        f'{{APIGroups:["{group}"], Resources:["{resource}"], Verbs:["delete"]}}'
        for group in ("", "apps")
        for resource in ("deployments", "pods")
    ]
    assert refused.splitlines() == [
        f'roles.rbac.authorization.k8s.io "more" is forbidden: user "{user}" (groups=[{groups}]) '
        "is attempting to grant RBAC permissions not currently held:",
        *lines,
    ]
    assert "not currently held" in await _refusal(
        robot.merge_patch(ROLES, "own", {"rules": [more]}, namespace)
    )
    # What does not touch the rules is nobody's promotion.
    await robot.merge_patch(ROLES, "own", {"metadata": {"labels": {"a": "b"}}}, namespace)


async def test_nobody_binds_what_they_do_not_have(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    await grant(client, namespace, user, WRITE_ROLES, READ_PODS)
    own = {"metadata": {"name": "own"}, "rules": [READ_PODS]}
    await eventually(lambda: _allowed(robot.create(ROLES, own, namespace)))
    await eventually(lambda: _allowed(bind(robot, namespace, "joe", "Role", "own", binding="a")))
    refused = await _refusal(bind(robot, namespace, "joe", "ClusterRole", "view", binding="b"))
    assert "attempting to grant RBAC permissions not currently held" in refused


async def test_the_verbs_bind_and_escalate_lift_the_check(
    client: HttpClient, robot: HttpClient, user: str, namespace: str, eventually: Eventually
) -> None:
    escalate = {**WRITE_ROLES, "resources": ["roles"], "verbs": ["escalate"]}
    one = {
        **WRITE_ROLES,
        "resources": ["clusterroles"],
        "resourceNames": ["view"],
        "verbs": ["bind"],
    }
    await grant(client, namespace, user, WRITE_ROLES, escalate, one)
    secret = {**READ_PODS, "resources": ["secrets"]}
    body = {"metadata": {"name": "more"}, "rules": [secret]}
    await eventually(lambda: _allowed(robot.create(ROLES, body, namespace)))
    await bind(robot, namespace, "joe", "ClusterRole", "view", binding="view")
    assert await _refusal(bind(robot, namespace, "joe", "ClusterRole", "edit", binding="edit"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"resources": ["pods"], "verbs": []},
            "[rules[0].verbs: Required value: verbs must contain at least one value, "
            "rules[0].apiGroups: Required value: resource rules must supply at least one api "
            "group]",
        ),
        (
            {"nonResourceURLs": ["/x"], "verbs": ["get"]},
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to '
            "non-resource URLs",
        ),
    ],
)
async def test_a_role_that_makes_no_sense_is_refused(
    client: HttpClient, namespace: str, rule: Json, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await client.create(ROLES, {"metadata": {"name": "bad"}, "rules": [rule]}, namespace)
    wanted = f'Role.rbac.authorization.k8s.io "bad" is invalid: {message}'
    assert (caught.value.status, caught.value.message) == (422, wanted)


# Impersonation


async def test_an_admin_can_speak_for_others(client: HttpClient, namespace: str) -> None:
    async with impersonating(client, "joe", "guests") as joe:
        info = await whoami(joe)
        assert (info["username"], info["groups"]) == ("joe", ["guests", "system:authenticated"])
        assert 'User "joe" cannot list' in await _refusal(joe.list(PODS, namespace))
    name = f"system:serviceaccount:{namespace}:default"
    async with impersonating(client, name) as pod:
        assert f"system:serviceaccounts:{namespace}" in (await whoami(pod))["groups"]


async def test_speaking_for_others_needs_the_verb(
    client: HttpClient, robot: HttpClient, namespace: str
) -> None:
    token = await token_of(client, namespace, "robot")
    async with speaking_as(client, token) as base, impersonating(base, "joe") as joe:
        assert "impersonate" in await _refusal(joe.list(PODS, namespace))


async def test_kubectl_asks_and_speaks_for_others(
    kubectl: Callable[..., Awaitable[Any]], client: HttpClient, user: str, namespace: str
) -> None:
    await grant(client, namespace, user, READ_PODS)
    mine = await kubectl("auth", "can-i", "list", "pods", f"--as={user}")
    assert mine.stdout.strip() == "yes"
    other = await kubectl("auth", "can-i", "list", "secrets", f"--as={user}", check=False)
    assert (other.returncode, other.stdout.strip()) == (1, "no")
    listed = await kubectl("auth", "can-i", "--list", f"--as={user}")
    assert "[get list]" in listed.stdout
    refused = await kubectl("get", "secrets", f"--as={user}", check=False)
    assert refused.stderr.startswith("Error from server (Forbidden): secrets is forbidden")
    me = await kubectl("auth", "whoami", f"--as={user}", "-o=jsonpath={.status.userInfo.username}")
    assert me.stdout == user
