"""Fetching from S3 through a network that fails: whole and right, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.flakystore import FlakyStore

from beamlit_operator.origins import OriginError, OriginReason, S3Ref
from beamlit_operator.origins.fetch import Fetched, fetch
from beamlit_operator.origins.fetching import arriving, s3_transfer

from .conftest import KEYS

CONTENT = os.urandom(300_000)


@pytest.fixture
def flaky(s3: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    monkeypatch.setattr(arriving, "PART_BYTES", 100_000)
    s3.put_object(Bucket="models", Key="m/weights", Body=CONTENT)
    with FlakyStore(s3_endpoint) as store:
        yield store


def bring(store: FlakyStore, directory: Path) -> Fetched:
    ref = S3Ref("models", "m", endpoint=store.endpoint)
    return fetch(ref, directory, credentials=KEYS, report=lambda line: None)


def failure(store: FlakyStore, directory: Path) -> OriginError:
    with pytest.raises(OriginError) as caught:
        bring(store, directory)
    assert not (directory / "weights").exists()
    return caught.value


def test_transfers_that_break_off_go_on_where_they_were(flaky: FlakyStore, tmp_path: Path) -> None:
    flaky.cut_at = [50_000, 0, 70_000, 1]
    bring(flaky, tmp_path)
    assert (tmp_path / "weights").read_bytes() == CONTENT


def test_a_store_that_always_breaks_off_is_given_up(flaky: FlakyStore, tmp_path: Path) -> None:
    flaky.cut_at = [0] * 100
    error = failure(flaky, tmp_path)
    assert error.reason is OriginReason.UNREACHABLE
    assert "breaks off" in error.message


def test_a_store_that_asks_to_slow_down_is_asked_again(flaky: FlakyStore, tmp_path: Path) -> None:
    flaky.refuse = [503, 429, 503]
    bring(flaky, tmp_path)
    assert (tmp_path / "weights").read_bytes() == CONTENT


@pytest.mark.parametrize("ignore_if_match", [False, True])
def test_an_object_written_during_the_fetch_is_not_stitched_together(
    flaky: FlakyStore, s3: Any, tmp_path: Path, ignore_if_match: bool
) -> None:
    def overwrite(number: int) -> None:
        if number == 2:
            s3.put_object(Bucket="models", Key="m/weights", Body=os.urandom(300_000))

    flaky.before_get = overwrite
    flaky.ignore_if_match = ignore_if_match
    error = failure(flaky, tmp_path)
    assert error.reason is OriginReason.CHANGED
    assert "'m/weights'" in error.message


def test_an_object_removed_during_the_fetch_is_reported(
    flaky: FlakyStore, s3: Any, tmp_path: Path
) -> None:
    flaky.before_get = lambda number: s3.delete_object(Bucket="models", Key="m/weights")
    assert failure(flaky, tmp_path).reason is OriginReason.CHANGED


def test_a_byte_that_flips_once_is_fetched_again(flaky: FlakyStore, tmp_path: Path) -> None:
    flaky.spoil = lambda number, body: b"?" + body[1:] if number == 2 else body
    bring(flaky, tmp_path)
    assert (tmp_path / "weights").read_bytes() == CONTENT


def test_bytes_that_keep_flipping_are_never_published(flaky: FlakyStore, tmp_path: Path) -> None:
    flaky.spoil = lambda number, body: bytes([number % 256]) + body[1:]
    assert failure(flaky, tmp_path).reason is OriginReason.CORRUPT


def test_an_etag_that_is_no_digest_is_accepted_when_both_attempts_agree(
    flaky: FlakyStore, tmp_path: Path
) -> None:
    # What directory buckets and encrypting stores look like: content and ETag are not related.
    flaky.spoil = lambda number, body: bytes(reversed(body))
    bring(flaky, tmp_path)
    assert len((tmp_path / "weights").read_bytes()) == len(CONTENT)


def test_a_failed_fetch_keeps_the_finished_ranges_for_the_next(
    flaky: FlakyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_transfer, "_ATTEMPTS", 1)
    monkeypatch.setattr("beamlit_operator.origins.stores.s3.MAX_CONNECTIONS", 1)
    flaky.cut_at = [100_000, 50_000]  # the first is whole
    failure(flaky, tmp_path)
    asked = flaky.gets
    bring(flaky, tmp_path)
    assert (tmp_path / "weights").read_bytes() == CONTENT
    assert flaky.gets - asked == 2


def test_after_the_machine_went_down_everything_is_fetched_again(
    flaky: FlakyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(flaky, tmp_path)
    assert bring(flaky, tmp_path).files == 0
    (tmp_path / "weights").write_bytes(bytes(len(CONTENT)))  # never reached the disk
    monkeypatch.setattr("beamlit_operator.origins.fetching.staging._boot", lambda: "another")
    assert bring(flaky, tmp_path).files == 1
    assert (tmp_path / "weights").read_bytes() == CONTENT


def test_a_store_that_stalls_does_not_delay_the_end_of_the_process() -> None:
    code = """
import asyncio, socket
from beamlit_operator.origins import OriginError, S3Ref, resolve
with socket.create_server(("127.0.0.1", 0)) as silent:
    ref = S3Ref("models", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    try:
        asyncio.run(resolve(ref, {}, timeout_seconds=2))
    except OriginError as error:
        print(error.reason)
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "Unreachable"
    assert time.monotonic() - started < 40  # the library alone would wait 80 s
