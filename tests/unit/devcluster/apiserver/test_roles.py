"""Which rule allows what, the index of bindings, and what may be handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.__main__ import parse
from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.devcluster.apiserver.authorization import Attributes, on_path, on_resource
from beamlit_operator.devcluster.apiserver.paths import Target
from beamlit_operator.devcluster.apiserver.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Rbac,
    allows,
)
from beamlit_operator.devcluster.apiserver.rbac_escalation import missing
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.devcluster.apiserver.users import User, account_of, service_account
from beamlit_operator.kube import ApiError, Json, Resource

PODS: Json = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
GET = Attributes("get", resource="pods", namespace="n", name="x")


@pytest.mark.parametrize(
    ("rule", "asked", "allowed"),
    [
        ({}, {}, True),
        ({"verbs": ["*"]}, {}, True),
        ({"verbs": ["list"]}, {}, False),
        ({"apiGroups": ["apps"]}, {}, False),
        ({"apiGroups": ["*"]}, {}, True),
        ({"resources": ["*"]}, {"subresource": "log"}, True),
        ({}, {"subresource": "log"}, False),
        ({"resources": ["pods/log"]}, {"subresource": "log"}, True),
        ({"resources": ["pods/log"]}, {}, False),
        ({"resources": ["*/log"]}, {"subresource": "log"}, True),
        ({"resources": ["*/scale"]}, {"subresource": "log"}, False),
        ({"resourceNames": ["x"]}, {}, True),
        ({"resourceNames": ["y"]}, {}, False),
        ({"resourceNames": ["x"]}, {"name": ""}, False),
    ],
)
def test_a_rule_allows_what_it_names(rule: Json, asked: dict[str, str], allowed: bool) -> None:
    wanted = {"verb": "get", "resource": "pods", "name": "x", **asked}
    assert allows({**PODS, **rule}, Attributes(**wanted)) is allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/api", "/api", True),
        ("/api", "/api/v1", False),
        ("/api/*", "/api/v1", True),
        ("/api/*", "/apis", False),
        ("*", "/anything", True),
    ],
)
def test_a_rule_allows_paths(url: str, path: str, allowed: bool) -> None:
    rule = {"nonResourceURLs": [url], "verbs": ["get"]}
    assert allows(rule, Attributes("get", path=path)) is allowed


@pytest.mark.parametrize(
    ("method", "name", "query", "verb", "asked"),
    [
        ("GET", "", {}, "list", ""),
        ("HEAD", "x", {}, "get", "x"),
        ("GET", "", {"watch": "1"}, "watch", ""),
        ("GET", "", {"fieldSelector": "metadata.name=x"}, "list", "x"),
        ("GET", "", {"fieldSelector": "metadata.name=x,spec.nodeName=y"}, "list", ""),
        ("POST", "", {}, "create", ""),
        ("PUT", "x", {}, "update", "x"),
        ("PATCH", "x", {}, "patch", "x"),
        ("DELETE", "x", {}, "delete", "x"),
        ("DELETE", "", {}, "deletecollection", ""),
    ],
)
def test_a_method_is_a_verb(
    method: str, name: str, query: dict[str, str], verb: str, asked: str
) -> None:
    found = on_resource(method, Target("", "v1", "pods", "n", name), query)
    assert (found.verb, found.name, found.namespace) == (verb, asked, "n")


def test_a_method_on_a_path_keeps_its_name() -> None:
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    verbs = [on_path(method, "/x").verb for method in methods]
    assert verbs == ["get", "head", "post", "put", "patch", "delete"]


def _put(store: Store, resource: str, namespace: str, name: str, **more: Any) -> None:
    kind = {
        ROLES: "Role",
        CLUSTER_ROLES: "ClusterRole",
        ROLE_BINDINGS: "RoleBinding",
        CLUSTER_ROLE_BINDINGS: "ClusterRoleBinding",
    }[resource]
    item = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "uid": name}, **more}
    store.commit(resource, Key(namespace, name), item)


@pytest.fixture
def store() -> Store:
    found = Store()
    _put(found, ROLES, "n", "read", rules=[PODS])
    _put(found, CLUSTER_ROLES, "", "all", rules=[{**PODS, "resources": ["*"], "verbs": ["*"]}])
    return found


@pytest.fixture
def rbac(store: Store) -> Rbac:
    found = Rbac(store)
    store.observers.append(found.observe)
    return found


def _bind(store: Store, *subjects: Json, namespace: str = "n", role: str = "read") -> None:
    kind = "Role" if role == "read" else "ClusterRole"
    resource = ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS
    reference = {"kind": kind, "name": role}
    _put(store, resource, namespace, "b", roleRef=reference, subjects=list(subjects))


JOE: Json = {"kind": "User", "name": "joe"}


def test_a_changed_binding_counts_for_those_it_names_now(store: Store, rbac: Rbac) -> None:
    _bind(store, JOE)
    assert rbac.decide(User("joe"), GET).allowed
    _bind(store, {"kind": "Group", "name": "team"})
    assert not rbac.decide(User("joe"), GET).allowed
    assert rbac.decide(User("joe", ("team",)), GET).allowed
    store.remove(ROLE_BINDINGS, Key("n", "b"))
    assert not rbac.decide(User("joe", ("team",)), GET).allowed


def test_a_cluster_role_bound_in_a_namespace_counts_there(store: Store, rbac: Rbac) -> None:
    _bind(store, JOE, role="all")
    assert rbac.decide(User("joe"), GET).allowed
    assert not rbac.decide(User("joe"), Attributes("list", resource="pods")).allowed
    elsewhere = Attributes("list", resource="pods", namespace="m")
    assert not rbac.decide(User("joe"), elsewhere).allowed


def test_a_cluster_role_bound_everywhere_counts_everywhere(store: Store, rbac: Rbac) -> None:
    _bind(store, JOE, namespace="", role="all")
    assert rbac.decide(User("joe"), Attributes("list", resource="pods")).allowed
    decision = rbac.decide(User("joe"), GET)
    assert decision.reason == (
        'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "all" to User "joe"'
    )


def test_an_account_without_namespace_is_one_of_the_bindings(store: Store, rbac: Rbac) -> None:
    _bind(store, {"kind": "ServiceAccount", "name": "robot"})
    assert rbac.decide(service_account("n", "robot"), GET).allowed
    assert not rbac.decide(service_account("m", "robot"), GET).allowed


def test_masters_need_no_role(rbac: Rbac) -> None:
    assert rbac.decide(User("root", ("system:masters",)), GET).allowed


def test_bindings_are_known_after_a_restart(store: Store) -> None:
    _bind(store, JOE)
    again = Rbac(store)
    again.load()
    assert again.decide(User("joe"), GET).allowed


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("system:serviceaccount:n:robot", ("n", "robot")),
        ("system:serviceaccount:n", None),
        ("system:serviceaccount:n:a:b", None),
        ("joe", None),
    ],
)
def test_the_name_of_an_account_is_read_back(name: str, account: tuple[str, str] | None) -> None:
    assert account_of(name) == account


WORDS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2, unique=True)
RULES = st.lists(
    st.fixed_dictionaries(
        {"apiGroups": WORDS, "resources": WORDS, "verbs": WORDS},
        optional={"resourceNames": st.lists(st.sampled_from(["x", "y"]), min_size=1, unique=True)},
    ),
    max_size=3,
)


@given(RULES)
def test_everybody_may_hand_on_what_they_have(rules: list[Json]) -> None:
    assert missing(rules, rules) == []


@given(RULES, RULES)
def test_what_is_not_missing_was_allowed_before(wanted: list[Json], own: list[Json]) -> None:
    if missing(wanted, own):
        return
    for group in ("a", "b", "c"):
        for resource in ("a", "b", "c"):
            for verb in ("a", "b", "c"):
                for name in ("x", "y", "z", ""):
                    asked = Attributes(verb, group=group, resource=resource, name=name)
                    if any(allows(rule, asked) for rule in wanted):
                        assert any(allows(rule, asked) for rule in own)


async def test_the_first_roles_are_there_and_complete(tmp_path: Path) -> None:
    server = ApiServer(tmp_path, authorization="RBAC")
    await server.start()
    try:
        group = "rbac.authorization.k8s.io"
        roles = Resource(group, "v1", "clusterroles", "ClusterRole", namespaced=False)
        admin, edit, view = [
            (await server.client.get(roles, name))["rules"] for name in ("admin", "edit", "view")
        ]
        assert missing(view, edit) == missing(edit, admin) == []
        assert missing(edit, view)
        assert missing(admin, edit)
    finally:
        await server.stop()


def test_the_command_line_turns_roles_on() -> None:
    folder = ["--data-dir", "x"]
    assert parse(folder)[0].authorization == "AlwaysAllow"
    assert parse([*folder, "--authorization", "RBAC"])[0].authorization == "RBAC"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"rules": [None]}, r"rules\[0\].verbs: Required value"),
        ({"rules": [{"verbs": ["get"]}]}, "must supply at least one api group"),
    ],
)
async def test_a_role_of_nulls_is_refused(tmp_path: Path, content: Json, words: str) -> None:
    server = ApiServer(tmp_path)
    await server.start()
    try:
        roles = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
        body = {"metadata": {"name": "x"}, **content}
        with pytest.raises(ApiError, match=words) as caught:
            await server.client.create(roles, body, "default")
        assert caught.value.status == 422
    finally:
        await server.stop()
