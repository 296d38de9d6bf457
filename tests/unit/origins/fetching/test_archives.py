"""Archives are programs for whoever unpacks them: what is taken, refused, and written."""

from __future__ import annotations

import gzip
import importlib
import io
import os
import random
import shutil
import stat
import struct
import sys
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.origins import OriginError, OriginReason
from beamlit_operator.origins.fetching import archives
from beamlit_operator.origins.fetching.archives import Unpacker

zstd: Any = importlib.import_module(
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
)

FILE, FOLDER, SYMLINK, HARDLINK = "file", "folder", "symlink", "hardlink"
PIPE, DEVICE = "pipe", "device"
TAR_TYPES = {
    FILE: tarfile.REGTYPE,
    FOLDER: tarfile.DIRTYPE,
    SYMLINK: tarfile.SYMTYPE,
    HARDLINK: tarfile.LNKTYPE,
    PIPE: tarfile.FIFOTYPE,
    DEVICE: tarfile.CHRTYPE,
}
ZIP_TYPES = {
    FILE: stat.S_IFREG,
    FOLDER: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    HARDLINK: stat.S_IFLNK,
    PIPE: stat.S_IFIFO,
    DEVICE: stat.S_IFCHR,
}

Entry = tuple[str, str, str]
"""Name, what it is, and its content or where it leads."""


