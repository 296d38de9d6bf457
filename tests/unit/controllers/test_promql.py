"""Queries to a Prometheus that speaks its HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from beamlit_operator.controllers import promql
from beamlit_operator.controllers.options import parse
from beamlit_operator.controllers.promql import Queries, answer_of, filled
from beamlit_operator.kube import ObjectKey
from beamlit_operator.rollout.analysis import Answer

IRIS = ObjectKey("demo", "iris")


def vector(*values: str) -> dict[str, Any]:
    result = [{"metric": {"n": str(n)}, "value": [1.0, v]} for n, v in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass
class Prometheus:
    """Answers every query with what it is told."""

    url: str = ""
    answer: dict[str, Any] = field(default_factory=lambda: vector("0.5"))
    status: int = 200
    queries: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0

    async def query(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most = max(self.most, self.running)
        self.queries.append(str((await request.post())["query"]))
        self.tokens.append(request.headers.get("authorization", ""))
        await self.go.wait()
        self.running -= 1
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def prometheus() -> AsyncIterator[Prometheus]:
    fake = Prometheus()
    fake.go.set()
    app = web.Application()
    app.router.add_post("/base/api/v1/query", fake.query)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}/base"
    yield fake
    await runner.cleanup()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def asking(url: str, **more: Any) -> AsyncIterator[Queries]:
    queries = Queries(url, **more)
    try:
        yield queries
    finally:
        await queries.close()


async def answer(queries: Queries, query: str = "up", step: str = "1") -> Answer:
    async with asyncio.timeout(30):
        while (found := queries.latest(IRIS, query, step)) is None:
            await asyncio.sleep(0.005)
    return found


async def test_the_last_answer_stands_until_there_is_a_newer_one(prometheus: Prometheus) -> None:
    clock = Clock()
    async with asking(prometheus.url, clock=clock) as queries:
        assert queries.latest(IRIS, "up", "1") is None
        assert await answer(queries) == Answer(0.5)
        prometheus.answer = vector("0.7")
        assert await answer(queries) == Answer(0.5)
        assert len(prometheus.queries) == 1
        clock.now += promql.ASK_AGAIN
        async with asyncio.timeout(30):
            while await answer(queries) != Answer(0.7):
                await asyncio.sleep(0.005)
        assert prometheus.queries == ["up", "up"]


async def test_each_step_asks_anew(prometheus: Prometheus) -> None:
    async with asking(prometheus.url) as queries:
        assert await answer(queries) == Answer(0.5)
        prometheus.answer = vector("0.7")
        assert queries.latest(IRIS, "up", "2") is None
        assert await answer(queries, step="2") == Answer(0.7)


async def test_only_so_many_queries_are_on_their_way_at_once(prometheus: Prometheus) -> None:
    prometheus.go.clear()
    async with asking(prometheus.url) as queries:
        for number in range(3 * promql.AT_ONCE):
            queries.latest(IRIS, f"up{number}", "1")
        async with asyncio.timeout(30):
            while prometheus.running < promql.AT_ONCE:
                await asyncio.sleep(0.005)
        prometheus.go.set()
        for number in range(3 * promql.AT_ONCE):
            assert await answer(queries, f"up{number}") == Answer(0.5)
    assert prometheus.most == promql.AT_ONCE


async def test_the_token_is_read_for_each_query_and_told_nowhere(
    prometheus: Prometheus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "beamlit_operator")
    token, clock = tmp_path / "token", Clock()
    token.write_text("first-secret\n")
    async with asking(prometheus.url, token_file=str(token), clock=clock) as queries:
        await answer(queries)
        token.write_text("second-secret\n")
        prometheus.status, prometheus.answer = 403, {}
        refused = await answer(queries, step="2")
        token.unlink()
        missing = await answer(queries, step="3")
    assert prometheus.tokens == ["Bearer first-secret", "Bearer second-secret"]
    assert refused == Answer(problem="Prometheus refuses the operator's token (403)")
    assert "token" in missing.problem
    assert "secret" not in caplog.text + refused.problem + missing.problem


async def test_a_prometheus_that_is_not_there_is_a_sentence() -> None:
    async with asking("http://127.0.0.1:1") as queries:
        assert await answer(queries) == Answer(problem="Prometheus cannot be asked (no connection)")


async def test_without_an_address_the_option_is_named() -> None:
    found = Queries("").latest(IRIS, "up", "1")
    assert found is not None
    assert "--prometheus-url" in found.problem


async def test_what_nobody_asks_any_more_is_forgotten(prometheus: Prometheus) -> None:
    clock = Clock()
    async with asking(prometheus.url, clock=clock) as queries:
        for number in range(5):
            await answer(queries, f"up{number}")
        clock.now += promql.KEEP + 1
        await answer(queries, "last")
        assert len(queries._asked) == 1


ERROR = {"status": "error", "errorType": "bad_data", "error": 'parse error: token="s3cr3tpassword"'}


@pytest.mark.parametrize(
    ("status", "document", "value", "words"),
    [
        (200, vector("0.25"), 0.25, ""),
        (200, {"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}, 2.0, ""),
        (200, vector(), None, "nothing in Prometheus matches"),
        (200, vector("1", "2"), None, "2 series"),
        (200, vector("NaN"), None, "nan"),
        (200, vector("+Inf"), None, "inf"),
        (200, vector("x"), None, "no number"),
        (
            200,
            {"status": "success", "data": {"resultType": "matrix", "result": []}},
            None,
            "matrix",
        ),
        (200, {"status": "success", "data": "?"}, None, "one number"),
        (400, ERROR, None, "does not take the query: parse error"),
        (422, ERROR, None, "does not take the query"),
        (401, {}, None, "token"),
        (302, {}, None, "302"),
        (503, {"status": "error"}, None, "503"),
        (200, None, None, "no result"),
        (200, [], None, "no result"),
    ],
)
def test_an_answer_is_a_value_or_a_sentence(
    status: int, document: Any, value: float | None, words: str
) -> None:
    found = answer_of(status, document)
    assert found.value == value
    assert words in found.problem
    assert bool(found.problem) == (value is None)
    assert "s3cr3t" not in found.problem


def test_placeholders_are_replaced_and_other_braces_stay() -> None:
    query = 'x{ns="{{workspace}}",d="{{ name }}",r=~"{{canary}}|{{stable}}",o="{{other}}"}[1m]'
    found = filled(query, workspace="demo", name="iris", canary="iris-2", stable="iris-1")
    assert found == 'x{ns="demo",d="iris",r=~"iris-2|iris-1",o="{{other}}"}[1m]'


def test_the_address_of_prometheus_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--prometheus-url", "http://p:9090"], {}).prometheus_url == "http://p:9090"
    assert parse([], {"BEAMLIT_PROMETHEUS_URL": "https://p"}).prometheus_url == "https://p"
    for wrong, words in (("p:9090", "is no URL"), ("http://u:pw@p", "--prometheus-token-file")):
        with pytest.raises(SystemExit):
            parse(["--prometheus-url", wrong], {})
        assert words in capsys.readouterr().err
