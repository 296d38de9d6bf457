"""What was last learned about every origin, and when to look again.

Looking at an origin can take a minute, so it happens beside the reconciles: a reconcile asks the
book, gets what is known (or "not yet"), and is called again when the answer changes. The book looks
again by itself when an answer gets too old: thousands of deployments need not be reconciled to find
that a branch has not moved.

What the files say of the model is read once for each revision, and remembered by the Model's status
too: of thousands of origins none is read again when an operator starts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from beamlit_operator.api import Model, Reason
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.controllers.credentials import (
    Credentials,
    SecretProblemError,
    SecretUse,
    read_credentials,
)
from beamlit_operator.controllers.keys import Key
from beamlit_operator.controllers.opening import Opener, Opening
from beamlit_operator.controllers.packed import names_of, packed_names
from beamlit_operator.controllers.slots import Rank, Slots
from beamlit_operator.controllers.stores import field_of, keys_of
from beamlit_operator.kube import ApiError, KubeClient, ObjectKey
from beamlit_operator.origins import (
    OriginError,
    OriginReason,
    OriginRef,
    ResolvedOrigin,
    format_uri,
    resolve,
)
from beamlit_operator.origins.inspection import Inspection
from beamlit_operator.origins.waiting import ASKER
from beamlit_operator.workloads.detection import Suggestion, Unserved, detect

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Origins looked at at the same time; and as many Secrets of theirs are read."""

MISSING_SECRET_RECHECK = 3.0
"""Seconds between two looks for a Secret that does not exist."""

FIRST_SECRET_RECHECK = 0.25
"""The first of these pauses; each is twice as long as the last. Files of one folder are applied by
name, so the Secret often comes a moment after the Model."""

FAILING_RECHECK = 15.0
"""Seconds between two looks at the Secret of an origin that cannot be used."""

UNREAD_RECHECK = 2.0
"""Seconds until what a store did not let be read is asked for again, while nothing is known yet."""

UNREAD_LOOKS = 2
"""How often that is waited for. Then the origin is used without."""

DOUBT_RECHECK = 10.0
"""Seconds between two looks at an origin whose files cannot be fetched."""

