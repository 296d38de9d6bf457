"""A gateway with a real Envoy, a cluster in memory, and tiny model servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from aiohttp import web
from tests.support.fakekube import FakeKube
from tests.support.gatewayobjects import endpoint_slice, model_deployment
from tests.support.ports import free_port, fresh_address

from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.process import EnvoyProcess, find_envoy
from beamlit_operator.gateway.settings import Address, GatewaySettings
from beamlit_operator.kube import DEPLOYMENTS, ENDPOINT_SLICES, MODEL_DEPLOYMENTS

DEADLINE = 60.0


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, what: str, deadline: float = DEADLINE
) -> None:
    """Waits for a condition; fails with what was waited for."""
    end = asyncio.get_running_loop().time() + deadline
    while True:
        found = condition()
        if not isinstance(found, bool):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < end, f"not within {deadline} s: {what}"
        await asyncio.sleep(0.005)


@dataclass
class ModelServer:
    """Answers with what it received."""

    host: str
    port: int
    name: str
    requests: list[str] = field(default_factory=list)
    cancelled: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    peak: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.raw_path)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade") == "websocket":
            return await self._echo(request)
        if "wait" in request.query:
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.json_response(
            {
                "server": self.name,
                "target": request.raw_path,
                "bytes": size,
                "headers": {key.lower(): value for key, value in request.headers.items()},
            }
        )

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            await connection.send_str(f"{self.name}: {message.data}")
        return connection


@contextlib.asynccontextmanager
async def model_server(
    name: str = "model", *, at: ModelServer | None = None
) -> AsyncIterator[ModelServer]:
    """``at`` names the server to run, for one that was there before."""
    server = at or ModelServer(fresh_address(), 8080, name)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, server.host, server.port).start()
    try:
        yield server
    finally:
        await runner.cleanup()


@dataclass
class Cluster:
    """What the operator, the controllers and the kubelet would write."""

    kube: FakeKube

    async def deploy(
        self,
        model: str = "iris",
        *,
        workspace: str = "demo",
        name: str = "",
        environment: str = "production",
        revisions: dict[str, int] | None = None,
        **fields: object,
    ) -> str:
        """A ModelDeployment with its revisions' workloads, all asleep; answers its name."""
        name = name or f"{model}-{environment}"
        traffic = revisions if revisions is not None else {f"{name}-1": 100}
        for revision in traffic:
            await self.kube.put(
                DEPLOYMENTS,
                {"metadata": {"namespace": workspace, "name": revision}, "spec": {"replicas": 0}},
            )
        await self.kube.put(
            MODEL_DEPLOYMENTS,
            model_deployment(
                name,
                workspace=workspace,
                model=model,
                environment=environment,
                traffic=traffic,
                **fields,
            ),
        )
        return name

    async def ready(
        self, revision: str, *servers: ModelServer, workspace: str = "demo", name: str = ""
    ) -> None:
        """The pods of a revision are these; none: the last one is gone."""
        await self.kube.put(
            ENDPOINT_SLICES,
            endpoint_slice(
                revision,
                [(server.host, server.port) for server in servers],
                workspace=workspace,
                deployment=name or revision.rpartition("-")[0],
            ),
        )

    @property
    def scales(self) -> int:
        """How often something was scaled."""
        return self.kube.calls[("patch", "deployments/scale")]


@dataclass
class Gateway:
    """A running gateway and a client to call it with."""

    settings: GatewaySettings
    cluster: Cluster
    agent: Agent
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://{self.settings.listen}"

    async def get(self, path: str, **kwargs: object) -> tuple[int, dict[str, object]]:
        """The status and JSON of a GET."""
        async with self.http.get(f"{self.url}{path}", **kwargs) as response:  # type: ignore[arg-type]
            return response.status, await response.json()

    async def routed(self, path: str = "/demo/models/iris", *, status: int = 200) -> None:
        """Waits until a path answers as expected."""

        async def answers() -> bool:
            return (await self.get(path))[0] == status

        await until(answers, what=f"{path} answers {status}")

    def held(self) -> int:
        """Requests held now."""
        return sum(self.agent.cold.held().values())

    def exists(self, revision: str) -> bool:
        """Whether the catalog has a deployment with this revision."""
        return any(str(r.key.revision) == revision for d in self.agent.catalog for r in d.revisions)


def gateway_settings(**fields: object) -> GatewaySettings:
    def local() -> Address:
        return Address("127.0.0.1", free_port())

    settings = GatewaySettings(
        listen=local(),
        admin=local(),
        xds=local(),
        envoy_admin=local(),
        gateway_id="test",
        domain="models.test",
        concurrency=1,
        load_interval=0.2,
        start_deadline=20.0,
        drain_time=1.0,
    )
    return replace(settings, **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def envoy_of(agent: Agent, settings: GatewaySettings) -> AsyncIterator[EnvoyProcess]:
    envoy = EnvoyProcess(find_envoy(), settings=settings, metrics=agent.metrics)
    task = asyncio.create_task(envoy.run())
    try:
        yield envoy
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def running_gateway(kube: FakeKube, settings: GatewaySettings) -> AsyncIterator[Gateway]:
    agent = Agent(kube, settings)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        agent.running(),
        envoy_of(agent, settings),
    ):
        gateway = Gateway(settings, Cluster(kube), agent, http)
        await until(lambda: not agent.not_ready(), what="the gateway is ready")
        yield gateway


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def cluster(kube: FakeKube) -> Cluster:
    return Cluster(kube)


@pytest.fixture
async def gateway(kube: FakeKube) -> AsyncIterator[Gateway]:
    async with running_gateway(kube, gateway_settings()) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as running:
        yield running
