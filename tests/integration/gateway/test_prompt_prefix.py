"""Prompts that begin alike meet the same pod, through a real Envoy."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.integration.gateway.conftest import Gateway, ModelServer, model_server, until
from tests.integration.gateway.test_cold import sleeping
from tests.integration.gateway.test_limits import envoy_has

from beamlit_operator.gateway.balancing import LARGEST_HASHED, PREFIX_HEADER

PATH = "/demo/models/iris/v1/chat/completions"
BY_PREFIX = {"loadBalancing": "PromptPrefix", "prefixLength": 32}


def chat(text: str, **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **fields}).encode()


async def answer(gateway: Gateway, body: bytes, path: str = PATH) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    async with gateway.http.post(f"{gateway.url}{path}", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def ask(gateway: Gateway, body: bytes, path: str = PATH) -> str:
    """The pod that answered."""
    found = await answer(gateway, body, path)
    assert PREFIX_HEADER not in found["headers"]
    assert found["bytes"] == len(body)
    return str(found["server"])


@pytest.fixture
async def pods() -> AsyncIterator[list[ModelServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(model_server(name)) for name in ("a", "b", "c")]


async def serving(gateway: Gateway, pods: list[ModelServer], **fields: Any) -> str:
    revision = await sleeping(gateway, endpoint=BY_PREFIX, **fields)
    await gateway.cluster.ready(revision, *pods)
    await envoy_has(gateway, *pods)
    return revision


async def test_what_begins_alike_meets_the_same_pod_however_it_is_written(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    await serving(gateway, pods)
    met: dict[int, set[str]] = {}
    for number in range(48):  # where the pods are on the ring differs: some have a small part of it
        head = f'{number} Sie sind höflich und "genau"; '
        spellings = [
            chat(head + "how is the weather?", model="iris"),
            chat(head + "and tomorrow?", stream=True),
            # Another order of the members, white space, decoys before the real one.
            json.dumps(
                {
                    "metadata": {"messages": ["decoy"], "n": [1, {"prompt": "}"}]},
                    "stop": ['"messages":'],
                    "messages": [{"role": "user", "content": head + "later"}, {"role": "x"}],
                },
                indent=3,
            ).encode(),
        ]
        met[number] = {await ask(gateway, body) for body in spellings * 2}
    assert all(len(names) == 1 for names in met.values()), met
    assert set.union(*met.values()) == {"a", "b", "c"}


async def test_completions_and_openais_path_are_read_too(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    await serving(gateway, pods)
    for number in range(8):
        prompt = f"{number} once upon a time there was a king who "
        for path in (PATH, "/demo/openai/v1/completions"):
            bodies = [
                json.dumps({"model": "iris", "prompt": prompt + end}).encode()
                for end in ("died", "lived", "slept")
            ]
            assert len({await ask(gateway, body, path) for body in bodies}) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b'{"messages":[{"role":"user","content":"',
        b'{"messages"',
        b'{"prompt":',
        b'{"prompt":"\\',
        b"[" * 1000,
        b'{"a":[}',
        b"\x00\xff{}",
        json.dumps({"prompt": [1, 2, 3]}).encode(),
        json.dumps({"messages": []}).encode(),
        json.dumps({"messages": {"deep": [[[["x"]]]]}}).encode(),
        chat("x" * LARGEST_HASHED),
        chat("y" * (LARGEST_HASHED - 1000)),
        chat("z" * 900_000),
    ],
    ids=lambda body: body[:12].decode(errors="replace") + f"({len(body)})",
)
async def test_a_body_without_a_prompt_that_can_be_read_goes_to_any_pod(
    one_gateway: tuple[Gateway, list[ModelServer]], body: bytes
) -> None:
    gateway, _ = one_gateway
    await ask(gateway, body)

    async def chunked() -> AsyncIterator[bytes]:
        yield body

    async with gateway.http.post(f"{gateway.url}{PATH}", data=chunked()) as response:
        assert response.status == 200
        assert (await response.json())["bytes"] == len(body)


@pytest.fixture
async def one_gateway(
    gateway: Gateway, pods: list[ModelServer]
) -> tuple[Gateway, list[ModelServer]]:
    await serving(gateway, pods)
    return gateway, pods


async def test_one_prompt_that_everybody_sends_does_not_swamp_its_pod(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    await serving(gateway, pods)
    body = chat("the same long system prompt for every caller of this model")
    callers = []
    for number in range(30):
        callers.append(asyncio.create_task(ask(gateway, body, f"{PATH}?wait=1")))
        await until(lambda n=number: sum(p.running for p in pods) == n + 1, what="it is at work")
    # Its own pod takes 125 % of an even share, and one or two before Envoy has counted the others.
    assert 12 <= max(pod.running for pod in pods) <= 15
    for pod in pods:
        pod.release.set()
    await asyncio.gather(*callers)


async def test_a_pod_that_is_lost_moves_its_own_prompts_only(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    revision = await serving(gateway, pods)
    bodies = [chat(f"{number} is where this prompt begins, and so on") for number in range(60)]
    before = [await ask(gateway, body) for body in bodies]
    await gateway.cluster.ready(revision, *pods[:2])

    async def gone() -> bool:
        async with gateway.http.get(f"http://{gateway.settings.envoy_admin}/clusters") as response:
            return f"::{pods[2].host}:" not in await response.text()

    await until(gone, what="Envoy has heard of it")
    after = [await ask(gateway, body) for body in bodies]
    moved = Counter(old for old, new in zip(before, after, strict=True) if old != new)
    assert moved["c"] == before.count("c") > 0
    # All but all of the others' stay; a table laid anew from nothing would move half of them.
    assert moved["a"] + moved["b"] <= 2


async def test_a_limit_and_a_start_keep_prompts_together(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    endpoint = {**BY_PREFIX, "maxConcurrency": 4, "maxQueued": 50}
    revision = await sleeping(gateway, endpoint=endpoint)
    bodies = [chat(f"{number} is where this prompt begins, and so on") for number in range(24)]
    held = [asyncio.create_task(ask(gateway, body)) for body in bodies]
    await until(lambda: gateway.held() == len(bodies), what="all are held")
    await gateway.cluster.ready(revision, *pods)
    await asyncio.gather(*held)
    first = [await ask(gateway, body) for body in bodies]
    assert [await ask(gateway, body) for body in bodies] == first
    assert len(set(first)) > 1


class PrefixCache:
    """Of each pod, the beginnings it saw last, as an LLM server's key-value cache keeps them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[str, OrderedDict[int, None]] = {}
        self.hits: Counter[bool] = Counter()

    def seen(self, pod: str, prefix: int) -> None:
        known = self._known.setdefault(pod, OrderedDict())
        self.hits[prefix in known] += 1
        known[prefix] = None
        known.move_to_end(prefix)
        if len(known) > self._size:
            known.popitem(last=False)

    @property
    def ratio(self) -> float:
        return self.hits[True] / self.hits.total()


