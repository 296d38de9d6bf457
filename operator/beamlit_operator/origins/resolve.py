"""Which immutable revision a reference means now, and what it holds.

For the operator. The stores' libraries are synchronous; they run in a few threads of their own, so
that a slow store never delays anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import ResolvedOrigin
from beamlit_operator.origins.ref import OriginRef, S3Ref

# Threads start only when needed. Each holds a listing of at most MAX_FILES names.
_POOL = ThreadPoolExecutor(max_workers=8, thread_name_prefix="origins")


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
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await loop.run_in_executor(_POOL, look, ref, credentials)
    except TimeoutError:
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place} did not answer within {timeout_seconds:g} s: check endpoint and network",
        ) from None


def look(ref: OriginRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """The same for callers that may block."""
    if isinstance(ref, S3Ref):
        from beamlit_operator.origins import s3

        return s3.look(ref, credentials)
    from beamlit_operator.origins import hub

    return hub.look(ref, credentials)
