"""The server that tests ask must leave nothing behind, or another test fails for it."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import warnings
from collections import deque

from tests.support.webstore import WebStore


def test_who_connects_while_it_ends_is_not_forgotten() -> None:
    where: list[tuple[str, int]] = []
    over = threading.Event()

    def keep_connecting() -> None:
        mine: deque[socket.socket] = deque()
        while not over.is_set():
            with contextlib.suppress(OSError, IndexError):
                mine.append(socket.create_connection(where[-1], timeout=10))
            if len(mine) > 20:
                mine.popleft().close()
        for each in mine:
            each.close()

    callers = [threading.Thread(target=keep_connecting) for _ in range(3)]
    for caller in callers:
        caller.start()
    gc.collect()  # what others left is not told here
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(10):
                with WebStore(files={}) as store:
                    where.append(("127.0.0.1", int(store.endpoint.rpartition(":")[2])))
                    socket.create_connection(where[-1], timeout=10).close()
            gc.collect()
    finally:
        over.set()
        for caller in callers:
            caller.join(60)
    assert [str(each.message) for each in told if "unclosed" in str(each.message)] == []
