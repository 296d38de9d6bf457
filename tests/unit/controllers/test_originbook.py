"""When origins and their Secrets are looked at, and what is told in between."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

from tests.support.fakekube import FakeKube

from beamlit_operator.api import Model
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.meta import ObjectMeta
from beamlit_operator.api.model import ModelStatus
from beamlit_operator.api.model import ResolvedOrigin as ResolvedStatus
from beamlit_operator.controllers.credentials import SecretUse
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.opening import Opening
from beamlit_operator.controllers.originbook import (
    AT_ONCE,
    DOUBT_RECHECK,
    FAILING_RECHECK,
    FIRST_SECRET_RECHECK,
    MISSING_SECRET_RECHECK,
    UNREAD_LOOKS,
    UNREAD_RECHECK,
    Failed,
    Found,
    OriginBook,
    Question,
    Remembered,
    remembered,
)
from beamlit_operator.kube import CONFIG_MAPS, SECRETS
from beamlit_operator.origins import (
    HubRef,
    OriginError,
    OriginReason,
    OriginRef,
    ResolvedOrigin,
    S3Ref,
)
from beamlit_operator.origins.inspection import Inspection
from beamlit_operator.origins.listing import OriginFile

KEY = Key(Kind.MODEL, Workspace("team"), "iris")
QUESTION = Question("team", S3Ref("models", "iris"), SecretUse("s3"))
RESYNC = 600.0


class Lab:
    """A book with a clock, a cluster in memory and a pretended store."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.kube = FakeKube()
        self.told = asyncio.Event()
        self.looks = 0
        self.error: OriginError | None = None
        self.seen: Mapping[str, str] = {}
        self.book = OriginBook(
            self.kube,
            on_answer=lambda _: self.told.set(),
            resync=RESYNC,
            look=self.look,
            clock=lambda: self.now,
            chance=lambda: 0.5,
        )

    async def look(self, _: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
        self.looks += 1
        self.seen = credentials
        if self.error is not None:
            raise self.error
        return ResolvedOrigin("sha256:a", (OriginFile("model.joblib", 1, "e", "k"),), 1)

    async def secret(self, key: str = "id") -> None:
        values = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "secret"}
        data = {name: base64.b64encode(v.encode()).decode() for name, v in values.items()}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": "team"},
            "data": data,
        }
        await self.kube.put(SECRETS, body)

    async def ask(self) -> Found | Failed | None:
        """Asks until the look that this may start is over."""
        self.told.clear()
        self.book.ask(QUESTION, KEY)
        async with asyncio.timeout(60):
            while self.book.looking:
                await asyncio.sleep(0)
        return self.book.ask(QUESTION, KEY).answer


async def test_an_origin_is_looked_at_once_and_then_remembered() -> None:
    lab = Lab()
    await lab.secret()
    found = await lab.ask()
    assert isinstance(found, Found)
    assert (found.revision, found.paths) == ("sha256:a", ("model.joblib",))
    assert found.suggestion is not None
    assert lab.seen["AWS_ACCESS_KEY_ID"] == "id"
    await lab.ask()
    assert lab.looks == 1


async def test_it_is_looked_at_again_after_the_resync_with_the_old_answer_until_then() -> None:
    lab = Lab()
    await lab.secret()
    await lab.ask()
    lab.now += RESYNC + 1
    entry = lab.book.ask(QUESTION, KEY)
    assert isinstance(entry.answer, Found)
    await lab.ask()
    assert lab.looks == 2


async def test_only_a_new_answer_is_told() -> None:
    lab = Lab()
    await lab.secret()
    await lab.ask()
    assert lab.told.is_set()
    lab.now += RESYNC + 1
    await lab.ask()
    assert lab.looks == 2
    assert not lab.told.is_set()
    lab.error = OriginError(OriginReason.ACCESS_DENIED, "no")
    lab.now += RESYNC + 1
    assert isinstance(await lab.ask(), Failed)
    assert lab.told.is_set()
    await lab.book.close()


