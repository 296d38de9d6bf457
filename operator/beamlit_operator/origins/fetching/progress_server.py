"""Tells over HTTP how far a fetch is, so that the operator can say it on the deployment's status.

One document, ``{"fetchedBytes", "totalBytes", "files", "filesDone"}``: numbers and nothing else.
One caller at a time, a second for each, GET only: it must never cost the fetch anything.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_MAX_REQUEST = 4096
_PATIENCE_SECONDS = 1.0


@contextlib.contextmanager
def served(port: int, measure: Callable[[], dict[str, int]]) -> Iterator[None]:
    """Answers with what ``measure`` returns until the end of the block, on all addresses.

    A port that cannot be had is logged: fetching matters more than telling about it.
    """
    try:
        listener = _listener(port)
    except OSError as error:
        log.warning("progress is not served on port %d: %s", port, error)
        yield
        return
    thread = threading.Thread(
        target=_serve, args=(listener, measure), name="progress server", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        # Wakes the accept that the thread is in, which closing alone does not.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8
            )
    return socket.create_server(("", port), backlog=8)


def _serve(listener: socket.socket, measure: Callable[[], dict[str, int]]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # The block ended.
            return
        with connection, contextlib.suppress(OSError):
            line = _request_line(connection)
            connection.settimeout(_PATIENCE_SECONDS)
            connection.sendall(_answer(line, measure))


def _request_line(connection: socket.socket) -> bytes:
    """The first line of the request, which has to be there whole within the patience: a caller
    that sends a byte now and then must not keep the fetch from ending.

    Raises:
        TimeoutError: it is not.
    """
    received = b""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while b"\r\n\r\n" not in received and len(received) < _MAX_REQUEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(1024)
        if not chunk:
            break
        received += chunk
    return received.partition(b"\r\n")[0]


def _answer(request_line: bytes, measure: Callable[[], dict[str, int]]) -> bytes:
    method, _, _ = request_line.partition(b" ")
    status, body = "405 Method Not Allowed", b"{}"
    if method == b"GET":
        status, body = "200 OK", json.dumps(measure()).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nAllow: GET\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
