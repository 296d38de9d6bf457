"""What a fetcher tells about itself, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from tests.support.ports import free_port

from beamlit_operator.origins.fetching.progress import PORT_VARIABLE, Progress
from beamlit_operator.workloads import pods


def ask(port: int, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def fetching(port: int, lines: list[str] | None = None) -> Iterator[Progress]:
    """A fetch that is under way, and answers."""
    with Progress(1000, (lines or []).append, files=3, port=port) as progress:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield progress


def test_a_fetch_that_takes_a_while_says_how_far_it_is() -> None:
    port = free_port()
    with fetching(port) as progress:
        progress.add(300)
        progress.completed()
        status, body = ask(port)
        assert status == 200
        assert json.loads(body) == {
            "fetchedBytes": 300,
            "totalBytes": 1000,
            "files": 3,
            "filesDone": 1,
        }
        assert ask(port, "POST")[0] == 405
        # One who says nothing is not waited for by the others.
        with socket.create_connection(("127.0.0.1", port)):
            assert ask(port)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_caller_that_dawdles_keeps_nobody_from_ending() -> None:
    port, deadline = free_port(), time.monotonic() + 60
    with fetching(port), socket.create_connection(("127.0.0.1", port)) as slow:
        slow.settimeout(0.1)
        answer = None
        while answer is None:
            assert time.monotonic() < deadline, "a caller that says a byte a time is still heard"
            with suppress(TimeoutError):
                slow.sendall(b"x")
                answer = slow.recv(1)


def test_a_port_that_is_taken_does_not_end_the_fetch(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with Progress(2**20, lines.append, port=port) as progress:
            deadline = time.monotonic() + 60
            while not caplog.records:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            progress.add(2**19)
            while not lines:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert lines[0].startswith("0.5 MiB of 1.0 MiB (50 %)")


def test_the_pod_and_the_fetcher_name_the_port_alike() -> None:
    assert PORT_VARIABLE == pods.PROGRESS_PORT_VARIABLE
