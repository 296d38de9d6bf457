"""A gateway that authenticates: real Envoy, the embedded API server with RBAC, tiny model servers.

The agent speaks as the gateway's ServiceAccount, with the roles in manifests/rbac and no other.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.integration.gateway.conftest import (
    ModelServer,
    envoy_of,
    gateway_settings,
    model_server,
    until,
)
from tests.support.gatewayobjects import endpoint_slice, model_deployment
from tests.support.stack import ROOT, free_port

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.issuers import Issuer
from beamlit_operator.gateway.process import EnvoyProcess
from beamlit_operator.gateway.settings import Address, GatewaySettings
from beamlit_operator.kube import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    HttpClient,
    Json,
    Resource,
    connect,
)

ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
ISSUED_FOR = "beamlit-test"
_numbers = itertools.count(1)


PUBLISHED = {"use": "sig", "kid": "1"}


@dataclass
class OidcIssuer:
    """An OpenID Connect issuer on loopback."""

    url: str = ""
    key: RSAKey = field(
        default_factory=lambda: RSAKey.generate_key(2048, {"use": "sig", "kid": "1"})
    )

    def token(self, **claims: object) -> str:
        now = int(__import__("time").time())
        body = {"iss": self.url, "aud": ISSUED_FOR, "sub": "ada", "iat": now, "exp": now + 600}
        return jwt.encode({"alg": "RS256", "kid": "1"}, {**body, **claims}, self.key)


@contextlib.asynccontextmanager
async def oidc_issuer() -> AsyncIterator[OidcIssuer]:
    port = free_port()
    issuer = OidcIssuer(f"http://127.0.0.1:{port}")

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"})

    async def keys(_: web.Request) -> web.Response:
        return web.json_response({"keys": [issuer.key.as_dict(private=False)]})

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", discovery)
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield issuer
    finally:
        await runner.cleanup()


@dataclass
class Scene:
    """All of it, and the few things tests do with it."""

    api: ApiServer
    admin: HttpClient
    settings: GatewaySettings
    agent: Agent
    envoy: EnvoyProcess
    http: aiohttp.ClientSession
    issuer: OidcIssuer
    server: ModelServer
    kubeconfig: Path
    end_agent: Callable[[], Awaitable[None]]
    another_agent: Callable[[], AbstractAsyncContextManager[None]]
    """One for the same Envoy, to be run when the first has ended."""
    prober: str = ""
    """A token of one who may call all of the workspace ``demo``."""

    @property
    def url(self) -> str:
        return f"http://{self.settings.listen}"

    async def call(
        self,
        path: str = "/demo/models/iris",
        *,
        token: str = "",
        method: str = "GET",
        headers: dict[str, str] | None = None,
        **more: object,
    ) -> tuple[int, Json]:
        """The status and JSON of a request with the token in ``Authorization``."""
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        async with self.http.request(
            method,
            f"{self.url}{path}",
            headers=sent,
            **more,  # type: ignore[arg-type]
        ) as answer:
            return answer.status, await answer.json()

    async def until_status(self, status: int, path: str, **call: object) -> Json:
        """Waits until a path is answered so; the answer."""
        seen: list[tuple[int, Json]] = []

        async def answers() -> bool:
            seen[:] = [await self.call(path, **call)]  # type: ignore[arg-type]
            return seen[0][0] == status

        await until(answers, what=f"{path} answers {status}")
        return seen[0][1]

    async def workspace(self, name: str) -> None:
        await self.admin.create(NAMESPACES, _object("v1", "Namespace", name))

    async def account(self, name: str, workspace: str = "demo") -> str:
        """A ServiceAccount; its user name."""
        await self.admin.create(
            SERVICE_ACCOUNTS, _object("v1", "ServiceAccount", name, workspace), workspace
        )
        return f"system:serviceaccount:{workspace}:{name}"

    async def token(
        self, name: str, workspace: str = "demo", *, audience: str = "beamlit", **spec: object
    ) -> str:
        body = {"spec": {"audiences": [audience], "expirationSeconds": 600, **spec}}
        answer = await self.admin.create(
            SERVICE_ACCOUNTS, body, workspace, name=name, subresource="token"
        )
        return str(answer["status"]["token"])

    async def permit(
        self,
        user: str,
        workspace: str = "demo",
        *,
        deployments: tuple[str, ...] = (),
        kind: str = "User",
    ) -> str:
        """Lets a user or group invoke these deployments, or all of the workspace; the name of the
        binding."""
        name = f"invoke-{next(_numbers)}"
        rule: Json = {
            "apiGroups": ["beamlit.com"],
            "resources": ["modeldeployments/invoke"],
            "verbs": ["create"],
        }
        if deployments:
            rule["resourceNames"] = list(deployments)
        rbac = "rbac.authorization.k8s.io"
        role = {**_object(f"{rbac}/v1", "Role", name, workspace), "rules": [rule]}
        binding = {
            **_object(f"{rbac}/v1", "RoleBinding", name, workspace),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": kind, "apiGroup": rbac, "name": user}],
        }
        await self.admin.create(ROLES, role, workspace)
        await self.admin.create(ROLE_BINDINGS, binding, workspace)
        return name

    async def deploy(
        self,
        model: str = "iris",
        *servers: ModelServer,
        workspace: str = "demo",
        endpoint: Json | None = None,
    ) -> str:
        """A deployment with these ready pods; none: it sleeps."""
        name = f"{model}-production"
        body = model_deployment(
            name, workspace=workspace, model=model, traffic={f"{name}-1": 100}, endpoint=endpoint
        )
        status = body.pop("status")
        body |= {"apiVersion": "beamlit.com/v1alpha1", "kind": "ModelDeployment"}
        body["metadata"] = {"name": name, "namespace": workspace}
        await self.admin.create(MODEL_DEPLOYMENTS, body, workspace)
        await self.admin.merge_patch(
            MODEL_DEPLOYMENTS, name, {"status": status}, workspace, subresource="status"
        )
        pod = {"containers": [{"name": "model", "image": "none"}]}
        labels = {"app": name}
        await self.admin.create(
            DEPLOYMENTS,
            {
                **_object("apps/v1", "Deployment", f"{name}-1", workspace),
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
            workspace,
        )
        if servers:
            slice_ = endpoint_slice(
                f"{name}-1",
                [(server.host, server.port) for server in servers],
                workspace=workspace,
                deployment=name,
            )
            slice_ |= {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
            slice_.setdefault("addressType", "IPv4")
            slice_["metadata"].pop("resourceVersion", None)
            await self.admin.create(ENDPOINT_SLICES, slice_, workspace)
        return name

    async def api_key(
        self, workspace: str = "demo", *, id: str = "0123456789abcdef", **limits: object
    ) -> str:
        """Adds an API key to a workspace, as the command line does; the key."""
        secret = base64.urlsafe_b64encode(hashlib.sha256(id.encode()).digest()).decode()[:43]
        entry = {
            "name": "ci",
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            **limits,
        }
        await self.admin.apply(
            SECRETS,
            {
                **_object("v1", "Secret", "beamlit-api-keys", workspace),
                "data": {id: base64.b64encode(json.dumps(entry).encode()).decode()},
            },
            field_manager=id,
        )
        return f"blk_{id}_{secret}"

    async def replicas(self, name: str, workspace: str = "demo") -> int:
        """What a deployment was scaled to."""
        found = await self.admin.get(DEPLOYMENTS, f"{name}-1", workspace)
        return int(found["spec"]["replicas"])

    def metric(self, start: str) -> float:
        """The sum of the agent's samples whose lines begin so."""
        lines = self.agent.metrics.exposition().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def _object(version: str, kind: str, name: str, namespace: str = "") -> Json:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


