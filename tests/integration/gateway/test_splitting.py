"""Several revisions of one deployment behind one address, through a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.gateway.conftest import (
    Gateway,
    ModelServer,
    fresh_address,
    model_server,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.kube import DEPLOYMENTS

STABLE, CANARY = "iris-production-1", "iris-production-2"
HEADER = "x-beamlit-revision"
REQUESTS = 10_000
CONNECTIONS = 10


@pytest.fixture
async def canary() -> AsyncIterator[ModelServer]:
    async with model_server("canary") as running:
        yield running


@pytest.fixture
async def split(gateway: Gateway, server: ModelServer, canary: ModelServer) -> Gateway:
    """A gateway with both revisions awake, the canary without traffic."""
    await gateway.cluster.ready(STABLE, server)
    await gateway.cluster.ready(CANARY, canary)
    await weights(gateway, canary=0)
    return gateway


_marks = itertools.count()


async def weights(gateway: Gateway, *, canary: int, **fields: object) -> None:
    """Gives the canary this weight, and waits until Envoy has it: until it has the routes of a
    deployment that came later."""
    await gateway.cluster.deploy(
        revisions={STABLE: 100 - canary, CANARY: canary}, stable=STABLE, **fields
    )
    mark = f"mark{next(_marks)}"
    await gateway.cluster.deploy(mark, enabled=False)

    async def has() -> bool:
        _, body = await gateway.get(f"/demo/models/{mark}")
        return reason(body) == "Deactivated"

    await until(has, what=f"Envoy has weight {canary}")


def reason(body: dict[str, Any]) -> str:
    return str(body["error"]["reason"])


async def answered(
    gateway: Gateway, path: str = "/demo/models/iris", **headers: str
) -> tuple[int, str, str]:
    """The status, the revision that answered, and the cookie that was set."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.http.get(f"{gateway.url}{path}", headers=sent) as response:
        await response.read()
        found = response.headers
        return response.status, found.get(HEADER, ""), found.get("set-cookie", "")


