"""Who calls, and may they: decided from what the API server says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.issuers import Issuer
from beamlit_operator.gateway.keyindex import KeyIndex
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.reviews import CALLS_FOR_ONE, REMEMBERED, Question, Reviewer
from beamlit_operator.kube import ApiError, Json, Resource

CLUSTER = "https://cluster.test"
ADA = {"iss": "https://id.test", "sub": "ada", "exp": 2000}
SERVICE = {"iss": CLUSTER, "sub": "system:serviceaccount:demo:ci", "exp": 2000}


class Reviewing(FakeKube):
    """An API server that answers reviews and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.rights: set[tuple[str, str, str]] = set()
        self.asked: list[tuple[str, str, str]] = []
        self.tokens: dict[str, Json] = {}
        self.reviewed = 0
        self.broken: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def create(self, resource: Resource, body: Json, *_: Any, **__: Any) -> Json:
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        spec = body["spec"]
        if resource.kind == "TokenReview":
            self.reviewed += 1
            return {"status": self.tokens.get(spec["token"], {"authenticated": False})}
        about = spec["resourceAttributes"]
        question = (spec["user"], about["namespace"], about["name"])
        self.asked.append(question)
        if self.hold is not None and about["name"]:
            await self.hold.wait()
        return {"status": {"allowed": question in self.rights}}


class Bench:
    """A reviewer whose clock a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.kube = Reviewing()
        self.reviewer = Reviewer(
            self.kube,
            keys=KeyIndex(self.kube, stale=300.0),
            issuers=(Issuer("https://id.test", ("beamlit",)),),
            audiences=("beamlit",),
            cluster_issuer=lambda: CLUSTER,
            fresh=10.0,
            stale=300.0,
            metrics=GatewayMetrics(),
            now=lambda: self.time,
            clock=lambda: self.time,
        )

    async def ask(
        self, claims: Json = ADA, *, deployment: str = "iris", workspace: str = "demo"
    ) -> str:
        question = Question(workspace, deployment, "p demo iris production")
        return (await self.reviewer.token(str(claims), claims, question)).verdict


@pytest.mark.parametrize(
    ("right", "deployment", "verdict"),
    [
        ("", "iris", "allow"),
        ("", "", "allow"),
        ("iris", "iris", "allow"),
        ("rose", "iris", "deny"),
        ("iris", "", "deny"),
        ("p demo iris production", "", "deny"),
        (None, "iris", "deny"),
        (None, "", "deny"),
    ],
)
async def test_a_right_is_for_the_workspace_or_for_a_name(
    right: str | None, deployment: str, verdict: str
) -> None:
    bench = Bench()
    if right is not None:
        bench.kube.rights.add(("ada", "demo", right))
    assert await bench.ask(deployment=deployment) == verdict


async def test_what_does_not_exist_takes_as_many_questions_as_what_does() -> None:
    costs = []
    for deployment in ("iris", ""):
        bench = Bench()
        assert await bench.ask(deployment=deployment) == "deny"
        costs.append(len(bench.kube.asked))
    assert costs == [2, 2]


async def test_a_workspace_that_cannot_be_is_refused_without_a_question() -> None:
    bench = Bench()
    assert await bench.ask(workspace="-") == "deny"
    assert await bench.ask(workspace="") == "allow"
    assert not bench.kube.asked


async def test_the_api_server_says_whose_token_of_the_cluster_it_is() -> None:
    bench = Bench()
    user = {"username": "system:serviceaccount:demo:ci", "groups": ["g"], "extra": {"k": ["v"]}}
    known = {"authenticated": True, "audiences": ["beamlit"], "user": user}
    bench.kube.rights.add((str(user["username"]), "demo", "iris"))
    assert await bench.ask(SERVICE) == "unauthenticated"
    bench.time += 11
    bench.kube.tokens[str(SERVICE)] = {**known, "audiences": []}
    assert await bench.ask(SERVICE) == "unauthenticated"
    bench.time += 11
    bench.kube.tokens[str(SERVICE)] = known
    assert await bench.ask(SERVICE) == "allow"
    assert await bench.ask({**SERVICE, "iss": "https://else.test"}) == "unauthenticated"
    assert await bench.ask({**SERVICE, "exp": 900}) == "unauthenticated"
    assert await bench.ask({"iss": CLUSTER}) == "unauthenticated"


async def test_many_who_ask_the_same_at_once_are_one_question() -> None:
    bench = Bench()
    bench.kube.rights.add(("ada", "demo", "iris"))
    assert set(await asyncio.gather(*(bench.ask() for _ in range(50)))) == {"allow"}
    assert len(bench.kube.asked) == 2


@pytest.mark.parametrize(
    "broken", [ApiError(0, "Unreachable", ""), ApiError(500, "", ""), TimeoutError()]
)
async def test_what_was_known_counts_for_a_while_when_nobody_can_be_asked(
    broken: Exception,
) -> None:
    bench = Bench()
    bench.kube.rights.add(("ada", "demo", "iris"))
    assert await bench.ask() == "allow"
    bench.kube.broken = broken
    assert await bench.ask({**ADA, "sub": "eve"}) == "unavailable"
    bench.time += 200
    assert await bench.ask() == "allow"
    bench.time += 200
    assert await bench.ask() == "unavailable"
    bench.kube.broken = None
    assert await bench.ask() == "allow"


async def test_a_revoked_right_ends_when_what_is_known_is_no_longer_fresh() -> None:
    bench = Bench()
    bench.kube.rights.add(("ada", "demo", "iris"))
    assert await bench.ask() == "allow"
    bench.kube.rights.clear()
    assert await bench.ask() == "allow"
    bench.time += 10.1
    assert await bench.ask() == "deny"


async def test_keys_that_were_not_read_yet_let_nobody_in() -> None:
    bench = Bench()
    question = Question("demo", "iris", "p demo iris production")
    key = "blk_0123456789abcdef_" + "s" * 43
    assert bench.reviewer.key(key, question).verdict == "unavailable"
    following = asyncio.create_task(bench.reviewer._keys.run())
    while not bench.reviewer._keys.good:
        await asyncio.sleep(0)
    assert bench.reviewer.key(key, question).verdict == "unauthenticated"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_one_who_asks_for_ever_new_names_leaves_room_for_others() -> None:
    bench = Bench()
    bench.kube.rights.add(("bob", "demo", ""))
    bench.kube.hold = asyncio.Event()
    names = [bench.ask(deployment=f"model-{number}") for number in range(100)]
    many = [asyncio.create_task(each) for each in names]
    while len(bench.kube.asked) < 1 + CALLS_FOR_ONE:
        await asyncio.sleep(0)
    bob = asyncio.create_task(bench.ask({**ADA, "sub": "bob"}))
    while bench.kube.asked[-1][0] != "bob":
        await asyncio.sleep(0)
    named = [name for user, _, name in bench.kube.asked if user == "ada" and name]
    assert len(named) == CALLS_FOR_ONE
    bench.kube.hold.set()
    assert await bob == "allow"
    assert set(await asyncio.gather(*many)) == {"deny"}


async def test_a_right_that_was_just_given_counts_soon() -> None:
    bench = Bench()
    assert await bench.ask() == "deny"
    bench.kube.rights.add(("ada", "demo", "iris"))
    bench.time += 5.1
    assert await bench.ask() == "allow"


async def test_what_is_remembered_has_a_bound() -> None:
    bench = Bench()
    memory = bench.reviewer._rights
    for number in range(REMEMBERED + 5):
        memory.known[number] = (True, 0.0)  # type: ignore[index]
    await bench.ask()
    assert len(memory.known) == REMEMBERED