async def _prepare(admin: HttpClient) -> None:
    documents = [
        document
        for path in (*sorted((ROOT / "crds").glob("*.yaml")), ROOT / "manifests/rbac/gateway.yaml")
        for document in yaml.safe_load_all(path.read_text())
    ]
    await admin.create(NAMESPACES, _object("v1", "Namespace", "beamlit-system"))
    for document in documents:
        group, _, version = document["apiVersion"].rpartition("/")
        plural = document["kind"].lower() + "s"
        namespaced = "namespace" in document["metadata"]
        resource = Resource(group, version, plural, document["kind"], namespaced=namespaced)
        await admin.create(resource, document, document["metadata"].get("namespace"))


def _kubeconfig_with(token: str, admin: Path) -> Path:
    config = yaml.safe_load(admin.read_text())
    config["users"][0]["user"] = {"token": token}
    path = admin.with_name("gateway-kubeconfig")
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.asynccontextmanager
async def running_scene(folder: Path, **fields: object) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(oidc_issuer())
        server = await stack.enter_async_context(model_server())
        api = ApiServer(data_dir=folder / "cluster", authorization="RBAC")
        await api.start()
        stack.push_async_callback(api.stop)
        kubeconfig = folder / "kubeconfig"
        api.kubeconfig(kubeconfig)
        admin = await stack.enter_async_context(await connect(kubeconfig))
        await _prepare(admin)
        account = await admin.create(
            SERVICE_ACCOUNTS,
            {"spec": {}},
            "beamlit-system",
            name="beamlit-gateway",
            subresource="token",
        )
        config = _kubeconfig_with(str(account["status"]["token"]), kubeconfig)
        client = await stack.enter_async_context(await connect(config))
        settings = gateway_settings(
            **{
                "authentication": True,
                "authentication_listen": Address("127.0.0.1", free_port()),
                "decision_ttl": 1.0,
                "issuers": (
                    Issuer(
                        issuer.url,
                        (ISSUED_FOR,),
                        username_prefix="oidc:",
                        groups_claim="groups",
                        groups_prefix="oidc:",
                    ),
                ),
                **fields,
            }
        )
        agent = Agent(client, settings, documents=client.document)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        )
        agent_stack = await stack.enter_async_context(contextlib.AsyncExitStack())
        await agent_stack.enter_async_context(agent.running())
        envoy = await stack.enter_async_context(envoy_of(agent, settings))
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        scene = Scene(
            api,
            admin,
            settings,
            agent,
            envoy,
            http,
            issuer,
            server,
            kubeconfig,
            agent_stack.aclose,
            lambda: Agent(client, settings, documents=client.document).running(),
        )
        await scene.workspace("demo")
        await scene.permit(await scene.account("prober"))
        scene.prober = await scene.token("prober")
        yield scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One for all tests of a module, which use names of their own."""
    async with running_scene(tmp_path_factory.mktemp("scene")) as running:
        yield running
