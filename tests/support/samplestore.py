"""The right to use the address of the samples' S3 store, of which a machine has one."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beamlit_operator.cli.parts import STORE_PORT
from beamlit_operator.cli.ports import is_free

FREE_WITHIN = 180.0
"""Seconds; a demo that somebody runs meanwhile takes one minute."""


@contextmanager
def sample_store_address() -> Iterator[None]:
    """Waits for other tests, and for whoever else uses the address."""
    with Path(tempfile.gettempdir(), "beamlit-sample-store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + FREE_WITHIN
        while not is_free(STORE_PORT):
            assert time.monotonic() < deadline, f"port {STORE_PORT} stays taken"
            time.sleep(0.2)
        yield