def tar(entries: Iterable[Entry], *, mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in entries:
            member = tarfile.TarInfo(name)
            member.type = TAR_TYPES[kind]
            member.linkname = content if kind in (SYMLINK, HARDLINK) else ""
            data = content.encode() if kind == FILE else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def tgz(entries: Iterable[Entry]) -> bytes:
    return tar(entries, mode="w:gz")


def zipped(entries: Iterable[Entry]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind, content in entries:
            member = zipfile.ZipInfo(name)
            member.filename = name  # as it is: the constructor would make it safe
            member.external_attr = ZIP_TYPES[kind] << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings(action="ignore"):  # of duplicates
                archive.writestr(member, content if kind != FOLDER else "")
    return made.getvalue()


def zstandard(entries: Iterable[Entry]) -> bytes:
    return bytes(zstd.compress(tar(entries), options={zstd.CompressionParameter.checksum_flag: 1}))


MAKERS = {
    "m.tar": tar,
    "m.tar.gz": tgz,
    "m.tgz": tgz,
    "m.tar.zst": zstandard,
    "m.zip": zipped,
}


def unpacked(
    content: bytes, into: Path, *, name: str = "m.tar", taken: tuple[str, ...] = ()
) -> dict[str, bytes]:
    """What comes out, by name; the folder holds that and nothing else."""
    archive = into.parent / "archive"
    archive.write_bytes(content)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    unpacker = Unpacker(into, taken=taken, place="s3://models/m")
    unpacker.unpack(name, archive)
    found = {file.path: (into / file.path).read_bytes() for file in unpacker.files()}
    assert {file.path: file.size for file in unpacker.files()} == {
        path: len(data) for path, data in found.items()
    }
    assert {str(p.relative_to(into)) for p in into.rglob("*") if not p.is_dir()} == set(found)
    return found


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def refusal(content: bytes, into: Path, *, name: str = "m.tar") -> OriginError:
    with pytest.raises(OriginError) as caught:
        unpacked(content, into, name=name)
    assert caught.value.stalled
    assert repr(name) in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", MAKERS)
class TestWhatIsTaken:
    def test_files_in_folders(self, name: str, into: Path) -> None:
        entries = [
            ("./", FOLDER, ""),
            ("./model/", FOLDER, ""),
            ("./model/weights.onnx", FILE, "weights"),
            ("config.json", FILE, ""),
            ("ünïcode/Ω", FILE, "x"),
        ]
        assert unpacked(MAKERS[name](entries), into, name=name) == {
            "model/weights.onnx": b"weights",
            "config.json": b"",
            "ünïcode/Ω": b"x",
        }

    def test_they_lie_where_the_archive_lay(self, name: str, into: Path) -> None:
        content = MAKERS[name]([("a", FILE, "1")])
        assert unpacked(content, into, name=f"sub/{name}") == {"sub/a": b"1"}

    def test_links_to_its_own_files_become_files(self, name: str, into: Path) -> None:
        entries = [
            ("to/link", SYMLINK, "../real/weights"),
            ("second", SYMLINK, "to/link"),
            ("real/weights", FILE, "weights"),
        ]
        found = unpacked(MAKERS[name](entries), into, name=name)
        assert set(found) == {"to/link", "second", "real/weights"}
        assert set(found.values()) == {b"weights"}
        assert not any(path.is_symlink() for path in into.rglob("*"))

    def test_an_archive_in_it_stays_one(self, name: str, into: Path) -> None:
        assert set(unpacked(MAKERS[name]([(name, FILE, "x")]), into, name=name)) == {name}


@pytest.mark.parametrize("name", MAKERS)
class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "entries",
        [
            [("../x", FILE, "")],
            [("a/../../x", FILE, "")],
            [("a/..", FILE, "")],
            [("/etc/x", FILE, "")],
            [("C:x", FILE, "")],
            [("c:/x", FILE, "")],
            [("..\\x", FILE, "")],
            [(".beamlit/published.json", FILE, "{}")],
            [("a/.beamlit/x", FILE, "")],
            [("n" * 256, FILE, "")],
            [("a/" * 2001 + "b", FILE, "")],
            [("a", FILE, "1"), ("a", FILE, "2")],
            [("a", FILE, "1"), ("./a", FILE, "2")],
            [("a", FILE, ""), ("a/b", FILE, "")],
            [("a/b", FILE, ""), ("a", FILE, "")],
            [("a", SYMLINK, "/etc/passwd")],
            [("a", SYMLINK, "../x")],
            [("a", SYMLINK, "b")],
            [("a", SYMLINK, "a")],
            [("a", SYMLINK, "."), ("a/x", FILE, "")],
            [("d/", FOLDER, ""), ("d", SYMLINK, ".."), ("d/x", FILE, "")],
            [("a", FILE, ""), ("a", SYMLINK, "a")],
            [("pipe", PIPE, "")],
            [("device", DEVICE, "")],
        ],
    )
    def test_what_is_no_file_below_the_folder(
        self, name: str, entries: list[Entry], into: Path
    ) -> None:
        assert refusal(MAKERS[name](entries), into, name=name).reason is OriginReason.UNSAFE_PATH

    def test_a_name_that_the_model_has_already(self, name: str, into: Path) -> None:
        for taken, entry in (("a", "a"), ("a/b", "a"), ("a", "a/b")):
            with pytest.raises(OriginError) as caught:
                unpacked(MAKERS[name]([(entry, FILE, "")]), into, name=name, taken=(taken,))
            assert caught.value.reason is OriginReason.UNSAFE_PATH

    def test_a_bomb(self, name: str, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "FREE_OF_RATIO_BYTES", 100_000)
        monkeypatch.setattr(archives, "MAX_RATIO", 10)
        content = MAKERS[name]([("zeros", FILE, "\0" * 3_000_000)])
        if name == "m.tar":
            assert unpacked(content, into, name=name)  # what is not packed cannot grow
            return
        error = refusal(content, into, name=name)
        assert error.reason is OriginReason.BAD_ARCHIVE
        assert "times as large unpacked" in error.message
        assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) < 2_000_000

    def test_too_many_files(self, name: str, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_FILES", 20)
        content = MAKERS[name]([(f"{n}", FILE, "") for n in range(21)])
        assert refusal(content, into, name=name).reason is OriginReason.TOO_MANY_FILES

    def test_too_many_links(self, name: str, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_FILES", 20)
        content = MAKERS[name]([("a", FILE, ""), *((f"l{n}", SYMLINK, "a") for n in range(21))])
        assert refusal(content, into, name=name).reason is OriginReason.TOO_MANY_FILES

    def test_one_that_was_cut_off(self, name: str, into: Path) -> None:
        chance = random.Random(3)
        entries = [(f"f{n}", FILE, chance.randbytes(500).hex()) for n in range(10)]
        whole = MAKERS[name](entries)
        data = len(whole) if name != "m.tar" else 10 * 1536
        for length in sorted({chance.randrange(data) for _ in range(30)} | {0, 1536, data - 1}):
            error = refusal(whole[:length], into, name=name)
            assert error.reason is OriginReason.BAD_ARCHIVE, length

    def test_what_is_no_archive(self, name: str, into: Path) -> None:
        for content in (b"", b"no archive", bytes(5000) if name != "m.tar" else b"x" * 5000):
            assert refusal(content, into, name=name).reason is OriginReason.BAD_ARCHIVE


def test_a_hard_link_is_the_file_it_names(into: Path) -> None:
    content = tar([("d/a", FILE, "1"), ("d/b", HARDLINK, "d/a")])
    assert unpacked(content, into) == {"d/a": b"1", "d/b": b"1"}
    assert refusal(tar([("b", HARDLINK, "../a")]), into).reason is OriginReason.UNSAFE_PATH


def test_a_volume_that_does_not_tell_two_names_apart_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tar([("model.bin", FILE, "2")]))
    into = tmp_path / "into"
    into.mkdir()
    # As such a volume answers when "Model.bin" is there already.
    (into / "model.bin").write_text("1")
    with pytest.raises(OriginError, match="under another spelling") as caught:
        Unpacker(into, taken=(), place="s3://models/m").unpack("m.tar", archive)
    assert caught.value.reason is OriginReason.UNSAFE_PATH
    assert (into / "model.bin").read_text() == "1"


def test_links_work_where_the_disk_knows_none(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert unpacked(tar([("b", SYMLINK, "a"), ("a", FILE, "1")]), into) == {"a": b"1", "b": b"1"}


def test_a_header_that_would_fill_the_memory_is_not_read(into: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**30
    packed = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
    assert refusal(packed, into, name="m.tgz").reason is OriginReason.BAD_ARCHIVE


class TestZstandard:
    """What is its own; all else is as with gzip, above."""

    NAME = "layer.tar.zst"

    def test_frames_follow_each_other_and_some_hold_nothing(self, into: Path) -> None:
        whole = tar([("a", FILE, "x" * 5000), ("b", FILE, "y")])
        nothing = struct.pack("<LL", 0x184D2A50, 5) + b"index"  # skippable, RFC 8878, 3.1.2
        parts = [zstd.compress(whole[:3000]), nothing, zstd.compress(whole[3000:]), nothing]
        found = unpacked(b"".join(parts), into, name=self.NAME)
        assert found == {"a": b"x" * 5000, "b": b"y"}

    @pytest.mark.parametrize(("window_log", "taken"), [(27, True), (28, False), (31, False)])
    def test_one_that_needs_much_memory_is_refused(
        self, window_log: int, taken: bool, into: Path
    ) -> None:
        options = {
            zstd.CompressionParameter.window_log: window_log,
            zstd.CompressionParameter.content_size_flag: 0,
        }
        # In pieces, so that the window cannot be made as small as the content.
        making = zstd.ZstdCompressor(options=options)
        parts = [making.compress(tar([("a", FILE, "x")]), making.FLUSH_BLOCK), making.flush()]
        if taken:
            assert unpacked(b"".join(parts), into, name=self.NAME) == {"a": b"x"}
        else:
            error = refusal(b"".join(parts), into, name=self.NAME)
            assert error.reason is OriginReason.BAD_ARCHIVE

    def test_a_checksum_that_is_wrong_is_noticed(self, into: Path) -> None:
        content = bytearray(zstandard([("a", FILE, "x" * 5000)]))
        content[-1] ^= 1
        error = refusal(bytes(content), into, name=self.NAME)
        assert error.reason is OriginReason.BAD_ARCHIVE

    def test_a_bomb_of_a_few_bytes_takes_no_memory(
        self, into: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archives, "FREE_OF_RATIO_BYTES", 2**20)
        member = tarfile.TarInfo("zeros")
        member.size = 2**30
        content = zstd.compress(member.tobuf() + bytes(2**27))
        assert len(content) < 20_000
        tracemalloc.start()
        try:
            error = refusal(content, into, name=self.NAME)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "times as large unpacked" in error.message
        assert most < 32 * 2**20


def test_a_directory_that_would_fill_the_memory_is_not_read(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped([(f"{n}", FILE, "") for n in range(5)])
    monkeypatch.setattr(archives, "_DIRECTORY_BYTES_PER_FILE", 0)
    assert refusal(content, into, name="m.zip").reason is OriginReason.TOO_MANY_FILES


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_without_a_name_is_refused(into: Path, name: str) -> None:
    error = refusal(MAKERS[name]([("", FILE, "x")]), into, name=name)
    assert error.reason is OriginReason.UNSAFE_PATH
    assert "is no name of a file" in error.message


def test_a_zip_file_with_a_password_says_so(into: Path) -> None:
    content = bytearray(zipped([("secret", FILE, "x")]))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.index(signature) + offset
        content[at] |= 1
    error = refusal(bytes(content), into, name="m.zip")
    assert error.reason is OriginReason.BAD_ARCHIVE
    assert "encrypted" in error.message


def test_a_zip_file_that_lies_about_its_sizes_is_refused(into: Path) -> None:
    content = bytearray(zipped([("a", FILE, "x" * 1000)]))
    at = content.index(b"PK\1\2") + 24
    struct.pack_into("<L", content, at, 10)
    assert refusal(bytes(content), into, name="m.zip").reason is OriginReason.BAD_ARCHIVE


def test_what_does_not_fit_ends_before_the_disk_is_full(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(into.parent)._replace(free=16 * 2**20 - 1)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    for name, maker in MAKERS.items():
        with pytest.raises(OriginError, match="does not fit unpacked") as caught:
            unpacked(maker([("a", FILE, "x" * 100)]), into, name=name)
        assert caught.value.reason is OriginReason.LOCAL_DISK


SEGMENTS = st.sampled_from(
    ["a", "b", "..", ".", "", "outside", "etc", "C:", "\\..", ".beamlit", "\udc80", "\0", "ä" * 130]
)
NAMES = st.lists(SEGMENTS, max_size=5).map("/".join)
ENTRIES = st.lists(st.tuples(NAMES, st.sampled_from(list(TAR_TYPES)), NAMES), max_size=8)


@given(
    entries=ENTRIES,
    name=st.sampled_from(list(MAKERS)),
    folder=st.sampled_from(["", "sub/"]),
    damage=st.none() | st.tuples(st.floats(0, 1), st.integers(0, 255)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_an_archive_says_nothing_is_ever_written_outside(
    entries: list[Entry], name: str, folder: str, damage: tuple[float, int] | None
) -> None:
    with tempfile.TemporaryDirectory() as root:
        outside = Path(root) / "outside"
        outside.write_text("as it was")
        content = bytearray(_made(MAKERS[name], entries))
        if damage is not None:
            content[int(damage[0] * (len(content) - 1))] = damage[1]
        (Path(root) / "archive").write_bytes(content)
        into = Path(root) / "a" / "into"
        into.mkdir(parents=True)
        unpacker = Unpacker(into, taken=("taken",), place="s3://models/m")
        try:
            unpacker.unpack(f"{folder}{name}", Path(root) / "archive")
        except OriginError:
            pass
        else:
            for file in unpacker.files():
                assert (into / file.path).stat().st_size == file.size
                assert file.path.startswith(folder)
        assert outside.read_text() == "as it was"
        assert {path.name for path in Path(root).iterdir()} == {"a", "archive", "outside"}
        assert [path.name for path in into.parent.iterdir()] == ["into"]
        for path in into.rglob("*"):
            assert not path.is_symlink()
            assert path.is_dir() or path.is_file()
            assert ".beamlit" not in path.parts


def _made(maker: Callable[[Iterable[Entry]], bytes], entries: list[Entry]) -> bytes:
    kept = [
        (name, kind, content.encode(errors="replace").decode()) for name, kind, content in entries
    ]
    if maker is zipped:  # which has no way to write names that are not UTF-8
        kept = [(name.encode(errors="replace").decode(), *rest) for name, *rest in kept]
    return maker(kept)
