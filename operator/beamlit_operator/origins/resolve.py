"""Which immutable revision a reference means now, and what it holds.

For the operator. The stores' libraries are synchronous; each look runs in a thread of its own, so
that a slow store never delays anything else, not even the end of the process.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.kinds import look
from beamlit_operator.origins.listing import ResolvedOrigin
from beamlit_operator.origins.ref import OriginRef
from beamlit_operator.origins.waiting import Waiting

# A fetch that finds its files in place imports this package, too: the loop is for the operator.
if TYPE_CHECKING:
    import asyncio

_T = TypeVar("_T")

_LOOKS = Waiting(of_place=2, of_asker=8, of_all=64)


async def resolve(
    ref: OriginRef,
    credentials: Mapping[str, str],
    *,
    timeout_seconds: float = 60.0,
) -> ResolvedOrigin:
    """Asks the store.

    Args:
        ref: what to look at.
        credentials: the decoded Secret. S3: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
            optional ``AWS_SESSION_TOKEN``; with neither key the requests are anonymous. Hub:
            ``token``; without it, anonymous. Credentials, profiles and endpoints of this process'
            own environment are never used.
        timeout_seconds: for the whole, with retries.

    Raises:
        OriginError: every failure.
    """
    import asyncio

    try:
        async with asyncio.timeout(timeout_seconds):
            return await in_thread(ref, lambda: look(ref, credentials))
    except TimeoutError:
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place} did not answer within {timeout_seconds:g} s: check endpoint and network",
        ) from None


async def in_thread(ref: OriginRef, work: Callable[[], _T]) -> _T:
    """What ``work``, which asks the store of ``ref``, returns or raises.

    Raises:
        OriginError: ``Unreachable``, if too many such threads wait for stores already.
    """
    import asyncio

    waiter = _LOOKS.begin(ref.place)
    if waiter is None:
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place} was not asked: it, or others of this workspace, have left too many "
            "requests without an answer",
        )
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            found = work()
        except BaseException as error:
            conclude = functools.partial(_fail, answer, error)
        else:
            conclude = functools.partial(_succeed, answer, found)
        finally:
            waiter.end()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(conclude)

    # Not an executor: the interpreter would wait for its threads at exit, that is for the store.
    context = contextvars.copy_context()
    name = f"origin {ref.place}"
    threading.Thread(target=context.run, args=(run,), name=name, daemon=True).start()
    try:
        return await answer
    finally:
        waiter.give_up()


def _succeed(answer: asyncio.Future[_T], found: _T) -> None:
    if not answer.done():  # it is, when it was given up
        answer.set_result(found)


def _fail(answer: asyncio.Future[_T], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