async def test_the_book_looks_again_by_itself_as_long_as_somebody_asked() -> None:
    lab = Lab()
    await lab.secret()
    book = OriginBook(lab.kube, on_answer=lambda _: None, resync=0.01, look=lab.look)
    book.ask(QUESTION, KEY)
    async with asyncio.timeout(60):
        while lab.looks < 3:
            await asyncio.sleep(0.001)
    book.forget(KEY)
    assert book.looking == 0
    await book.close()


async def test_an_origin_in_doubt_is_looked_at_again_but_not_all_the_time() -> None:
    lab = Lab()
    await lab.secret()
    await lab.ask()
    lab.book.doubt(KEY)
    await lab.ask()
    assert lab.looks == 1
    lab.now += DOUBT_RECHECK
    lab.book.doubt(KEY)
    assert isinstance(await lab.ask(), Found)
    assert lab.looks == 2
    lab.book.forget(KEY)
    lab.book.doubt(KEY)


async def test_a_missing_secret_is_told_and_looked_for_often() -> None:
    lab = Lab()
    missing = await lab.ask()
    assert isinstance(missing, Failed)
    assert missing.reason == "SecretNotFound"
    assert missing.message == (
        "Secret s3 does not exist in team: create it (spec.origin.s3.credentialsSecretRef names it)"
    )
    assert lab.looks == 0
    await lab.secret()
    # Files of one folder are applied by name: the Secret often comes a moment after the Model.
    lab.now += FIRST_SECRET_RECHECK
    assert isinstance(await lab.ask(), Found)


async def test_a_secret_that_stays_missing_is_looked_for_every_few_seconds() -> None:
    lab = Lab()
    await lab.ask()
    for _ in range(20):
        lab.now += MISSING_SECRET_RECHECK
        await lab.ask()
    asked = lab.kube.calls[("get", "secrets")]
    lab.now += MISSING_SECRET_RECHECK - 0.1
    await lab.ask()
    assert lab.kube.calls[("get", "secrets")] == asked
    lab.now += 0.1
    await lab.ask()
    assert lab.kube.calls[("get", "secrets")] == asked + 1


async def test_a_changed_secret_is_tried_before_the_store_would_be_asked_again() -> None:
    lab = Lab()
    await lab.secret()
    lab.error = OriginError(OriginReason.ACCESS_DENIED, "no", retry_after_seconds=600)
    assert isinstance(await lab.ask(), Failed)
    lab.now += FAILING_RECHECK
    await lab.ask()
    assert lab.looks == 1
    await lab.secret("other")
    lab.error = None
    lab.now += FAILING_RECHECK
    assert isinstance(await lab.ask(), Found)
    assert lab.looks == 2


async def test_an_api_server_that_is_away_does_not_take_the_answer_away() -> None:
    lab = Lab()
    await lab.secret()
    await lab.ask()
    await lab.kube.set_away(True)
    lab.now += RESYNC + 1
    assert isinstance(await lab.ask(), Found)


async def test_a_forgotten_question_is_not_kept() -> None:
    lab = Lab()
    await lab.secret()
    await lab.ask()
    lab.book.forget(KEY)
    lab.told.clear()
    assert lab.book.ask(QUESTION, KEY).answer is None
    await lab.book.close()


async def test_authorities_that_were_corrected_are_tried_before_the_store_is_due() -> None:
    lab = Lab()
    question = Question(
        "team", S3Ref("models", "iris"), None, Opening(authorities=("our-ca", "ca.crt"))
    )

    async def ask() -> Found | Failed | None:
        lab.book.ask(question, KEY)
        async with asyncio.timeout(60):
            while lab.book.looking:
                await asyncio.sleep(0)
        return lab.book.ask(question, KEY).answer

    async def authorities(text: str) -> None:
        metadata = {"name": "our-ca", "namespace": "team"}
        data = {"ca.crt": text}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await lab.kube.put(CONFIG_MAPS, body)

    missing = await ask()
    assert isinstance(missing, Failed)
    assert missing.reason == "ConfigMapNotFound"
    assert lab.looks == 0
    await authorities("wrong")
    lab.error = OriginError(OriginReason.INVALID_REFERENCE, "no certificates")
    lab.now += MISSING_SECRET_RECHECK
    assert isinstance(await ask(), Failed)
    lab.now += FAILING_RECHECK
    await ask()
    assert lab.looks == 1  # the same as before: the store is left in peace
    await authorities("right")
    lab.error = None
    lab.now += FAILING_RECHECK
    assert isinstance(await ask(), Found)
    assert lab.seen == {"ca.crt": "right"}
    await lab.book.close()


