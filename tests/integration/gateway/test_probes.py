"""What the gateway's probes say when something is really broken."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.gateway.conftest import (
    Cluster,
    Gateway,
    ModelServer,
    gateway_settings,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway import health


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that stands still, with its connections open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def envoy_pid(gateway: Gateway) -> int:
    """The child of ours whose bootstrap names this gateway's address."""
    port = str(gateway.settings.envoy_admin.port)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "--config-path" in words:
                config = Path(words[words.index("--config-path") + 1])
                if f": {port}" in config.read_text() or f":{port}" in config.read_text():
                    return int(entry.name)
        except OSError:
            continue
    raise AssertionError("there is no Envoy of this gateway")


async def probe(gateway: Gateway, path: str) -> tuple[int, str]:
    async with gateway.http.get(f"http://{gateway.settings.admin}{path}") as response:
        return response.status, (await response.text()).strip()


async def metric(gateway: Gateway, name: str) -> float:
    async with gateway.http.get(f"http://{gateway.settings.admin}/metrics") as response:
        text = await response.text()
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


@pytest.fixture
async def warm(kube: FakeKube, cluster: Cluster, server: ModelServer) -> AsyncIterator[Gateway]:
    await cluster.deploy()
    await cluster.ready("iris-production-1", server)
    async with running_gateway(kube, gateway_settings()) as gateway:
        await gateway.routed()
        yield gateway


async def test_an_api_server_that_is_away_takes_no_gateway_from_its_callers(
    warm: Gateway, kube: FakeKube
) -> None:
    await kube.set_away(True)
    for path in ("/livez", "/healthz", "/readyz"):
        assert await probe(warm, path) == (200, "ok")
    assert (await warm.get("/demo/models/iris"))[0] == 200
    assert await metric(warm, "beamlit_gateway_ready") == 1
    await kube.set_away(False)


async def test_an_envoy_that_hangs_is_told_and_the_agent_is_not_restarted(
    warm: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ENVOY_SILENT", 0.5)
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    with frozen(envoy_pid(warm)):

        async def unready() -> bool:
            status, text = await probe(warm, "/readyz")
            return status == 503 and "Envoy has not answered for" in text

        await until(unready, what="the gateway is not ready")
        assert (await probe(warm, "/livez"))[0] == 200

    async def ready() -> bool:
        return (await probe(warm, "/readyz"))[0] == 200

    await until(ready, what="the gateway is ready again")
    assert (await warm.get("/demo/models/iris"))[0] == 200


async def test_configuration_that_envoy_does_not_answer_is_measured(
    warm: Gateway, cluster: Cluster
) -> None:
    assert await metric(warm, "beamlit_gateway_envoy_connected") == 1
    with frozen(envoy_pid(warm)):
        await cluster.deploy("wine")

        async def owed() -> bool:
            # Not by /metrics, which asks Envoy as well.
            return warm.agent._vitals().unanswered > 0.2

        await until(owed, what="Envoy owes an answer")
        assert warm.agent.not_ready() == ""

    async def answered() -> bool:
        return await metric(warm, "beamlit_gateway_configuration_unanswered_seconds") == 0

    await until(answered, what="Envoy has answered")
