"""A cluster with a release of the chart, and what a user does there: the stage of the scenarios.

The embedded cluster and a real one differ in what a :class:`Site` holds and in nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.support.chart import SYSTEM
from tests.support.frontdoor import Calls, load, one_call
from tests.support.release import ENFORCE, Release
from tests.support.stack import ACCESS_KEY, SECRET_KEY

from beamlit_operator.kube import (
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    ApiError,
    HttpClient,
    Json,
    Resource,
    resource_of,
)

API = "beamlit.com/v1alpha1"
RBAC = "rbac.authorization.k8s.io"
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource(RBAC, "v1", "roles", "Role")
BINDINGS = Resource(RBAC, "v1", "rolebindings", "RoleBinding")
TOKEN_HEADER = "X-Beamlit-Authorization"

SETTLED = 90.0
"""Seconds within which the system must be where a scenario expects it, on a slow machine too."""

ALL_GATEWAYS = 10
"""Requests in a row of which each gateway gets some: there are two."""

_numbers = itertools.count(1)


def restricted(namespace: str) -> Json:
    """A namespace in which only pods of the Pod Security level `restricted` may be."""
    labels = {ENFORCE: "restricted"}
    metadata = {"name": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


@dataclass
class Site:
    """One release on one cluster."""

    client: HttpClient
    release: Release
    door: Callable[[], str]
    """Where the next request may go, as whoever balances the gateways would choose."""
    store: str
    """The S3 store, as pods of the cluster reach it."""
    logs: Callable[[], str]
    image: str = "beamlit.dev/python:3"
    """An image in which `python` is one."""
    _tokens: dict[str, str] = field(default_factory=dict)

    async def workspace(self) -> str:
        """A new workspace with an Environment, the store's Secret and somebody who may call."""
        name = f"team-{next(_numbers)}"
        await self.client.create(NAMESPACES, restricted(name))
        await self.apply(name, "Environment", "production", {"policies": []})
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        await self.apply(name, "Secret", "store", stringData=keys, type="Opaque")
        await self._admit_caller(name)
        return name

    async def _admit_caller(self, workspace: str) -> None:
        """A ServiceAccount that may call the workspace's models, and its token.

        Where the release asks for none, the token does no harm.
        """
        who = {"metadata": {"name": "caller", "namespace": workspace}}
        may = {"apiGroups": ["beamlit.com"], "resources": ["modeldeployments/invoke"]}
        role = {"apiGroup": RBAC, "kind": "Role", "name": "caller"}
        subject = {"kind": "ServiceAccount", "name": "caller", "namespace": workspace}
        await self.client.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", **who})
        for resource, more in (
            (ROLES, {"rules": [{**may, "verbs": ["create"]}]}),
            (BINDINGS, {"roleRef": role, "subjects": [subject]}),
        ):
            head = {"apiVersion": f"{RBAC}/v1", "kind": resource.kind}
            await self.client.create(resource, {**head, **who, **more})
        answer = await self.client.create(
            ACCOUNTS,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": ["beamlit"], "expirationSeconds": 7200},
            },
            workspace,
            name="caller",
            subresource="token",
        )
        self._tokens[workspace] = answer["status"]["token"]

    async def apply(
        self, workspace: str, kind: str, name: str, spec: Json | None = None, **top: Any
    ) -> Json:
        """Applies an object, as ``kubectl apply --server-side`` would."""
        api_version = "v1" if kind in ("Secret", "PersistentVolumeClaim") else API
        body: Json = {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": workspace},
            **top,
        }
        if spec is not None:
            body["spec"] = spec
        return await self.client.apply(resource_of(api_version, kind), body, field_manager="test")

    async def deploy(
        self, workspace: str, model: str = "tiny", *, version: str = "1", **spec: Any
    ) -> None:
        """A Model of the store and a ModelDeployment of it; or a change of the latter."""
        s3 = {
            "uri": "s3://models/tiny",
            "endpoint": self.store,
            "region": "us-east-1",
            "credentialsSecretRef": {"name": "store"},
        }
        await self.apply(workspace, "Model", model, {"origin": {"s3": s3}})
        node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        runtime = {
            "image": self.image,
            "command": ["python"],
            "args": ["/mnt/models/server.py"],
            "envs": [node, {"name": "VERSION", "value": version}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        }
        wanted = {"model": model, "environment": "production", "runtime": runtime, **spec}
        await self.apply(workspace, "ModelDeployment", model, wanted)

    async def get(self, workspace: str, name: str = "tiny") -> Json:
        return await self.client.get(MODEL_DEPLOYMENTS, name, workspace)

    async def until(
        self,
        workspace: str,
        condition: Callable[[Json], object],
        name: str = "tiny",
        *,
        within: float = SETTLED,
    ) -> Json:
        """Waits until a ModelDeployment is so; says how it is when it does not become so."""
        deadline = time.monotonic() + within
        current: Json = {}
        while True:
            try:
                current = await self.get(workspace, name)
                if condition(current):
                    return current
            except ApiError as error:
                # An API server that is away, or slow, is not what is asked for.
                if error.status not in (0, 404, 429, 500, 503):
                    raise
            assert time.monotonic() < deadline, f"{current}\n{self.logs()}"
            await asyncio.sleep(0.1)

    async def until_serving(
        self, workspace: str, name: str = "tiny", *, version: str, callers: Calls | None = None
    ) -> None:
        """Waits until answers come from a version of the model's server and from no other,
        whichever gateway is asked, and until the callers of a load had one, too. Gateways follow a
        deployment's status one after the other, within about two seconds."""
        deadline, in_a_row = time.monotonic() + SETTLED, 0
        while in_a_row < ALL_GATEWAYS or (callers and version not in callers.versions):
            calls = await self.call(workspace, name)
            in_a_row = in_a_row + 1 if calls.versions == {version} else 0
            assert time.monotonic() < deadline, f"{calls}\n{self.logs()}"
            await asyncio.sleep(0.02 if in_a_row else 0.1)

    @asynccontextmanager
    async def load(
        self, workspace: str, name: str = "tiny", *, callers: int = 4
    ) -> AsyncIterator[Calls]:
        """Steady traffic to a model until the end of the block."""
        path, headers = self._way(workspace, name)
        async with load(self.door, path, headers=headers, callers=callers) as calls:
            yield calls

    async def call(self, workspace: str, name: str = "tiny") -> Calls:
        """One request to a model, and what became of it."""
        calls = Calls()
        path, headers = self._way(workspace, name)
        async with aiohttp.ClientSession() as http:
            await one_call(http, self.door, path, calls, headers=headers)
        return calls

    def _way(self, workspace: str, name: str) -> tuple[str, dict[str, str]]:
        headers = {TOKEN_HEADER: f"Bearer {self._tokens[workspace]}"}
        return f"/{workspace}/models/{name}/predict", headers

    async def until_restarted(self, pod: str, *, times: int = 1) -> None:
        """Waits until a container of the release was started again and its pod is ready."""
        deadline = time.monotonic() + SETTLED
        while True:
            status = (await self.client.get(PODS, pod, SYSTEM))["status"]
            restarts = sum(each["restartCount"] for each in status.get("containerStatuses") or ())
            conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
            if restarts >= times and conditions.get("Ready") == "True":
                return
            assert time.monotonic() < deadline, f"{status}\n{self.logs()}"
            await asyncio.sleep(0.1)

    async def pods(self, namespace: str, **labels: str) -> list[Json]:
        """The pods of a namespace that are not ending."""
        selector = ",".join(f"app.kubernetes.io/{name}={value}" for name, value in labels.items())
        found = await self.client.list(PODS, namespace, label_selector=selector or None)
        return [pod for pod in found.items if "deletionTimestamp" not in pod["metadata"]]


def ready(deployment: Json) -> Json:
    """The condition Ready, empty strings where there is none yet."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            return condition
    return {"status": "", "reason": "", "message": ""}