FACTS = ModelFacts(format="sklearn", weight_bytes=1)


class Reader:
    """Pretends to read the files, and counts."""

    def __init__(self, *answers: Inspection | Exception) -> None:
        self.answers = list(answers)
        self.reads = 0

    async def __call__(
        self, _: OriginRef, __: Mapping[str, str], resolved: ResolvedOrigin
    ) -> Inspection:
        self.reads += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def inspecting(lab: Lab, reader: Reader, known: Remembered | None = None) -> Found:
    """One more look, by a book that reads."""
    await lab.secret()
    lab.book._inspect = reader
    lab.now += 2 * RESYNC
    lab.book.ask(QUESTION, KEY, known=known)
    found = await lab.ask()
    assert isinstance(found, Found)
    return found


async def test_the_files_of_a_revision_are_read_once() -> None:
    lab, reader = Lab(), Reader(Inspection(FACTS))
    for _ in range(3):
        assert (await inspecting(lab, reader)).facts == FACTS
    assert (lab.looks, reader.reads) == (3, 1)


async def test_what_a_status_remembers_of_the_revision_is_not_read_again() -> None:
    lab, reader = Lab(), Reader(Inspection(ModelFacts()))
    assert (await inspecting(lab, reader, Remembered("sha256:a", 1, 1, FACTS))).facts == FACTS
    assert reader.reads == 0


async def test_another_revision_or_choice_of_files_is_read() -> None:
    for known in (Remembered("sha256:b", 1, 1, FACTS), Remembered("sha256:a", 2, 5, FACTS)):
        lab, reader = Lab(), Reader(Inspection(ModelFacts()))
        assert (await inspecting(lab, reader, known)).facts == ModelFacts()
        assert reader.reads == 1


BROKEN = Inspection(ModelFacts(incomplete="config.json could not be read"), again=True)


async def test_what_a_store_does_not_give_is_waited_for_a_moment() -> None:
    lab, reader = Lab(), Reader(BROKEN, Inspection(FACTS))
    await lab.secret()
    lab.book._inspect = reader
    assert await lab.ask() is None
    assert await lab.ask() is None
    assert reader.reads == 1
    lab.now += UNREAD_RECHECK
    found = await lab.ask()
    assert isinstance(found, Found)
    assert found.facts == FACTS


async def test_then_the_origin_is_used_without_and_read_with_the_next_look() -> None:
    lab, reader = Lab(), Reader(BROKEN, BROKEN, BROKEN, BROKEN, Inspection(FACTS))
    await lab.secret()
    lab.book._inspect = reader
    answers = []
    for _ in range(UNREAD_LOOKS + 1):
        answers.append(await lab.ask())
        lab.now += UNREAD_RECHECK
    assert answers[:-1] == [None] * UNREAD_LOOKS
    assert isinstance(answers[-1], Found)
    assert answers[-1].facts == BROKEN.facts
    assert (await inspecting(lab, reader)).facts == BROKEN.facts
    assert (await inspecting(lab, reader)).facts == FACTS


