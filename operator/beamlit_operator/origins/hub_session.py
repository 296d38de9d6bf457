"""With which client the Hub's library asks: one that waits no longer than it should, and trusts the
authorities of the origin that it asks for.

The library has one client for the whole process, and origins differ in whom they trust. So its
client hands each request to the one of the block that it is made in (:func:`asking`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from huggingface_hub import get_session, set_client_factory

from beamlit_operator.origins.trust import context

ANSWER_TIMEOUT_SECONDS = 15.0

_CHOSEN: ContextVar[Any] = ContextVar("hub client", default=None)
_INSTALLED = threading.Lock()


@contextlib.contextmanager
def asking(credentials: Mapping[str, str]) -> Iterator[None]:
    """Requests of this thread trust what ``credentials`` say, until the end of the block.

    Raises:
        OriginError: the authorities are no certificates.
    """
    _install()
    trusted = context(credentials)
    if trusted is None:
        yield
        return
    with _CLIENT(verify=trusted, follow_redirects=True, timeout=ANSWER_TIMEOUT_SECONDS) as client:
        chosen = _CHOSEN.set(client)
        try:
            yield
        finally:
            _CHOSEN.reset(chosen)


# The library moved from httpx to httpx2; this class holds for both.
_CLIENT: Any = type(get_session())


class _Routed(_CLIENT):  # type: ignore[misc]  # a class that is known when it runs
    def send(self, request: Any, **options: Any) -> Any:
        chosen = _CHOSEN.get()
        if chosen is not None:
            return chosen.send(request, **options)
        return super().send(request, **options)


def _install() -> None:
    with _INSTALLED:
        if not isinstance(get_session(), _Routed):
            # Some of the library's calls have no timeout of their own; a Hub that stalls must not
            # keep a thread.
            set_client_factory(
                lambda: _Routed(follow_redirects=True, timeout=ANSWER_TIMEOUT_SECONDS)
            )