class _Endless(asyncio.Protocol):
    """Answers each request on a connection with nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" * data.count(b"GET "))


@contextlib.asynccontextmanager
async def fast_server(name: str) -> AsyncIterator[ModelServer]:
    found = ModelServer(fresh_address(), 8080, name)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(_Endless, found.host, found.port)
    async with listening:
        yield found


async def _pipelined(gateway: Gateway, requests: int) -> Counter[str]:
    """Sends this many requests on one connection; counts by the revision that answered."""
    listen = gateway.settings.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    counted: Counter[str] = Counter()
    asked = b"GET /demo/models/iris HTTP/1.1\r\nhost: gateway\r\n\r\n"
    for _ in range(requests // 50):
        writer.write(asked * 50)
        for _ in range(50):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200"), head
            counted[head.partition(f"{HEADER}: ")[2].partition("\r\n")[0]] += 1
    writer.close()
    return counted


async def test_ten_thousand_requests_are_split_by_weight(gateway: Gateway) -> None:
    async with fast_server("stable") as stable, fast_server("canary") as canary:
        await gateway.cluster.ready(STABLE, stable)
        await gateway.cluster.ready(CANARY, canary)
        await weights(gateway, canary=20)
        counted = sum(
            await asyncio.gather(
                *(_pipelined(gateway, REQUESTS // CONNECTIONS) for _ in range(CONNECTIONS))
            ),
            Counter(),
        )
    assert counted.total() == REQUESTS
    assert abs(counted[CANARY] / REQUESTS - 0.20) < 0.025  # six times the standard deviation
    assert counted[STABLE] + counted[CANARY] == REQUESTS


@pytest.mark.parametrize("weight", [0, 50])
async def test_the_header_reaches_any_listed_revision_by_every_address(
    split: Gateway, weight: int
) -> None:
    await weights(split, canary=weight)
    for revision in (STABLE, CANARY):
        for path in ("/demo/models/iris", "/demo/models/iris/v1/x?environment=production", "/any"):
            host = {"host": "iris-production.demo.models.test"} if path == "/any" else {}
            for _ in range(4):
                found = await answered(split, path, **{HEADER: revision}, **host)
                assert found == (200, revision, "")


async def by_body(gateway: Gateway, **headers: str) -> tuple[int, dict[str, Any]]:
    async with gateway.http.post(
        f"{gateway.url}/demo/openai/v1/chat/completions",
        data=json.dumps({"model": "iris"}),
        headers={"content-type": "application/json", **headers},
    ) as response:
        return response.status, await response.json()


async def test_the_header_reaches_a_revision_by_the_model_in_the_body_too(split: Gateway) -> None:
    status, body = await by_body(split, **{HEADER: CANARY})
    assert (status, body["server"]) == (200, "canary")
    status, body = await by_body(split)
    assert (status, body["server"]) == (200, "model")
    status, body = await by_body(split, **{HEADER: "rose-production-1"})
    assert (status, reason(body)) == (404, "UnknownRevision")


async def test_a_revision_that_is_not_listed_for_this_deployment_is_unknown(
    split: Gateway, server: ModelServer
) -> None:
    await split.cluster.deploy("rose")
    await split.cluster.ready("rose-production-1", server)
    await split.routed("/demo/models/rose")
    for path, asked in (
        ("/demo/models/iris", "rose-production-1"),
        ("/demo/models/iris", "production-1"),
        ("/demo/models/iris", f"{CANARY}, {STABLE}"),
        # Of a deployment with only one revision.
        ("/demo/models/rose", CANARY),
        ("/demo/models/rose/v1/x", "rose"),
    ):
        status, body = await split.get(path, headers={HEADER: asked})
        assert (status, reason(body)) == (404, "UnknownRevision"), (path, asked)
    assert (await answered(split, "/demo/models/rose", **{HEADER: "rose-production-1"}))[0] == 200
    status, body = await split.get("/demo/models/lily", headers={HEADER: CANARY})
    assert reason(body) == "UnknownModel"


async def test_a_caller_cannot_choose_a_cluster(split: Gateway) -> None:
    status, body = await split.get(
        "/demo/models/iris", headers={"x-beamlit-cluster": f"demo/iris-production/{CANARY}"}
    )
    assert (status, body["server"]) == (200, "model")
    headers = body["headers"]
    assert isinstance(headers, dict)
    assert headers["x-beamlit-cluster"] == f"demo/iris-production/{STABLE}"


@pytest.mark.parametrize("endpoint", [None, {"loadBalancing": "PromptPrefix"}])
async def test_callers_with_a_sticky_header_only_move_to_the_canary_as_its_weight_rises(
    split: Gateway, endpoint: dict[str, str] | None
) -> None:
    fields = {"sticky": {"header": "X-User"}, "endpoint": endpoint}
    before: set[int] = set()
    for weight in (10, 40, 41, 80):
        await weights(split, canary=weight, **fields)
        for _ in range(2):
            found = [await answered(split, x_user=f"user-{number}") for number in range(80)]
            at_canary = {n for n, (_, revision, _) in enumerate(found) if revision == CANARY}
            assert before <= at_canary
            before = at_canary
        assert abs(len(before) - 0.8 * weight) < 18


async def test_a_caller_keeps_its_revision_by_the_cookie_it_gets(split: Gateway) -> None:
    await weights(split, canary=50, sticky={"cookie": "who"})
    callers = {}
    for _ in range(30):
        status, revision, cookie = await answered(split)
        assert status == 200
        callers[cookie.partition(";")[0]] = revision
    assert len(callers) == 30
    assert set(callers.values()) == {STABLE, CANARY}
    for cookie, revision in callers.items():
        assert await answered(split, cookie=f"a=b; {cookie}") == (200, revision, "")
    await weights(split, canary=70, sticky={"cookie": "who"})
    for cookie, revision in callers.items():
        if revision == CANARY:
            assert await answered(split, cookie=cookie) == (200, CANARY, "")


async def test_weights_that_move_under_load_lose_no_request(split: Gateway, kube: FakeKube) -> None:
    seen: Counter[tuple[int, str]] = Counter()
    going = True

    async def call() -> None:
        while going:
            status, revision, _ = await answered(split)
            seen[status, revision] += 1

    callers = [asyncio.create_task(call()) for _ in range(6)]
    for weight in (5, 25, 50, 0, 100, 30):
        await weights(split, canary=weight)
        start = seen.total()
        await until(lambda start=start: seen.total() > start + 40, what="callers are answered")
    # Promoted: the other one drains, and goes.
    await split.cluster.deploy(revisions={STABLE: 0, CANARY: 100}, stable=CANARY)
    await split.cluster.deploy(revisions={CANARY: 100}, stable=CANARY)
    start = seen.total()
    await until(lambda: seen.total() > start + 40, what="callers are answered")
    going = False
    await asyncio.gather(*callers)
    assert {status for status, _ in seen} == {200}


async def test_a_request_for_a_canary_that_sleeps_wakes_the_canary_alone(
    gateway: Gateway, canary: ModelServer, kube: FakeKube
) -> None:
    await weights(gateway, canary=0)
    asked = asyncio.create_task(answered(gateway, **{HEADER: CANARY}))
    await until(lambda: gateway.held() == 1, what="the request is held")

    async def replicas() -> dict[str, int]:
        found = (await kube.list(DEPLOYMENTS, "demo")).items
        return {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}

    async def woken() -> bool:
        return (await replicas())[CANARY] == 1

    await until(woken, what="the canary is woken")
    assert (await replicas())[STABLE] == 0
    await gateway.cluster.ready(CANARY, canary)
    assert (await asked)[:2] == (200, CANARY)


class _Broken(asyncio.Protocol):
    """Hangs up on each request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        self._transport.close()


