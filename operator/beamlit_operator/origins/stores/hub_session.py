"""With which client the Hub's library asks: one that waits no longer and takes no more than it
should (:mod:`.answers`), leads nowhere that origins may not (:mod:`.addresses`), and trusts the
authorities of the origin that it asks for.

The library has one client for the whole process, and origins differ in whom they trust. So its
client hands each request to the one of the block that it is made in (:func:`asking`).
"""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from huggingface_hub import get_session, set_client_factory

from beamlit_operator.origins.stores.addresses import check_host, check_peer
from beamlit_operator.origins.stores.answers import HUB_BYTES, HUB_VALUES, taken
from beamlit_operator.origins.stores.trust import context

ANSWER_TIMEOUT_SECONDS = 15.0

_REDIRECT_BYTES = 2**16
"""What is read of an answer that only says where to ask."""

_LONGEST_DELAY_SECONDS = 300
"""The window of the Hub's own rate limits; nobody has to wait longer for the next."""

_DELAYS = {
    "retry-after": re.compile(r"^(\s*)([0-9]+)\s*$"),
    # IETF draft: "api";r=0;t=55
    "ratelimit": re.compile(r"(\bt\s*=\s*)([0-9]+)"),
}

_LARGE = 2**20
"""Answers of more bytes are taken apart one at a time, by all threads together."""

_CHOSEN: ContextVar[Any] = ContextVar("hub client", default=None)
_HELD: ContextVar[contextlib.ExitStack | None] = ContextVar("hub answer", default=None)
_ONE = threading.Lock()
_INSTALLED = threading.Lock()


@contextlib.contextmanager
def asking(credentials: Mapping[str, str]) -> Iterator[None]:
    """Requests of this thread trust what ``credentials`` say, until the end of the block.

    Raises:
        OriginError: the authorities are no certificates.
    """
    _install()
    with contextlib.ExitStack() as held:
        holding = _HELD.set(held)
        try:
            with _trusting(credentials):
                yield
        finally:
            _HELD.reset(holding)


@contextlib.contextmanager
def _trusting(credentials: Mapping[str, str]) -> Iterator[None]:
    trusted = context(credentials)
    if trusted is None:
        yield
        return
    with _made(verify=trusted) as client:
        chosen = _CHOSEN.set(client)
        try:
            yield
        finally:
            _CHOSEN.reset(chosen)


# The library moved from httpx to httpx2; this class holds for both.
_CLIENT: Any = type(get_session())
_HTTP: Any = importlib.import_module(_CLIENT.__module__.partition(".")[0])


class _Few(_HTTP.SyncByteStream):  # type: ignore[misc]  # a class that is known when it runs
    """The beginning of an answer."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        left = self._most
        for part in self._stream:
            left -= len(part)
            if left < 0:
                return
            yield part

    def close(self) -> None:
        self._stream.close()


def _guard(request: Any) -> None:
    """Looks where a request leads to, also after a redirect, before anything is sent."""
    host = request.url.raw_host.decode("ascii")  # as it is connected to
    check_host(host)
    direct = True

    def looked(event: str, info: Mapping[str, Any]) -> None:
        nonlocal direct
        if event.endswith("connect_tcp.started"):
            direct = str(info.get("host")) == host  # or it is a proxy of the environment
        elif event.endswith("connect_tcp.complete") and direct:
            check_peer(info["return_value"].get_extra_info("socket"), host)

    request.extensions = {**request.extensions, "trace": looked}


def _shorten(answer: Any) -> None:
    """A redirect's text is read by the library, and thrown away."""
    if answer.has_redirect_location:
        answer.stream = _Few(answer.stream, _REDIRECT_BYTES)


def _hurry(answer: Any) -> None:
    """For some questions the library sleeps as long as a Hub asks it to, be that a year."""
    for name, delay in _DELAYS.items():
        asked = answer.headers.get(name)
        if asked is not None:
            answer.headers[name] = delay.sub(_bounded, asked)


def _bounded(found: re.Match[str]) -> str:
    digits = found[2]
    too_long = len(digits) > 9 or int(digits) > _LONGEST_DELAY_SECONDS
    return f"{found[1]}{_LONGEST_DELAY_SECONDS if too_long else digits}"


def whole(answer: Any) -> Any:
    """The answer with all that it says, if that is not too much."""
    try:
        # Part by part as they are decoded: a few compressed bytes can become many.
        content = taken(answer.iter_bytes(), most=HUB_BYTES, values=HUB_VALUES, signs=b"{[,")
    finally:
        answer.close()
    # An answer to HEAD tells them of what it does not have.
    decoded = ("content-encoding", "content-length", "transfer-encoding") if content else ()
    made = _HTTP.Response(
        answer.status_code,
        headers=[each for each in answer.headers.multi_items() if each[0].lower() not in decoded],
        content=content,
        request=answer.request,
        extensions=answer.extensions,
        history=answer.history,
    )
    made.next_request = answer.next_request
    return made


class _Bounded(_CLIENT):  # type: ignore[misc]  # a class that is known when it runs
    def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        held = _HELD.get()
        if held is not None:
            held.close()  # the answer before is taken apart
        answer = super().send(request, stream=True, **options)
        if stream:
            return answer
        read = whole(answer)
        if held is not None and len(read.content) > _LARGE:
            held.enter_context(_ONE)
        return read


class _Routed(_Bounded):
    def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        chosen = _CHOSEN.get()
        if chosen is not None:
            return chosen.send(request, stream=stream, **options)
        return super().send(request, stream=stream, **options)


def _made(kind: Any = _Bounded, **options: Any) -> Any:
    # Some of the library's calls have no timeout of their own; a Hub that stalls must not keep a
    # thread.
    return kind(
        follow_redirects=True,
        timeout=ANSWER_TIMEOUT_SECONDS,
        event_hooks={"request": [_guard], "response": [_shorten, _hurry]},
        **options,
    )


def _install() -> None:
    with _INSTALLED:
        if not isinstance(get_session(), _Routed):
            set_client_factory(lambda: _made(_Routed))
