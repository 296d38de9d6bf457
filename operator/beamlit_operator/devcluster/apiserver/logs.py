"""``pods/log``: the bytes come from whoever runs the containers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from beamlit_operator.devcluster.apiserver.errors import not_implemented
from beamlit_operator.devcluster.apiserver.requests import number_of
from beamlit_operator.devcluster.apiserver.reviews import log_container
from beamlit_operator.devcluster.apiserver.store import Entry

log = logging.getLogger(__name__)

LogProvider = Callable[..., AsyncIterator[bytes] | Awaitable[AsyncIterator[bytes]]]
"""``(namespace, pod, container, follow, tail_lines, previous, timestamps)`` → the log's bytes."""


async def stream_log(
    request: web.Request, entry: Entry, provider: LogProvider | None
) -> web.StreamResponse:
    """The log of a container of the pod ``entry``, as the query asks for it.

    Raises:
        ApiError: 400, or 501 without a kubelet.
    """
    if provider is None:
        raise not_implemented("pod logs: no kubelet runs in this process")
    query = request.query
    container = log_container(entry.obj, query.get("container", ""))
    tail = query.get("tailLines")
    stream = provider(
        entry.key.namespace,
        entry.key.name,
        container,
        query.get("follow") in ("true", "1"),
        None if tail is None else number_of(tail, "tailLines"),
        query.get("previous") in ("true", "1"),
        query.get("timestamps") in ("true", "1"),
    )
    chunks = await stream if isinstance(stream, Awaitable) else stream
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    try:
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        log.debug("a reader of the log of %s went away", entry.key.name)
    return response
