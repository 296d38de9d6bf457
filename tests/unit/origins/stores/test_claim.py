"""Files in a claim: what they are called, and which of them may be served."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from beamlit_operator.origins import OriginError, parse_uri
from beamlit_operator.origins.__main__ import main
from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.origins.stores.claim import UID, check, look, read

REF = ClaimRef("weights", "llama")


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("pvc://weights", ClaimRef("weights")),
        ("pvc://weights/", ClaimRef("weights")),
        ("pvc://weights/a/b", ClaimRef("weights", "a/b")),
    ],
)
def test_a_uri_names_a_folder_of_a_claim(uri: str, ref: ClaimRef) -> None:
    found = parse_uri(uri)
    assert found == ref
    assert found.uri == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri", ["pvc://", "pvc://Up/x", "pvc://a/../b", "pvc://a/b//c", "pvc://a/."]
)
def test_a_folder_that_cannot_be_is_refused(uri: str) -> None:
    with pytest.raises(OriginError, match="InvalidReference"):
        parse_uri(uri)


def test_the_revision_says_which_claim_which_folder_and_what_a_person_calls_it() -> None:
    base = ClaimRef("weights", "a", "1")
    same = ClaimRef("other-name", "a", "1")
    assert look(base, {UID: "u"}).revision == look(same, {UID: "u"}).revision
    for other, uid in (
        (ClaimRef("weights", "b", "1"), "u"),
        (ClaimRef("weights", "a", "2"), "u"),
        (base, "made-again"),
    ):
        assert look(other, {UID: uid}).revision != look(base, {UID: "u"}).revision


def test_nobody_but_a_pod_sees_the_files() -> None:
    with pytest.raises(OriginError, match="seen by the pods"):
        look(REF, {})
    with pytest.raises(OriginError, match="seen by the pods"):
        read(REF, {UID: "u"}, OriginFile("a", 1, "", "a"), 0, 1)


def _a_pickle(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))


def _a_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights.bin", "w") as archive:
        archive.writestr("archive/data.pkl", "x")


def _a_name(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "model.joblib").write_text("x")
    (folder / "model.safetensors").write_text("x")


def _outside(folder: Path) -> None:
    (folder / "model").symlink_to("../secret")


def _absolute(folder: Path) -> None:
    (folder / "data").write_text("x")
    (folder / "model").symlink_to(folder / "data")


def _dangling(folder: Path) -> None:
    (folder / "model").symlink_to("none")


def _circle(folder: Path) -> None:
    (folder / "model").symlink_to("model")


def _a_folder_outside(folder: Path) -> None:
    (folder / "more").symlink_to("..")


def _nothing(folder: Path) -> None:
    (folder / "empty" / "inside").mkdir(parents=True)
    (folder / "lost+found").mkdir()


def _a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


@pytest.mark.parametrize(
    ("made", "reason", "words"),
    [
        (_a_pickle, "PickleNotAllowed", "'weights.safetensors' in folder llama of claim weights"),
        (_a_zip, "PickleNotAllowed", "'weights.bin'"),
        (_a_name, "PickleNotAllowed", "'deep/model.joblib'"),
        (_outside, "UnsafePath", "'model'"),
        (_absolute, "UnsafePath", "'model'"),
        (_dangling, "UnsafePath", "'model'"),
        (_circle, "UnsafePath", "'model'"),
        (_a_folder_outside, "UnsafePath", "'more'"),
        (_nothing, "NoObjects", "holds no file"),
        (_a_file, "NoObjects", "is no folder"),
        (Path.rmdir, "NoObjects", "is not there"),
    ],
)
def test_what_may_not_be_served_is_named(
    tmp_path: Path, made: Callable[[Path], None], reason: str, words: str
) -> None:
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "llama"
    folder.mkdir()
    made(folder)
    with pytest.raises(OriginError) as caught:
        check(REF, folder, allow_pickle=False)
    assert (caught.value.reason, words in caught.value.message) == (reason, True), caught.value


def test_links_in_the_folder_hidden_files_and_allowed_pickles_are_served(tmp_path: Path) -> None:
    _a_pickle(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to("../weights.safetensors")
    (tmp_path / "again").symlink_to("deep")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "lost+found").mkdir(mode=0)
    found = check(REF, tmp_path, allow_pickle=True)
    assert found.files == 3
    assert found.bytes == 2 * (tmp_path / "weights.safetensors").stat().st_size + 1


def test_a_hidden_pickle_is_found(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    _a_pickle(tmp_path / ".cache")
    with pytest.raises(OriginError, match="PickleNotAllowed"):
        check(REF, tmp_path, allow_pickle=False)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("x")
    (tmp_path / "model.bin").chmod(0)
    with pytest.raises(OriginError, match=r"AccessDenied: 'model\.bin'"):
        check(REF, tmp_path, allow_pickle=False)


def test_a_pods_check_ends_with_a_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pvc://weights", str(tmp_path), "--revision", "sha256:" + "0" * 64]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "beamlit fetch: NoObjects: claim weights holds no file: fill it, or correct the path\n"
    )
    (tmp_path / "model.onnx").write_text("x")
    assert main(arguments) == 0
    assert "1 files, 1 bytes: nothing to fetch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
