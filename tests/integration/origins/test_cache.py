"""A cache that several fetchers share: real processes, a real store, faults."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.flakystore import FlakyStore
from tests.support.hub import HubServer
from tests.support.stack import free_port

from beamlit_operator.origins import S3Ref, resolve
from beamlit_operator.origins.__main__ import main
from beamlit_operator.origins.fetching import staging, turns

from .conftest import KEYS

IDENTITY = "c" * 32
FILES = {f"part-{number}": os.urandom(2**20) for number in range(4)}

Usage = namedtuple("Usage", "free")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def store(s3: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    for name, content in FILES.items():
        s3.put_object(Bucket="models", Key=f"big/{name}", Body=content)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with FlakyStore(s3_endpoint) as flaky:
        monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.endpoint)
        yield flaky


@pytest.fixture
async def revision(store: FlakyStore) -> str:
    found = await resolve(S3Ref("models", "big", endpoint=store.endpoint), KEYS)
    return found.revision


def arguments(folder: Path, revision: str) -> list[str]:
    return ["s3://models/big", str(folder), "--revision", revision, "--shared"]


@contextmanager
def fetcher(folder: Path, revision: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "beamlit_operator.origins", *arguments(folder, revision)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def visible(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != ".beamlit"
    }


def killed_before(
    step: str, folder: Path, revision: str, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch whose process ends where this method of its staging area would be called."""

    def ends(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, step, ends)
        with pytest.raises(Killed):
            main(arguments(folder, revision))


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    """The next line a fetcher says that has this in it; the test's own timeout bounds it."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}")


def test_of_two_that_start_at_once_one_fetches_and_the_other_waits_for_it(
    store: FlakyStore, revision: str, tmp_path: Path
) -> None:
    folder, asked, go = tmp_path / IDENTITY, threading.Event(), threading.Event()

    def hold(_: int) -> None:
        asked.set()
        go.wait(120)

    store.before_get = hold
    port = str(free_port())
    with fetcher(folder, revision) as first:
        assert asked.wait(60)
        with fetcher(folder, revision, BEAMLIT_PROGRESS_PORT=port) as second:
            assert "fetches the same files into the cache" in line_with("waiting for it", second)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                told = json.load(answer)
            assert told["waiting"] == 1
            assert told["totalBytes"] == sum(map(len, FILES.values()))
            go.set()
            assert first.wait(60) == 0
            assert "nothing to fetch" in line_with("holds", second)
            assert second.wait(60) == 0
    assert visible(folder) == FILES
    assert store.gets == len(FILES), "each file was asked for once"


def test_the_second_start_asks_the_store_nothing(
    store: FlakyStore, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / IDENTITY
    assert main(arguments(folder, revision)) == 0
    used = folder / ".beamlit" / "used"
    os.utime(used, (0, 0))
    # Nobody answers here any more.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert main(arguments(folder, revision)) == 0
    assert time.time() - used.stat().st_mtime < 60, "its use was noted"
    assert store.gets == len(FILES)


def test_whoever_is_killed_the_next_goes_on_and_no_byte_is_wrong(
    store: FlakyStore, revision: str, tmp_path: Path
) -> None:
    folder, chance = tmp_path / IDENTITY, random.Random(7)
    for _ in range(5):
        enough, more = threading.Event(), chance.randrange(1, 4)
        before = store.gets

        def count(
            number: int,
            enough: threading.Event = enough,
            upto: int = before + more,
        ) -> None:
            if number >= upto:
                enough.set()

        store.before_get = count
        with fetcher(folder, revision) as process:
            while not enough.wait(0.02) and process.poll() is None:
                pass
            process.send_signal(signal.SIGKILL)
        assert visible(folder) in ({}, FILES)
    store.before_get = lambda _: None
    assert main(arguments(folder, revision)) == 0
    assert visible(folder) == FILES


def test_what_was_published_survives_another_start_of_the_machine(
    store: FlakyStore, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / IDENTITY
    monkeypatch.setattr(staging, "_boot", lambda: "one")
    assert main(arguments(folder, revision)) == 0
    monkeypatch.setattr(staging, "_boot", lambda: "another")
    assert main(arguments(folder, revision)) == 0
    assert store.gets == len(FILES)


def test_on_another_machine_files_that_were_complete_count_and_parts_do_not(
    store: FlakyStore, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / IDENTITY
    monkeypatch.setattr(staging, "_LARGE", 2**20)
    monkeypatch.setattr(staging, "_boot", lambda: "one")
    killed_before("publish", folder, revision, monkeypatch=monkeypatch)
    (work,) = (folder / ".beamlit").glob("work-*")
    (work / "files" / "part-0").unlink()
    (work / "parts" / "stale").write_bytes(b"from before the crash")
    monkeypatch.setattr(staging, "_boot", lambda: "another")
    before = store.gets
    assert main(arguments(folder, revision)) == 0
    assert store.gets == before + 1
    assert visible(folder) == FILES


def test_a_publication_that_was_begun_is_ended_on_another_machine(
    store: FlakyStore, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / IDENTITY
    monkeypatch.setattr(staging, "_boot", lambda: "one")
    killed_before("finish", folder, revision, monkeypatch=monkeypatch)
    monkeypatch.setattr(staging, "_boot", lambda: "another")
    assert main(arguments(folder, revision)) == 0
    assert store.gets == len(FILES)
    assert visible(folder) == FILES


def test_a_folder_that_is_tidied_away_while_it_is_waited_for_is_made_anew(
    store: FlakyStore, revision: str, tmp_path: Path
) -> None:
    folder = tmp_path / IDENTITY
    (folder / ".beamlit").mkdir(parents=True)
    with (folder / ".beamlit" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with fetcher(folder, revision) as process:
            line_with("waiting for it", process)
            folder.rename(tmp_path / f".gone-{IDENTITY}-00")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(60) == 0
    assert visible(folder) == FILES


def test_one_that_holds_a_folder_and_does_nothing_is_named(
    store: FlakyStore,
    revision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(turns, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(turns, "_TELL_SECONDS", 0.1)
    folder = tmp_path / IDENTITY
    (folder / ".beamlit").mkdir(parents=True)
    with (folder / ".beamlit" / "lock").open("w") as lock:
        lock.write("iris-5f6d8\x1b[2J")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(arguments(folder, revision)) == 1
        said = capsys.readouterr().err
        assert "another pod holds" in said, "what is no name is not printed"
        lock.truncate(len("iris-5f6d8"))
        assert main(arguments(folder, revision)) == 1
    said = capsys.readouterr().err
    assert "LocalDisk: pod iris-5f6d8 holds" in said
    assert "delete that pod" in said


def test_a_volume_that_cannot_be_written_serves_what_it_holds_and_nothing_else(
    store: FlakyStore,
    revision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / IDENTITY
    assert main(arguments(folder, revision)) == 0
    plain = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_CREAT | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return plain(path, flags, *rest, **options)

    monkeypatch.setattr(turns.os, "open", read_only)
    assert main(arguments(folder, revision)) == 0
    (folder / "part-1").unlink()
    assert main(arguments(folder, revision)) == 1
    said = capsys.readouterr().err
    assert f"LocalDisk: {folder} cannot be written by user {os.getuid()}" in said


def test_a_record_that_is_none_is_no_model(
    store: FlakyStore, revision: str, tmp_path: Path
) -> None:
    for number, marker in enumerate(("[" * 100_000, '{"files": []}', "null", '{"revision": 1}')):
        folder = tmp_path / f"{number:032}"
        (folder / ".beamlit").mkdir(parents=True)
        (folder / ".beamlit" / "published.json").write_text(marker)
        assert main(arguments(folder, revision)) == 0
        assert visible(folder) == FILES


def test_a_link_in_place_of_a_folder_is_refused(
    store: FlakyStore, revision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / IDENTITY).symlink_to(outside)
    assert main(arguments(tmp_path / IDENTITY, revision)) == 1
    assert "UnsafePath" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_a_full_volume_is_cleared_of_what_no_fetch_goes_on_with(
    store: FlakyStore,
    revision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    complete = tmp_path / ("d" * 32)
    assert main(arguments(complete, revision)) == 0
    half = tmp_path / ("e" * 32)
    shutil.copytree(complete, half)
    (half / ".beamlit" / "published.json").unlink()
    monkeypatch.setattr(
        staging.shutil, "disk_usage", lambda _: Usage(0 if half.exists() else 10**12)
    )
    assert main(arguments(tmp_path / IDENTITY, revision)) == 0
    assert not half.exists()
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: Usage(0))
    assert main(arguments(tmp_path / ("f" * 32), revision)) == 1
    assert "or the cache a limit" in capsys.readouterr().err
    assert visible(complete) == FILES, "nobody's files were taken"


def test_tidying_imports_little(tmp_path: Path) -> None:
    code = (
        "import sys; from beamlit_operator.cli.main import main\n"
        f"assert main(['cache', 'list', {str(tmp_path)!r}]) == 0\n"
        "heavy = {'botocore', 'huggingface_hub', 'aiohttp', 'pydantic', 'typer', 'kopf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_repository_of_a_hub_is_shared_too(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "model.safetensors": os.urandom(300_000)}
    commit = hub.add("org/model", files)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path / IDENTITY
    given = ["hf://org/model", str(folder), "--revision", commit, "--shared"]
    assert main(given) == 0
    assert visible(folder) == files
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert main(given) == 0
