"""A file that arrives in blocks of any order: its digest, and who gives way to whom."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins.errors import OriginError
from beamlit_operator.origins.fetching import arriving
from beamlit_operator.origins.fetching.arriving import (
    Arriving,
    Hash,
    bringers,
    part_name,
    write_at,
)
from beamlit_operator.origins.listing import OriginFile

BLOCK = 1000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(arriving, "PART_BYTES", 4 * BLOCK)
    monkeypatch.setattr(arriving, "_DIGEST_BYTES", 3 * BLOCK)


def on_its_way(
    folder: Path,
    size: int,
    *,
    stop: threading.Event | None = None,
    hasher: Callable[[], Hash] = hashlib.sha256,
) -> Arriving:
    file = OriginFile(path="weights", size=size, digest="", source="weights")
    stop = stop or threading.Event()
    return Arriving(file, folder / part_name(file), hasher=hasher, stop=stop)


def bring(item: Arriving, content: bytes, start: int) -> None:
    end = min(start + BLOCK, len(content))
    descriptor = os.open(item.path, os.O_WRONLY | os.O_CREAT)
    try:
        write_at(descriptor, content[start:end], start)
    finally:
        os.close(descriptor)
    item.reached(start, end)


@given(st.data())
def test_the_digest_is_that_of_the_content_whatever_order_the_blocks_arrive_in(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytes(range(256)) * data.draw(st.integers(0, 80)) + b"end"
    starts = data.draw(st.permutations(range(0, len(content), BLOCK)))
    item = on_its_way(tmp_path_factory.mktemp("parts"), len(content))
    for start in starts:
        assert not item.claim()
        bring(item, content, start)
        item.digest_ahead()
    assert item.claim()
    assert item.digest() == hashlib.sha256(content).hexdigest()


def test_what_arrived_is_digested_before_all_is_there(tmp_path: Path) -> None:
    content = os.urandom(10 * BLOCK)
    seen = hashlib.sha256()
    taken = threading.Event()

    class Watched:
        def update(self, part: bytes | memoryview, /) -> None:
            seen.update(part)
            taken.set()

        def hexdigest(self) -> str:
            return seen.hexdigest()

    item = on_its_way(tmp_path, len(content), hasher=Watched)
    bring(item, content, 0)
    item.digest_ahead()
    assert taken.wait(30)
    for start in range(BLOCK, len(content), BLOCK):
        bring(item, content, start)
    assert item.digest() == hashlib.sha256(content).hexdigest()


def test_a_fetch_that_is_to_stop_does_not_digest_to_the_end(tmp_path: Path) -> None:
    stop = threading.Event()
    content = os.urandom(10 * BLOCK)
    item = on_its_way(tmp_path, len(content), stop=stop)
    for start in range(0, len(content), BLOCK):
        bring(item, content, start)
    stop.set()
    with pytest.raises(OriginError, match="interrupted"):
        item.digest()


def test_what_is_brought_again_has_a_digest_of_its_own(tmp_path: Path) -> None:
    first, second = os.urandom(10 * BLOCK), os.urandom(10 * BLOCK)
    item = on_its_way(tmp_path, len(first))
    for start in range(0, 5 * BLOCK, BLOCK):
        bring(item, first, start)
        item.digest_ahead()
    item.restart()
    for start in range(0, len(second), BLOCK):
        bring(item, second, start)
        item.digest_ahead()
    assert item.claim()
    assert item.digest() == hashlib.sha256(second).hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_who_brings_gives_way_to_everybody_else_of_the_process() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with bringers(1, name="test") as pool:
        theirs = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        policy = pool.submit(os.sched_getscheduler, 0)
        assert theirs.result() == min(mine + 5, 19)
        assert policy.result() == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