async def test_who_may_list_the_files_and_read_none_is_told_until_that_is_allowed() -> None:
    denied = OriginError(OriginReason.ACCESS_DENIED, "the key is not allowed to read s3://models/m")
    lab, reader = Lab(), Reader(Inspection(ModelFacts(), denied=denied), Inspection(FACTS))
    await lab.secret()
    lab.book._inspect = reader
    failed = await lab.ask()
    assert failed == Failed("AccessDenied", denied.message, stalled=True)
    lab.now += denied.retry_after_seconds
    found = await lab.ask()
    assert isinstance(found, Found)
    assert (found.facts, reader.reads) == (FACTS, 2)


async def test_an_origin_whose_files_cannot_be_read_is_found_all_the_same() -> None:
    lab, reader = Lab(), Reader(RuntimeError("a mistake of ours"))
    found = await inspecting(lab, reader)
    assert (found.revision, found.facts) == ("sha256:a", None)
    assert found.suggestion is not None


def test_a_status_is_remembered_only_if_all_was_known() -> None:
    def model(facts: ModelFacts | None) -> Model:
        origin = ResolvedStatus(uri="s3://m", revision="sha256:a", files=1, bytes=1)
        return Model(metadata=ObjectMeta(name="m"), status=ModelStatus(origin=origin, facts=facts))

    assert remembered(model(FACTS)) == Remembered("sha256:a", 1, 1, FACTS)
    assert remembered(model(ModelFacts(incomplete="no"))) is None
    assert remembered(model(None)) is None


async def test_what_is_closed_says_which_integration_may_not_open_it() -> None:
    lab = Lab()
    withheld = "Secret hub is an integration, but its annotation does not cover org/a"
    question = Question("team", HubRef("org/a"), None, withheld=withheld)

    async def ask() -> Found | Failed | None:
        lab.book.ask(question, KEY)
        async with asyncio.timeout(60):
            while lab.book.looking:
                await asyncio.sleep(0)
        return lab.book.ask(question, KEY).answer

    lab.error = OriginError(OriginReason.REPO_NOT_FOUND_OR_NO_ACCESS, "hidden")
    closed = await ask()
    assert isinstance(closed, Failed)
    assert (closed.reason, closed.stalled) == ("IntegrationNotAllowed", True)
    assert closed.message.endswith(withheld)
    lab.error = OriginError(OriginReason.REVISION_UNKNOWN, "no such branch")
    lab.now += 600
    other = await ask()
    assert isinstance(other, Failed)
    assert other.reason == "RevisionUnknown"  # nothing that a token would change
    lab.error = None
    lab.now += 600
    assert isinstance(await ask(), Found)  # open to all: no token is needed
    await lab.book.close()


async def test_what_is_new_is_looked_at_before_the_thousands_that_are_known_from_before() -> None:
    lab = Lab()
    order: list[str] = []
    at_once = most = 0

    async def look(ref: OriginRef, _: Mapping[str, str]) -> ResolvedOrigin:
        nonlocal at_once, most
        at_once, order[len(order) :] = at_once + 1, [ref.place]
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return ResolvedOrigin("sha256:a", (OriginFile("m.joblib", 1, "e", "k"),), 1)

    book = OriginBook(
        lab.kube, on_answer=lambda _: None, resync=RESYNC, look=look, clock=lambda: lab.now
    )
    before = Remembered("sha256:a", 1, 1, ModelFacts())
    for number in range(1000):
        key = Key(Kind.MODEL, Workspace("team"), f"known-{number}")
        book.ask(Question("team", S3Ref("models", f"known-{number}"), None), key, known=before)
    await asyncio.sleep(0)
    book.ask(Question("team", S3Ref("models", "new"), None), KEY)
    async with asyncio.timeout(20):
        while book.looking:
            await asyncio.sleep(0)
    assert most == AT_ONCE
    assert order.index(next(each for each in order if each.endswith("new"))) < 5 * AT_ONCE
    assert len(order) == len(set(order)) == 1001, "each is looked at once"
    await book.close()


async def test_the_same_names_of_files_found_again_are_no_news() -> None:
    lab = Lab()
    await lab.secret()
    first = await lab.ask()
    lab.now += RESYNC * 2
    assert await lab.ask() == first
    assert lab.looks == 2
    assert not lab.told.is_set()
