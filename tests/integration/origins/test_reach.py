"""Stores that cannot be reached, and what each of them is said to lack."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from beamlit_operator.origins import (
    HubRef,
    OciRef,
    OriginError,
    OriginReason,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
)
from beamlit_operator.origins.kinds import look

KINDS: dict[str, Callable[[str], OriginRef]] = {
    "s3": lambda endpoint: S3Ref("models", "m", endpoint=endpoint),
    "hub": lambda endpoint: HubRef("org/m", endpoint=endpoint),
    "oci": lambda endpoint: OciRef(endpoint.partition("://")[2], "org/m"),
    "web": lambda endpoint: WebRef((WebFile(f"{endpoint}/m.gguf", "ab" * 32),)),
}


def problem(ref: OriginRef) -> str:
    with pytest.raises(OriginError) as caught:
        look(ref, {})
    assert caught.value.reason is OriginReason.UNREACHABLE
    assert not caught.value.stalled
    return caught.value.message


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.fixture
def hanging_up() -> Iterator[int]:
    """A port where every connection is closed at once."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def run() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_without_an_address_says_so(kind: str) -> None:
    assert "no address; check the name and the DNS" in problem(
        KINDS[kind]("http://nowhere.invalid")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_at_which_nobody_listens_says_so(kind: str, closed: int) -> None:
    assert "refuses connections; check the port" in problem(
        KINDS[kind](f"http://127.0.0.1:{closed}")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_tls_says_so(kind: str, hanging_up: int) -> None:
    said = problem(KINDS[kind](f"https://127.0.0.1:{hanging_up}"))
    assert "TLS failed" in said or "breaks connections off" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_hangs_up_says_so(kind: str, hanging_up: int) -> None:
    assert "breaks connections off" in problem(KINDS[kind](f"http://127.0.0.1:{hanging_up}"))