Resolve = Callable[[OriginRef, Mapping[str, str]], Awaitable[ResolvedOrigin]]
Inspect = Callable[[OriginRef, Mapping[str, str], ResolvedOrigin], Awaitable[Inspection]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of one revision from before, and by what it is known again."""

    revision: str
    files: int
    bytes: int
    facts: ModelFacts

    def is_of(self, resolved: ResolvedOrigin) -> bool:
        """Whether it is what was found now. Patterns choose among a commit's files."""
        now = (resolved.revision, len(resolved.files), resolved.bytes)
        return (self.revision, self.files, self.bytes) == now


def remembered(model: Model) -> Remembered | None:
    """What a Model's status tells of its files, if that is all there is to know."""
    origin, facts = model.status.origin, model.status.facts
    if origin is None or facts is None or facts.incomplete is not None:
        return None
    return Remembered(origin.revision, origin.files, origin.bytes, facts)


@dataclass(frozen=True, slots=True)
class Question:
    """An origin as seen from a workspace with certain credentials."""

    workspace: str
    ref: OriginRef
    secret: SecretUse | None
    opening: Opening = field(default_factory=Opening)
    """What opens it beside the Secret."""
    withheld: str = ""
    """Why an integration that could be meant is not used, as a sentence."""


@dataclass(frozen=True, slots=True)
class Found:
    """The origin's immutable revision and what it holds."""

    uri: str
    revision: str
    paths: tuple[str, ...]
    bytes: int
    suggestion: tuple[str, str] | None = None
    """The runtime that suits the files, and why."""
    facts: ModelFacts | None = None
    """What the files say about the model; None when they were not read."""
    role: str | None = None
    """The role that the origin's ServiceAccount takes on."""
    unserved: str | None = None
    """Why no preset serves the files, as far as that is known."""
    as_of: str | None = None
    """The time as of which a bucket with versions holds the revision."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The origin cannot be used: reason and sentence for the condition."""

    reason: str
    message: str
    stalled: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found, with the names of the files packed."""

    found: Found
    names: bytes


@dataclass(slots=True)
class _Page:
    """What is known of one question. Times are monotonic seconds."""

    kept: _Kept | Failed | None = None
    secret_version: str | None = None
    due: float = 0.0
    store_due: float = 0.0
    """When the store itself may be asked again, should the Secret not change before."""
    looked: float = float("-inf")
    """When the store was last asked."""
    missed: int = 0
    """How often in a row the Secret was not there."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    """Of the next look."""
    waiting: set[Key] = field(default_factory=set)
    known: Remembered | None = None
    """What the files of a revision say."""
    unread: int = 0
    """How often in a row they could not all be read, before there was an answer."""

    @property
    def answer(self) -> Found | Failed | None:
        """What is told of it."""
        kept = self.kept
        return replace(kept.found, paths=names_of(kept.names)) if isinstance(kept, _Kept) else kept

    def put(self, answer: Found | Failed) -> None:
        """From now on this is told."""
        if isinstance(answer, Found):
            self.kept = _Kept(replace(answer, paths=()), packed_names(answer.paths))
        else:
            self.kept = answer

    def stop(self) -> None:
        """No more looks."""
        if self.task is not None:
            self.task.cancel()
        if self.timer is not None:
            self.timer.cancel()


@dataclass(frozen=True, slots=True)
class Entry:
    """What the book says: the latest answer (None: not looked at yet)."""

    answer: Found | Failed | None


# What credentials could change.
_CLOSED = (
    OriginReason.REPO_NOT_FOUND_OR_NO_ACCESS,
    OriginReason.GATED,
    OriginReason.ACCESS_DENIED,
)


def _failed(error: OriginError, question: Question) -> Failed:
    if question.withheld and error.reason in _CLOSED:
        message = f"{question.ref.place} was asked for without credentials, and is not open to all:"
        return Failed(Reason.INTEGRATION_NOT_ALLOWED, f"{message} {question.withheld}", True)
    return Failed(str(error.reason), error.message, error.stalled)


def _named(problem: SecretProblemError, question: Question) -> str:
    """What is missing, and what names it."""
    secret = question.secret
    if problem.reason is Reason.SECRET_NOT_FOUND and secret is not None and secret.integration:
        return f"{problem} (it is an integration of the workspace)"
    return f"{problem} ({field_of(question.ref, problem.reason)} names it)"


class OriginBook:
    """Looks at origins in the background and remembers the answers."""

    def __init__(
        self,
        client: KubeClient,
        *,
        on_answer: Callable[[Key], None],
        resync: float,
        look: Resolve = resolve,
        inspect: Inspect | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``on_answer`` gets the keys that asked; ``resync`` is in seconds; ``inspect`` reads what
        the files say, None for never."""
        self._client = client
        self._opener = Opener(client, clock=clock)
        self._on_answer = on_answer
        self._resync = resync
        self._look = look
        self._inspect = inspect
        self._clock = clock
        self._chance = chance
        self._pages: dict[Question, _Page] = {}
        self._asked: dict[Key, Question] = {}
        self._reads = asyncio.Semaphore(AT_ONCE)
        self._slots = Slots(AT_ONCE)

    def ask(self, question: Question, by: Key, *, known: Remembered | None = None) -> Entry:
        """What is known; starts a look when that is too old. ``known`` needs not be read again."""
        previous = self._asked.get(by)
        if previous is not None and previous != question:
            self.forget(by)
        self._asked[by] = question
        page = self._pages.setdefault(question, _Page())
        page.waiting.add(by)
        page.known = page.known or known
        self._look_if_due(question, page)
        return Entry(page.answer)

    def forget(self, by: Key) -> None:
        """The object is gone, or asks something else."""
        question = self._asked.pop(by, None)
        page = self._pages.get(question) if question is not None else None
        if page is None or question is None:
            return
        page.waiting.discard(by)
        if not page.waiting:
            del self._pages[question]
            page.stop()

    def doubt(self, by: Key) -> None:
        """The files could not be fetched: the origin may have changed since it was looked at.

        The next question looks again, though not more often than every :data:`DOUBT_RECHECK`.
        """
        question = self._asked.get(by)
        page = self._pages.get(question) if question is not None else None
        if page is not None and self._clock() - page.looked >= DOUBT_RECHECK:
            page.due = page.store_due = 0.0

    async def close(self) -> None:
        """Ends the looks that are under way."""
        tasks = [page.task for page in self._pages.values() if page.task is not None]
        for page in self._pages.values():
            page.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def looking(self) -> int:
        """How many origins are being looked at."""
        return sum(page.task is not None for page in self._pages.values())

    def _look_if_due(self, question: Question, page: _Page) -> None:
        """Starts a look, or sets the timer for it."""
        if page.task is not None:
            return
        if page.timer is not None:
            page.timer.cancel()
            page.timer = None
        left = page.due - self._clock()
        if left <= 0:
            page.task = asyncio.create_task(self._turn(question, page))
        else:
            loop = asyncio.get_running_loop()
            page.timer = loop.call_later(left, self._look_if_due, question, page)

    async def _turn(self, question: Question, page: _Page) -> None:
        before = page.kept
        ASKER.set(question.workspace)  # of this task only
        try:
            await self._fill(question, page)
        except Exception:
            log.exception("looking at %s failed", question.ref.place)
            page.put(Failed(Reason.UNREACHABLE, "an internal error; see the log", False))
            page.due = self._clock() + FAILING_RECHECK
        finally:
            page.task = None
        self._look_if_due(question, page)
        if page.kept != before:
            for key in page.waiting:
                self._on_answer(key)

    async def _fill(self, question: Question, page: _Page) -> None:
        """One look: the Secret first, then the store unless nothing has changed since it failed."""
        try:
            async with self._reads:
                credentials = await self._credentials(question)
                opened = await self._opener.open(question.workspace, question.opening)
        except SecretProblemError as problem:
            page.put(Failed(problem.reason, _named(problem, question), False))
            page.secret_version = None
            page.store_due = 0.0
            pause = FIRST_SECRET_RECHECK * 2 ** min(page.missed, 10)
            page.due = self._clock() + min(pause, MISSING_SECRET_RECHECK)
            page.missed += 1
            return
        except ApiError as error:
            log.warning("what opens %s could not be read: %s", question.ref.place, error)
            if page.kept is None:
                message = f"what opens the origin could not be read: {error.message}"
                page.put(Failed(Reason.UNREACHABLE, message, False))
            page.due = self._clock() + FAILING_RECHECK
            return
        page.missed = 0
        version = f"{credentials.version if credentials else ''}/{opened.version}"
        now = self._clock()
        unchanged = isinstance(page.kept, Failed) and version == page.secret_version
        if unchanged and now < page.store_due:
            page.due = min(page.store_due, now + FAILING_RECHECK)
            return
        rank = Rank.KNOWN
        if page.kept is None and page.known is None:
            rank = Rank.NEW
        elif unchanged:
            rank = Rank.FAILED
        page.secret_version = version
        values = {**(credentials.values if credentials else {}), **opened.values}
        async with self._slots.of(rank):
            page.looked = self._clock()
            looked = await self._asked_store(question, page, values)
        if looked is None:
            return
        resolved, facts = looked
        unread = facts is not None and page.known is None
        if unread and page.kept is None and page.unread < UNREAD_LOOKS:
            # Another runtime may suit what is not read yet: a model would be started twice.
            page.unread += 1
            page.due = self._clock() + UNREAD_RECHECK
            return
        page.unread = 0
        paths = tuple(file.path for file in resolved.files)
        detected = detect(paths, facts)
        answer = Found(
            uri=format_uri(question.ref),
            revision=resolved.revision,
            paths=paths,
            bytes=resolved.bytes,
            role=opened.role,
            suggestion=(detected.type, detected.because)
            if isinstance(detected, Suggestion)
            else None,
            facts=facts,
            unserved=detected.because if isinstance(detected, Unserved) else None,
            as_of=resolved.as_of,
        )
        page.put(answer)
        # Spread, so that origins looked at together are not always looked at together.
        page.due = self._clock() + self._resync * (0.9 + 0.2 * self._chance())

    async def _asked_store(
        self, question: Question, page: _Page, values: Mapping[str, str]
    ) -> tuple[ResolvedOrigin, ModelFacts | None] | None:
        """What the store has; None if it cannot be used, and then the page says why."""
        try:
            resolved = await self._look(question.ref, values)
            return resolved, await self._facts(question.ref, values, resolved, page)
        except OriginError as error:
            if error.reason in (OriginReason.CREDENTIALS_INVALID, OriginReason.ACCESS_DENIED):
                self._opener.distrust(question.workspace, question.opening)
            page.put(_failed(error, question))
            page.store_due = self._clock() + error.retry_after_seconds
            page.due = min(page.store_due, self._clock() + FAILING_RECHECK)
            return None

    async def _facts(
        self,
        ref: OriginRef,
        credentials: Mapping[str, str],
        resolved: ResolvedOrigin,
        page: _Page,
    ) -> ModelFacts | None:
        """What the files say. It is nice to know: an origin can be used without.

        Raises:
            OriginError: whoever may list the files may read none of them.
        """
        if page.known is not None and page.known.is_of(resolved):
            return page.known.facts
        if self._inspect is None:
            return None
        try:
            found = await self._inspect(ref, credentials, resolved)
        except Exception:
            log.exception("the files of %s could not be inspected", ref.place)
            return None
        if found.denied is not None:
            raise found.denied
        # What a store did not give is asked for again with the next look.
        page.known = (
            None
            if found.again
            else Remembered(resolved.revision, len(resolved.files), resolved.bytes, found.facts)
        )
        return found.facts

    async def _credentials(self, question: Question) -> Credentials | None:
        if question.secret is None:
            return None
        key = ObjectKey(question.workspace, question.secret.name)
        return await read_credentials(self._client, key, keys_of(question.ref, question.secret))