async def test_what_became_of_the_requests_of_each_revision_is_reported(
    gateway: Gateway, server: ModelServer
) -> None:
    async def outcomes() -> dict[str, Any]:
        async with gateway.http.get(f"http://{gateway.settings.admin}/load") as response:
            return dict((await response.json())["outcomes"])

    await gateway.cluster.deploy("rose")
    await gateway.cluster.ready("rose-production-1", server)
    await gateway.routed("/demo/models/rose")
    loop, place = asyncio.get_running_loop(), fresh_address()
    async with await loop.create_server(_Broken, place, 8080):
        await gateway.cluster.ready(STABLE, server)
        await gateway.cluster.ready(CANARY, ModelServer(place, 8080, "broken"))
        await weights(gateway, canary=0)
        for _ in range(7):
            assert (await answered(gateway))[0] == 200
        for _ in range(3):
            # Not repeated, for it may have been acted on: an error that the gateway makes.
            async with gateway.http.post(
                f"{gateway.url}/demo/models/iris", headers={HEADER: CANARY}
            ) as response:
                assert response.status == 502
        stable, canary = (f"demo/iris-production/{name}" for name in (STABLE, CANARY))

        async def counted() -> bool:
            found = await outcomes()
            # Histograms are a few seconds behind.
            return len(found) == 2 and all(row["latency"] for row in found.values())

        await until(counted, what="both revisions are reported")
        found = await outcomes()
        assert (found[stable]["requests"], found[stable]["errors"]) == (7, 0)
        assert (found[canary]["requests"], found[canary]["errors"]) == (3, 3)
        for name, requests in ((stable, 7), (canary, 3)):
            bounds, counts = zip(*found[name]["latency"], strict=True)
            assert counts[-1] == requests
            assert list(counts) == sorted(counts)
            assert list(bounds) == sorted(set(bounds))
    await gateway.cluster.deploy(revisions={CANARY: 100})

    async def alone() -> bool:
        return await outcomes() == {}

    await until(alone, what="nothing is compared any more")
