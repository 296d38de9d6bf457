"""The operator on a real API over HTTP, without a kubelet: tests play the workloads' part."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.controllers import originbook
from beamlit_operator.controllers.operator import Operator
from beamlit_operator.controllers.options import Options
from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    NODES,
    ApiError,
    HttpClient,
    Json,
    KubeClient,
    Resource,
    connect,
    resource_of,
)
from beamlit_operator.origins import OriginError, OriginReason, ResolvedOrigin
from beamlit_operator.origins.inspection import Inspection
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.ref import OriginRef, S3Ref

TEAM = "team"
DEADLINE = 60.0


@dataclass
class Store:
    """A pretended S3: buckets by name, each with the revision it holds."""

    buckets: dict[str, str] = field(default_factory=lambda: {"models": "sha256:aaa"})
    looks: int = 0
    paths: tuple[str, ...] = ("model.ubj",)
    facts: ModelFacts | None = None
    """What the files say."""
    inspections: int = 0

    async def inspect(
        self, ref: OriginRef, credentials: Mapping[str, str], listing: ResolvedOrigin
    ) -> Inspection:
        self.inspections += 1
        return Inspection(self.facts or ModelFacts())

    async def look(self, ref: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
        self.looks += 1
        assert isinstance(ref, S3Ref)
        if ref.bucket not in self.buckets:
            raise OriginError(
                OriginReason.BUCKET_NOT_FOUND, f"no bucket {ref.bucket}", retry_after_seconds=1.0
            )
        files = tuple(OriginFile(path, 10, "etag", path) for path in self.paths)
        return ResolvedOrigin(self.buckets[ref.bucket], files, 10 * len(files))


@dataclass
class Lab:
    """A cluster, a pretended store, and operators on it."""

    server: ApiServer
    data_dir: Path
    kubeconfig: Path
    store: Store
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    operator: Operator | None = None
    running: asyncio.Task[None] | None = None

    @property
    def client(self) -> KubeClient:
        return self.server.client

    async def restart_server(self) -> None:
        """The API server goes away, and comes back at the same address."""
        port = int(self.server.url.rpartition(":")[2])
        await self.server.stop()
        self.server = ApiServer(data_dir=self.data_dir)
        await self.server.start(port=port)

    async def process(self, identity: str, *flags: str) -> asyncio.subprocess.Process:
        """An operator in a process of its own."""
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "beamlit_operator.controllers",
            *("--kubeconfig", str(self.kubeconfig)),
            *("--identity", identity, "--listen", "", "--log-level", "warning"),
            *flags,
        )
        self.processes.append(started)
        return started

    async def holder(self) -> str:
        """Who holds the Lease."""
        try:
            lease = await self.client.get(LEASES, "beamlit-operator", "beamlit-system")
        except ApiError as error:
            if error.not_found:
                return ""
            raise
        return str(lease["spec"].get("holderIdentity") or "")

    async def until_holder(self, identity: str) -> None:
        async def held() -> bool:
            return await self.holder() == identity

        await self.until(held, f"{identity} leads")

    async def close(self) -> None:
        await self.stop_operator()
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.server.stop()

    async def start_operator(self, **more: Any) -> Operator:
        options = Options(
            kubeconfig=str(self.kubeconfig),
            gateway_url="http://gateway.example",
            image="registry.example/beamlit:1",
            listen="",
            identity="test",
            **more,
        )
        client = await connect(self.kubeconfig)
        operator = Operator(client, options, look=self.store.look, inspect=self.store.inspect)
        self.operator = operator
        self.running = asyncio.create_task(self._run(operator, client))
        await self.until(lambda: not operator.missing, "the operator is ready")
        return operator

    async def _run(self, operator: Operator, client: HttpClient) -> None:
        async with client:
            await operator.run()

    async def stop_operator(self) -> None:
        if self.running is not None:
            self.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running
            self.running = None

    async def apply(self, text: str) -> None:
        for body in yaml.safe_load_all(text):
            body["metadata"].setdefault("namespace", TEAM)
            await self.client.apply(
                resource_of(body["apiVersion"], body["kind"]), body, field_manager="user"
            )

    async def get(self, resource: Resource, name: str) -> Json | None:
        try:
            return await self.client.get(resource, name, TEAM)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def ready(self, resource: Resource, name: str) -> tuple[str, str, str]:
        found = await self.get(resource, name) or {}
        for each in (found.get("status") or {}).get("conditions") or ():
            if each["type"] == "Ready":
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    async def until_ready(
        self, reason: str, name: str = "iris", resource: Resource = MODEL_DEPLOYMENTS
    ) -> Json:
        """Waits for the reason of `Ready`; fails with the object as it is."""

        async def so() -> bool:
            return (await self.ready(resource, name))[1] == reason

        await self.until(so, f"{resource.kind} {name} is {reason}", show=resource, name=name)
        found = await self.get(resource, name)
        assert found is not None
        return found

    async def until(
        self,
        condition: Callable[[], bool | Awaitable[bool]],
        what: str,
        *,
        show: Resource | None = None,
        name: str = "",
    ) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            if self.running is not None and self.running.done():
                self.running.result()
            value = condition()
            if value if isinstance(value, bool) else await value:
                return
            if time.monotonic() > end:
                state = await self.get(show, name) if show is not None else None
                pytest.fail(f"not within {DEADLINE} s: {what}\n{json.dumps(state, indent=1)}")
            await asyncio.sleep(0.05)

    async def revision(self) -> Json:
        """The only revision's Deployment."""
        found = await self.client.list(DEPLOYMENTS, TEAM)
        assert len(found.items) == 1, [i["metadata"]["name"] for i in found.items]
        return found.items[0]

    async def play(self, revision: str, *, ready: int) -> None:
        """What the workload controllers would say."""
        live = await self.client.get(DEPLOYMENTS, revision, TEAM)
        status = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": ready,
            "readyReplicas": ready,
            "updatedReplicas": ready,
        }
        await self.client.merge_patch(
            DEPLOYMENTS, revision, {"status": status}, TEAM, subresource="status"
        )

    async def scale(self, revision: str, replicas: int) -> None:
        await self.client.merge_patch(
            DEPLOYMENTS, revision, {"spec": {"replicas": replicas}}, TEAM, subresource="scale"
        )

    async def events(self, name: str) -> list[str]:
        found = await self.client.list(EVENTS, TEAM)
        return [e["reason"] for e in found.items if e["involvedObject"]["name"] == name]

    async def settle(self) -> int:
        """Waits until nothing is written any more; the number of writes so far."""
        operator = self.operator
        assert operator is not None
        last, since = operator.writer.writes, time.monotonic()

        def quiet() -> bool:
            nonlocal last, since
            if operator.writer.writes != last or not operator.queue.idle:
                last, since = operator.writer.writes, time.monotonic()
            return time.monotonic() - since > 1.0

        await self.until(quiet, "no more writes")
        return last


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(originbook, "MISSING_SECRET_RECHECK", 0.2)
    server = ApiServer(data_dir=tmp_path / "cluster")
    await server.start()
    lab = Lab(server, tmp_path / "cluster", server.kubeconfig(tmp_path / "kubeconfig"), Store())
    try:
        await furnish(lab.client)
        yield lab
    finally:
        await lab.close()


async def furnish(client: KubeClient) -> None:
    """CRDs, namespaces and two nodes."""
    for kind in KINDS:
        await client.apply(CUSTOM_RESOURCE_DEFINITIONS, crd(kind), field_manager="test")
    for name in (TEAM, "beamlit-system"):
        body: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await client.apply(NAMESPACES, body, field_manager="test")
    for name, region in (("us", "us-east-1"), ("eu", "eu-west-1")):
        marks = {"topology.kubernetes.io/region": region, "kubernetes.io/arch": "amd64"}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": marks}}
        await client.apply(NODES, body, field_manager="test")
