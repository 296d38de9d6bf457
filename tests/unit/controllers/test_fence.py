"""What an operator may still write: nothing once another could lead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from tests.support.fakekube import FakeKube

from beamlit_operator.controllers.fence import Fence, NotLeadingError, boot_time
from beamlit_operator.kube import CONFIG_MAPS, PODS, ApiError, HttpClient, Json, connect

POD = {"metadata": {"name": "one", "namespace": "team"}}
CHANGED = {"metadata": {"name": "one", "namespace": "team", "labels": {"a": "b"}}}


class Gate:
    """A leadership that a test gives and takes."""

    def __init__(self, *, opened: bool) -> None:
        self.opened = opened

    def __call__(self) -> bool:
        return self.opened


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.create(PODS, {"metadata": {"name": "two", "namespace": "team"}}),
        lambda client: client.update(PODS, CHANGED),
        lambda client: client.merge_patch(PODS, "one", CHANGED, "team"),
        lambda client: client.delete(PODS, "one", "team"),
    ],
    ids=["create", "update", "merge_patch", "delete"],
)
async def test_every_kind_of_write_stops_at_the_fence_and_passes_while_it_is_open(write) -> None:
    kube, gate = FakeKube(), Gate(opened=False)
    await kube.put(PODS, POD)
    fence = Fence(kube, may_write=gate)
    before = (await kube.list(PODS)).items
    with pytest.raises(NotLeadingError, match="does not lead"):
        await write(fence)
    assert (await kube.list(PODS)).items == before
    gate.opened = True
    await write(fence)
    assert (await kube.list(PODS)).items != before


async def test_an_apply_stops_at_the_fence() -> None:
    gate = Gate(opened=False)
    fence = Fence(FakeKube(), may_write=gate)
    with pytest.raises(NotLeadingError):
        await fence.apply(PODS, CHANGED, field_manager="test")
    gate.opened = True
    with pytest.raises(ApiError, match="no server-side apply"):
        await fence.apply(PODS, CHANGED, field_manager="test")


async def test_reads_pass_whoever_leads() -> None:
    kube = FakeKube()
    await kube.put(PODS, POD)
    fence = Fence(kube, may_write=Gate(opened=False))
    assert (await fence.get(PODS, "one", "team"))["metadata"]["name"] == "one"
    listing = await fence.list(PODS)
    assert len(listing.items) == 1
    await kube.put(PODS, CHANGED)
    async for event in fence.watch(PODS, resource_version=listing.resource_version):
        assert event.object["metadata"]["labels"] == {"a": "b"}
        break


async def test_a_write_that_was_begun_is_not_broken_off_and_is_waited_for() -> None:
    kube, going_on = FakeKube(), asyncio.Event()
    create = kube.create

    async def slow(*args: object, **kwargs: object) -> Json:
        await going_on.wait()
        return await create(*args, **kwargs)  # type: ignore[arg-type]

    kube.create = slow  # type: ignore[method-assign]
    fence = Fence(kube, may_write=Gate(opened=True))
    writing = asyncio.create_task(fence.create(PODS, POD))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await fence.settle(0.05)
    assert not (await kube.list(PODS)).items
    going_on.set()
    await fence.settle(10)
    assert len((await kube.list(PODS)).items) == 1


@asynccontextmanager
async def server(seen: list[str]) -> AsyncIterator[str]:
    """Answers everything, and notes what reached it."""

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.method)
        return web.json_response({"metadata": {"name": "x"}})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def client_of(url: str, folder: Path) -> HttpClient:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return await connect(file)


async def test_leadership_that_ends_while_a_connection_is_made_keeps_the_request_from_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a process that is stopped between its decision and its first byte."""
    import aiohttp

    seen: list[str] = []
    gate = Gate(opened=True)
    connecting = aiohttp.TCPConnector.connect

    async def stopped_meanwhile(*args: object, **kwargs: object) -> object:
        connection = await connecting(*args, **kwargs)  # type: ignore[arg-type]
        gate.opened = False
        return connection

    async with server(seen) as url, await client_of(url, tmp_path) as client:
        fence = Fence(client, may_write=gate)
        await fence.create(CONFIG_MAPS, POD)
        assert seen == ["POST"]
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", stopped_meanwhile)
        with pytest.raises(NotLeadingError):
            await fence.create(CONFIG_MAPS, POD)
        assert seen == ["POST"]
        # Neither reads nor the election, which goes past the fence, are held up.
        await fence.get(CONFIG_MAPS, "one", "team")
        await client.create(CONFIG_MAPS, POD)
        assert seen == ["POST", "GET", "POST"]


def test_the_clock_goes_on() -> None:
    assert 0 < boot_time() <= boot_time()
