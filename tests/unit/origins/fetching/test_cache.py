"""A cache's folders on a disk: nothing is trusted, nothing is removed by halves."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beamlit_operator.origins.cache_command import main
from beamlit_operator.origins.fetching import cache
from beamlit_operator.origins.fetching.staging import stage
from beamlit_operator.origins.listing import OriginFile, ResolvedOrigin
from beamlit_operator.origins.sizes import size

ONE, TWO, THREE = ("1" * 32, "2" * 32, "3" * 32)
DAY = 86_400.0


def published(root: Path, name: str, *, content: bytes = b"weights", age: float = DAY) -> Path:
    """A folder as a fetcher leaves it, last used so many seconds ago."""
    with stage(root / name, f"s3://models/{name}", shared=True) as staging:
        file = OriginFile("model/weights.bin", len(content), "", "weights.bin")
        listing = ResolvedOrigin("r", (file,), len(content))
        staging.prepare(listing)
        part = staging.parts / "1"
        part.write_bytes(content)
        staging.complete(file, part)
        staging.publish(listing)
    used(root / name, age)
    return root / name


def half(root: Path, name: str, *, age: float = DAY) -> Path:
    """A folder whose fetcher was killed."""
    with stage(root / name, f"s3://models/{name}", shared=True) as staging:
        staging.prepare(ResolvedOrigin("r", (OriginFile("w", 9, "", "w"),), 9))
        (staging.parts / "1").write_bytes(b"half")
    used(root / name, age)
    return root / name


def used(folder: Path, age: float) -> None:
    then = time.time() - age
    os.utime(folder / ".beamlit" / "used", (then, then))


def folders(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_a_folder_says_what_it_holds_and_when_it_was_used(tmp_path: Path) -> None:
    published(tmp_path, ONE, content=b"x" * 100_000, age=DAY)
    half(tmp_path, TWO, age=60)
    one, two = cache.entries(tmp_path)
    assert (one.name, one.complete, one.holds) == (ONE, True, f"s3://models/{ONE}")
    assert 100_000 <= one.bytes < 200_000
    assert abs(time.time() - DAY - one.used) < 60
    assert (two.name, two.complete) == (TWO, False)


def test_a_list_has_digests_as_people_compare_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit, digest = "52b99381812d" + "0" * 28, "sha256:c34728c155da" + "0" * 52
    for name, holds in (
        (ONE, f"hf://acme/chat@{commit} [] [] without pickles"),
        (TWO, f"oci {digest} models"),
        (THREE, f"hf://acme/chat@{commit} ['*.gguf'] []"),
    ):
        with stage(tmp_path / name, holds, shared=True) as staging:
            staging.prepare(ResolvedOrigin("r", (), 0))
            staging.publish(ResolvedOrigin("r", (), 0))
    assert main(["list", str(tmp_path)]) == 0
    shown = [line.split("Z  ")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(shown) == [
        "hf://acme/chat@52b99381812d ['*.gguf'] []",
        "hf://acme/chat@52b99381812d without pickles",
        "oci sha256:c34728c155da models",
    ]


def test_who_reads_a_part_of_a_list_is_told_of_no_broken_volume(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "beamlit_operator.origins.cache_command", "list", tmp_path]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_has_no_name_of_a_folder_is_not_looked_at(tmp_path: Path) -> None:
    published(tmp_path, ONE)
    outside = tmp_path / "outside"
    for name in ("lost+found", ONE + "0", ONE[:-1] + "G", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / TWO).write_text("a file")
    shutil.copytree(tmp_path / ONE, outside)
    (tmp_path / THREE).symlink_to(outside)
    before = folders(tmp_path)
    assert [each.name for each in cache.entries(tmp_path)] == [ONE]
    assert main(["tidy", str(tmp_path), "--limit", "0"]) == 0
    assert folders(tmp_path) == before - {ONE}
    assert (outside / "model" / "weights.bin").exists()


def test_links_in_a_folder_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    root = tmp_path / "cache"
    folder = published(root, ONE)
    (folder / "link").symlink_to(precious)
    (folder / "file").symlink_to(precious / "file")
    planted = root / TWO
    planted.mkdir()
    (planted / ".beamlit").symlink_to(precious)
    long_ago = time.time() - DAY
    os.utime(planted, (long_ago, long_ago))
    assert main(["tidy", str(root), "--limit", "0"]) == 0
    assert folders(root) == set()
    assert [path.name for path in precious.iterdir()] == ["file"]


def test_a_pipe_or_a_huge_number_for_a_marker_hangs_nobody(tmp_path: Path) -> None:
    for name in (ONE, TWO):
        published(tmp_path, name)
    marker = tmp_path / ONE / ".beamlit" / "published.json"
    marker.unlink()
    os.mkfifo(marker)
    (tmp_path / TWO / ".beamlit" / "published.json").write_text("[" * 100_000)
    assert [each.complete for each in cache.entries(tmp_path)] == [False, False]


def test_only_what_is_not_used_goes_the_oldest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, age in ((ONE, 3 * DAY), (TWO, 2 * DAY), (THREE, DAY)):
        published(tmp_path, name, content=b"x" * 2**20, age=age)
    assert main(["tidy", str(tmp_path), "--limit", "1500Ki", "--keep", ONE]) == 0
    assert folders(tmp_path) == {ONE}, "two had to go, and the oldest is kept"
    assert f"removed {TWO}" in capsys.readouterr().err
    assert main(["tidy", str(tmp_path), "--limit", "0", "--keep", ONE]) == 0
    assert folders(tmp_path) == {ONE}
    assert "above the limit" in capsys.readouterr().err


def test_what_was_used_after_the_names_were_looked_up_stays(tmp_path: Path) -> None:
    published(tmp_path, ONE, age=3600)
    then = time.time() - 2 * 3600
    assert main(["tidy", str(tmp_path), "--limit", "0", "--then", str(then)]) == 0
    assert folders(tmp_path) == {ONE}
    assert main(["tidy", str(tmp_path), "--limit", "0"]) == 0
    assert folders(tmp_path) == set()


def test_a_folder_that_somebody_fetches_into_stays(tmp_path: Path) -> None:
    folder = half(tmp_path, ONE)
    with (folder / ".beamlit" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["tidy", str(tmp_path), "--limit", "0"]) == 0
        assert folders(tmp_path) == {ONE}
        cache.remove_leftovers(tmp_path)
        assert folders(tmp_path) == {ONE}
    assert main(["tidy", str(tmp_path)]) == 0
    assert folders(tmp_path) == set()


def test_a_folder_is_looked_at_again_under_its_lock(tmp_path: Path) -> None:
    """It was chosen, and then a pod started from it."""
    published(tmp_path, ONE)
    (found,) = cache.entries(tmp_path)
    used(tmp_path / ONE, 0)
    assert not cache.remove(tmp_path, ONE, condemned=lambda now: now.used == found.used)
    assert folders(tmp_path) == {ONE}


def test_a_removal_that_is_killed_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path, ONE)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.remove(tmp_path, ONE, condemned=lambda _: True)
    assert cache.entries(tmp_path) == []
    assert folders(tmp_path) != set()
    assert main(["tidy", str(tmp_path)]) == 0
    assert folders(tmp_path) == set()


def test_leftovers_are_what_is_not_complete(tmp_path: Path) -> None:
    published(tmp_path, ONE)
    half(tmp_path, TWO, age=0)
    (tmp_path / f".gone-{THREE}-0123abcd").mkdir()
    cache.remove_leftovers(tmp_path)
    assert folders(tmp_path) == {ONE}


def test_what_cannot_be_removed_is_told_and_the_rest_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published(tmp_path, ONE)
    published(tmp_path, TWO)
    plain = os.rename

    def rename(source: str, *arguments: object, **options: object) -> None:
        if source == ONE:
            raise PermissionError(errno.EACCES, "Permission denied", source)
        plain(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.os, "rename", rename)
    assert main(["tidy", str(tmp_path), "--limit", "0"]) == 1
    assert folders(tmp_path) == {ONE}
    assert f"{ONE} could not be removed" in capsys.readouterr().err


def test_the_list_is_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(tmp_path, ONE)
    assert main(["list", str(tmp_path)]) == 0
    assert f"s3://models/{ONE}" in capsys.readouterr().out
    assert main(["list", str(tmp_path), "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == ONE
    assert row["complete"] is True


def test_a_volume_that_is_not_there_is_an_error_and_not_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tidy", str(tmp_path / "nothing")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("1500", 1500), ("1k", 1000), ("2Ki", 2048), ("1.5Gi", 3 * 2**29), ("1T", 10**12)],
)
def test_sizes_are_kubernetes_quantities(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1x", "1 Gi", "NaN", "inf", "1ki", "1m"])
def test_other_sizes_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tidy", "/nowhere", "--limit", text]) == 2
    assert "limit" in capsys.readouterr().err
