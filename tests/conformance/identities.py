"""Accounts, tokens and roles of the suite, and clients that speak as somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from kubernetes.aio import client as k8s

from beamlit_operator.kube import HttpClient, Json, Resource

RBAC = "rbac.authorization.k8s.io"
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource(RBAC, "v1", "roles", "Role")
ROLE_BINDINGS = Resource(RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
READ_PODS: Json = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}


@contextlib.contextmanager
def embedded_server(home: Path, **options: Any) -> Iterator[Path]:
    """The kubeconfig of an embedded API server that runs meanwhile."""
    from beamlit_operator.devcluster.apiserver import ApiServer

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="apiserver")
    thread.start()
    server = ApiServer(home, **options)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    try:
        yield server.kubeconfig(home / "kubeconfig")
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def account(client: HttpClient, namespace: str, name: str) -> str:
    """A new ServiceAccount; returns the user it is."""
    await client.create(ACCOUNTS, {"metadata": {"name": name}}, namespace)
    return f"system:serviceaccount:{namespace}:{name}"


async def token_of(client: HttpClient, namespace: str, name: str, **spec: Any) -> str:
    """A token of a ServiceAccount."""
    body = {"spec": spec}
    answer = await client.create(ACCOUNTS, body, namespace, name=name, subresource="token")
    return str(answer["status"]["token"])


def _configuration(client: HttpClient, token: str) -> k8s.Configuration:
    found = copy.copy(client._api.configuration)
    found.cert_file = found.key_file = None
    found.refresh_api_key_hook = None
    found.api_key = {"BearerToken": f"Bearer {token}"} if token else {}
    found.api_key_prefix = {}
    return found


@contextlib.asynccontextmanager
async def speaking_as(client: HttpClient, token: str) -> AsyncIterator[HttpClient]:
    """A client of the same server with another token; an empty one sends none."""
    async with HttpClient(k8s.ApiClient(_configuration(client, token))) as found:
        yield found


@contextlib.asynccontextmanager
async def impersonating(
    client: HttpClient, user: str, group: str = ""
) -> AsyncIterator[HttpClient]:
    """A client that sends its requests in the name of ``user``."""
    api = k8s.ApiClient(client._api.configuration)
    api.set_default_header("Impersonate-User", user)
    if group:
        api.set_default_header("Impersonate-Group", group)
    async with HttpClient(api) as found:
        yield found


async def review(client: HttpClient, kind: str, spec: Json | None = None, where: str = "") -> Json:
    """The status of a review; ``where`` is the namespace of one that has it."""
    group = "authentication" if kind in ("TokenReview", "SelfSubjectReview") else "authorization"
    resource = Resource(f"{group}.k8s.io", "v1", f"{kind.lower()}s", kind, namespaced=bool(where))
    body = {} if spec is None else {"spec": spec}
    return dict((await client.create(resource, body, where or None))["status"])


async def whoami(client: HttpClient) -> Json:
    return dict((await review(client, "SelfSubjectReview"))["userInfo"])


async def grant(
    client: HttpClient, namespace: str, user: str, *rules: Json, name: str = "granted"
) -> None:
    """A Role of ``rules``, bound to ``user``."""
    await client.create(ROLES, {"metadata": {"name": name}, "rules": list(rules)}, namespace)
    await bind(client, namespace, user, "Role", name, binding=name)


async def bind(
    client: HttpClient, namespace: str, user: str, kind: str, role: str, *, binding: str
) -> Json:
    """A RoleBinding of one user, which may be a ServiceAccount."""
    return await client.create(ROLE_BINDINGS, binding_of(binding, user, kind, role), namespace)


def binding_of(name: str, user: str, kind: str, role: str) -> Json:
    prefix = "system:serviceaccount:"
    if user.startswith(prefix):
        home, _, account_name = user.removeprefix(prefix).partition(":")
        subject = {"kind": "ServiceAccount", "name": account_name, "namespace": home}
    else:
        subject = {"kind": "User", "name": user, "apiGroup": RBAC}
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [subject],
    }