async def test_prefix_caches_are_hit_several_times_as_often(
    gateway: Gateway, pods: list[ModelServer]
) -> None:
    """Thirty conversations, three pods that each remember ten: together they just fit.

    Which pod a conversation meets depends on the pods' addresses; ten of each are taken."""
    revision = await serving(gateway, pods)
    met: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    for number in range(400):
        body = chat(f"{number} is the number of this conversation, which goes on")
        pod = met[await ask(gateway, body)]
        if len(pod) < 10:
            pod.append(body)
    conversations = [body for pod in met.values() for body in pod]
    assert len(conversations) == 30
    ratios = {}
    for endpoint in (BY_PREFIX, None):
        await gateway.cluster.deploy("iris", endpoint=endpoint)
        await gateway.cluster.ready(revision, *pods)
        await _settled(gateway, balanced_by_prefix=endpoint is not None)
        cache, choose = PrefixCache(size=10), random.Random(4)
        for _ in range(400):
            number = choose.randrange(30)
            cache.seen(await ask(gateway, conversations[number]), number)
        ratios["PromptPrefix" if endpoint else "LeastRequest"] = cache.ratio
    print(f"prefix cache hit ratio: {ratios}")
    assert ratios["PromptPrefix"] > 2 * ratios["LeastRequest"], ratios


async def _settled(gateway: Gateway, *, balanced_by_prefix: bool) -> None:
    """Waits until Envoy balances as it was told."""

    async def does() -> bool:
        body = chat("always the same words to see what Envoy makes of them")
        answers = [await answer(gateway, body) for _ in range(12)]
        # Between the change of a cluster and that of its routes the digest may reach a pod.
        told = any(PREFIX_HEADER in found["headers"] for found in answers)
        by_prefix = len({found["server"] for found in answers}) == 1
        return by_prefix is balanced_by_prefix and not told

    await until(does, what="Envoy balances as it was told")
