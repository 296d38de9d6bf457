"""The soak's system: as ``beamlit dev`` runs it, but Envoy apart from its agent, as in a pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.stack import ACCESS_KEY, SECRET_KEY, Stack, answers

from beamlit_operator.gateway.process import find_envoy
from beamlit_operator.kube import (
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    HttpClient,
    Json,
    resource_of,
)

SERVER = Path(__file__).with_name("soakserver.py")
WORKSPACE = "soak"
API = "beamlit.com/v1alpha1"


class SoakStack(Stack):
    """A stack whose agent and Envoy can be killed one by one."""

    @property
    def admin(self) -> str:
        """The agent's own HTTP."""
        return f"http://127.0.0.1:{self._admin_port}"

    @property
    def operator(self) -> str:
        """The operator's metrics and health."""
        return f"http://127.0.0.1:{self._operator_port}"

    def start_gateway(self) -> None:
        self.start_agent()
        self.start_envoy()

    def start_agent(self) -> None:
        self._spawn("agent", "gateway", *self._flags(), "--no-envoy")

    def start_envoy(self) -> None:
        bootstrap = self.folder / "envoy.json"
        command = [sys.executable, "-m", "beamlit_operator.gateway", *self._flags()]
        with bootstrap.open("wb") as file:
            subprocess.run([*command, "--print-bootstrap"], stdout=file, check=True, timeout=60)
        self.spawn(
            "envoy",
            str(find_envoy()),
            *("--config-path", str(bootstrap), "--disable-hot-restart"),
            *("--log-level", "error", "--concurrency", "1"),
        )
        self.until(lambda: answers(f"{self.admin}/readyz"), "the gateway")

    def _flags(self) -> list[str]:
        def at(port: int) -> str:
            return f"127.0.0.1:{port}"

        return [
            *("--kubeconfig", str(self.kubeconfig), "--gateway-id", "soak"),
            *("--listen", at(self._gateway_port), "--admin", at(self._admin_port)),
            *("--xds-listen", at(self._xds_port), "--envoy-admin", at(self._envoy_port)),
            *("--drain-time", "1", "--start-deadline", "60"),
        ]


async def deploy(client: HttpClient, stack: SoakStack, models: dict[str, Json]) -> None:
    """Applies a Model and a ModelDeployment for each name; the values are `serverlessConfig`s."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKSPACE}}
    await client.apply(NAMESPACES, namespace, field_manager="soak")
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    await _apply(client, "v1", "Secret", "store", stringData=keys, type="Opaque")
    await _apply(client, API, "Environment", "production", spec={"policies": []})
    for name in models:
        s3 = {
            "uri": "s3://models/soak",
            "endpoint": stack.store,
            "region": "us-east-1",
            "credentialsSecretRef": {"name": "store"},
        }
        await _apply(client, API, "Model", name, spec={"origin": {"s3": s3}})
        await edit(client, name, models[name], version=1)


async def edit(client: HttpClient, name: str, serverless: Json, *, version: int) -> None:
    """Applies a ModelDeployment; another version is another revision."""
    pod = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    runtime = {
        "image": "beamlit.dev/python:3",
        "command": ["python"],
        "args": ["/mnt/models/server.py"],
        "envs": [
            pod,
            {"name": "MODEL", "value": name},
            {"name": "VERSION", "value": str(version)},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"model": name, "runtime": runtime, "serverlessConfig": serverless}
    await _apply(client, API, "ModelDeployment", name, spec=spec)


async def is_settled(client: HttpClient, name: str) -> bool:
    """Whether one revision is all there is, and Ready."""
    status = (await client.get(MODEL_DEPLOYMENTS, name, WORKSPACE)).get("status") or {}
    ready = [c for c in status.get("conditions") or () if c["type"] == "Ready"]
    return bool(ready) and ready[0]["status"] == "True" and len(status.get("revisions") or ()) == 1


async def _apply(client: HttpClient, api_version: str, kind: str, name: str, **top: object) -> None:
    metadata = {"name": name, "namespace": WORKSPACE}
    body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **top}
    await client.apply(resource_of(api_version, kind), body, field_manager="soak")
