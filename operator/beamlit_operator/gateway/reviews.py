"""Who calls, and may they? What the agent answers where Envoy's gate does not know yet.

========================================  =========================================================
the caller shows                          and is
========================================  =========================================================
a ServiceAccount's token                  who the API server says (TokenReview), so a deleted
                                          account, pod or secret ends it
another issuer's token                    who its claims name; Envoy checked signature and time
an API key                                that key, if its id is in the index and its secret fits
anything else, or one that has expired    nobody: ``unauthenticated``
========================================  =========================================================

========================================  =========================================================
the caller may                            then ``allow``
========================================  =========================================================
invoke everything of the workspace        whatever they ask for, so that they see our 404
invoke this deployment by name            if it exists
neither                                   no: ``deny``
(an API key: its workspace's deployments  the same
that it lists, or all)
========================================  =========================================================

A deployment that does not exist costs the same questions as one that does: the workspace as a
whole, then a name, for each address anew. What the API server said counts for ``fresh`` seconds, a
no for half of them; while it cannot be asked, for ``stale``. Who was never known then is
``unavailable``, and who asks too much at once is ``crowded``: neither is let in.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakValueDictionary

from beamlit_operator.api.apikey import fits, split_key
from beamlit_operator.gateway.issuers import Issuer
from beamlit_operator.gateway.keyindex import KeyIndex
from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.kube import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, ApiError, KubeClient

log = logging.getLogger(__name__)

Verdict = Literal["allow", "deny", "unauthenticated", "unavailable", "crowded"]

CALLS_AT_ONCE = 32
"""Reviews that the API server does at the same time for one gateway."""

CALLS_FOR_ONE = 4
"""Of these, questions about the rights of one caller, who may ask for ever new names."""

WAITING_FOR_ONE = 64
"""Questions of one caller that may wait for their turn. More are ``crowded``: nobody may keep the
API server so busy that what was known before counts for longer."""

CALL_TIMEOUT = 4.0
"""Seconds one may take; Envoy waits a second longer."""

REMEMBERED = 20_000
"""Answers of each kind that are kept."""

_KEY_LIFETIME = 86_400.0
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class UnavailableError(Exception):
    """It cannot be found out at the moment."""


class CrowdedError(Exception):
    """The caller asks too much at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``expires`` is when the token does, in seconds since 1970."""

    user: str
    expires: float
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What is called: a deployment of a workspace, empty if there is none under what was asked; no
    workspace where it only matters who calls."""

    workspace: str
    deployment: str
    asked: str

    @property
    def named(self) -> str:
        """The name that the API server is asked about."""
        return self.deployment or self.asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of the request. ``age`` is how many seconds ago the API server said so."""

    verdict: Verdict
    user: str = ""
    expires: float = 0.0
    age: float = 0.0


@dataclass(slots=True)
class Memory(Generic[K, V]):
    """Answers by question: each is asked for once at a time, and the oldest are forgotten."""

    fresh: float
    stale: float
    clock: Callable[[], float]
    hit: Callable[[], None]
    known: OrderedDict[K, tuple[V, float]] = field(default_factory=OrderedDict)
    asked: dict[K, asyncio.Task[V]] = field(default_factory=dict)

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> tuple[V, float]:
        """The answer and its age in seconds.

        Raises:
            UnavailableError: it is not known, and cannot be asked.
        """
        found = self.known.get(key)
        # A no is asked about sooner: who was just given a right does not want to wait.
        fresh = self.fresh if found is not None and found[0] else self.fresh / 2
        if found is not None and self.clock() - found[1] < fresh:
            self.hit()
            self.known.move_to_end(key)
            return found[0], self.clock() - found[1]
        task = self.asked.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, ask))
            self.asked[key] = task
            task.add_done_callback(lambda _: self.asked.pop(key, None))
        try:
            # One caller who hangs up must not end it for the others.
            return await asyncio.shield(task), 0.0
        except UnavailableError:
            if found is not None and self.clock() - found[1] < self.stale:
                return found[0], self.clock() - found[1]
            raise

    async def _ask(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        began = self.clock()
        answer = await ask()
        self.known[key] = (answer, began)
        self.known.move_to_end(key)
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)
        return answer


class Reviewer:
    """Answers the gate."""

    def __init__(
        self,
        client: KubeClient,
        *,
        keys: KeyIndex,
        issuers: tuple[Issuer, ...],
        audiences: tuple[str, ...],
        cluster_issuer: Callable[[], str],
        fresh: float,
        stale: float,
        metrics: GatewayMetrics,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``fresh`` and ``stale`` are seconds; ``cluster_issuer`` is empty until it is known."""
        self._client = client
        self._keys = keys
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._audiences = audiences
        self._cluster_issuer = cluster_issuer
        self._metrics = metrics
        self._now = now
        self._callers: Memory[bytes, Caller | None] = Memory(
            fresh, stale, clock, lambda: metrics.review_remembered("caller")
        )
        self._rights: Memory[tuple[Caller, str, str, str], bool] = Memory(
            fresh, stale, clock, lambda: metrics.review_remembered("right")
        )
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()

    async def token(self, token: str, claims: Mapping[str, Any], question: Question) -> Answer:
        """For a token whose signature, time and audience Envoy found good."""
        try:
            answer = await self._token(token, claims, question)
        except UnavailableError:
            answer = Answer("unavailable")
        except CrowdedError:
            answer = Answer("crowded")
        self._metrics.reviewed("token", answer.verdict)
        return answer

    async def _token(self, token: str, claims: Mapping[str, Any], question: Question) -> Answer:
        expires = claims.get("exp")
        if not isinstance(expires, int | float):
            return Answer("unauthenticated")
        name = hashlib.sha256(token.encode()).digest()
        caller, age = await self._callers.get(name, lambda: self._caller(token, claims))
        if caller is None or self._now() >= caller.expires:
            return Answer("unauthenticated")
        allowed, since = await self._may(caller, question)
        verdict: Verdict = "allow" if allowed else "deny"
        return Answer(verdict, caller.user, caller.expires, max(age, since))

    async def _caller(self, token: str, claims: Mapping[str, Any]) -> Caller | None:
        expires = float(claims["exp"])
        issuer = self._issuers.get(str(claims.get("iss")))
        if issuer is not None:
            named = issuer.user_of(claims)
            if named is None:
                return None
            return Caller(named[0], expires, (*named[1], "system:authenticated"))
        known = self._cluster_issuer()
        if not known:
            raise UnavailableError
        if claims.get("iss") != known:
            return None
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "metadata": {},
            "spec": {"token": token, "audiences": list(self._audiences)},
        }
        status = await self._call("TokenReview", self._client.create(TOKEN_REVIEWS, review))
        user = status.get("user") or {}
        # No audiences in the answer: the server did not look at them.
        if not (status.get("authenticated") is True and status.get("audiences")):
            return None
        return Caller(
            str(user.get("username") or ""),
            expires,
            tuple(map(str, user.get("groups") or ())),
            str(user.get("uid") or ""),
            tuple(
                sorted(
                    (str(name), tuple(map(str, values or ())))
                    for name, values in (user.get("extra") or {}).items()
                )
            ),
        )

    async def _may(self, caller: Caller, question: Question) -> tuple[bool, float]:
        if not question.workspace:
            return True, 0.0
        if not _LABEL.fullmatch(question.workspace):
            return False, 0.0
        everything, age = await self._right(caller, question.workspace, "")
        if everything:
            return True, age
        named, since = await self._right(caller, question.workspace, question.named, question.asked)
        return named and bool(question.deployment), max(age, since)

    async def _right(
        self, caller: Caller, workspace: str, name: str, asked: str = ""
    ) -> tuple[bool, float]:
        """``asked`` is part of what is remembered: by another address of the same deployment it is
        a new question, as it is for one that does not exist. Else the time would tell them apart.
        """
        key = (caller, workspace, name, asked)
        known = self._rights.known.get(key)
        if not (known and known[0]) and self._waiting[caller.user] >= WAITING_FOR_ONE:
            raise CrowdedError
        return await self._rights.get(key, lambda: self._ask_right(caller, workspace, name))

    async def _ask_right(self, caller: Caller, workspace: str, name: str) -> bool:
        review = {
            "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version,
            "kind": SUBJECT_ACCESS_REVIEWS.kind,
            "metadata": {},
            "spec": {
                "user": caller.user,
                "groups": list(caller.groups),
                "uid": caller.uid,
                "extra": {name: list(values) for name, values in caller.extra},
                "resourceAttributes": {
                    "namespace": workspace,
                    "verb": "create",
                    "group": "beamlit.com",
                    "resource": "modeldeployments",
                    "subresource": "invoke",
                    "name": name,
                },
            },
        }
        turn = self._turns.setdefault(caller.user, asyncio.Semaphore(CALLS_FOR_ONE))
        self._waiting[caller.user] += 1
        try:
            async with turn:
                status = await self._call(
                    "SubjectAccessReview", self._client.create(SUBJECT_ACCESS_REVIEWS, review)
                )
        finally:
            self._waiting[caller.user] -= 1
            if not self._waiting[caller.user]:
                del self._waiting[caller.user]
        return status.get("allowed") is True

    async def _call(self, kind: str, call: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            async with self._places:
                answer = await asyncio.wait_for(call, CALL_TIMEOUT)
        except (ApiError, TimeoutError) as error:
            self._metrics.review_called(kind, "error")
            # The error of a review names neither token nor caller.
            log.warning("%s failed: %s", kind, error or "no answer in time")
            raise UnavailableError from error
        self._metrics.review_called(kind, "answered")
        status = answer.get("status")
        return status if isinstance(status, dict) else {}

    def key(self, text: str, question: Question) -> Answer:
        """For what looks like an API key."""
        answer = self._key(text, question)
        self._metrics.reviewed("key", answer.verdict)
        return answer

    def _key(self, text: str, question: Question) -> Answer:
        if not self._keys.good:
            return Answer("unavailable")
        parts = split_key(text)
        if parts is None:
            return Answer("unauthenticated")
        id, secret = parts
        # Ids are made by whoever may write a workspace's Secret, so two may be the same.
        found = self._keys.find(id) or [("", None)]
        fitting = [(workspace, key) for workspace, key in found if fits(key, secret)]
        # A copy in another workspace takes nothing from the one that is called.
        fitting.sort(key=lambda each: each[0] != question.workspace)
        now = self._now()
        for workspace, key in fitting:
            assert key is not None
            expires = now + _KEY_LIFETIME if key.expires is None else key.expires.timestamp()
            if now >= expires:
                continue
            user = f"apikey:{workspace}/{key.name}"
            covered = (
                key.covers(question.deployment)
                if question.deployment
                else key.deployments is None or not question.workspace
            )
            mine = question.workspace in ("", workspace)
            return Answer("allow" if mine and covered else "deny", user, expires)
        return Answer("unauthenticated")
