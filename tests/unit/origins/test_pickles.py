"""Which files can run code, and when a model cannot do without them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from beamlit_operator.origins.pickles import (
    allowed_paths,
    is_pickle,
    needed_pickles,
    pickles,
    refusal,
)


@pytest.mark.parametrize(
    "name",
    [
        "model.pkl",
        "a/model.PKL",
        "model.joblib",
        "python_model.pickle",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "model.pt",
        "best.ckpt",
        "1/resnet.mar",
    ],
)
def test_a_name_of_a_pickle_is_known(name: str) -> None:
    assert pickles([name]) == [name]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.gguf", "tokenizer.json", "ggml-model.bin", "pkl.txt"]
)
def test_other_files_are_no_pickles(name: str) -> None:
    assert pickles([name]) == []


def test_pickles_are_left_out_where_weights_are_there_in_another_form() -> None:
    paths = ("config.json", "model.safetensors", "pytorch_model.bin", "training_args.bin")
    assert needed_pickles(paths) == []
    assert allowed_paths(paths, allow_pickle=False) == ("config.json", "model.safetensors")


def test_pickles_are_needed_where_they_are_all_there_is() -> None:
    assert needed_pickles(("model-settings.json", "model.joblib")) == ["model.joblib"]


def test_everything_is_fetched_with_leave() -> None:
    assert allowed_paths(("model.joblib",), allow_pickle=True) == ("model.joblib",)


def test_the_refusal_names_some_files_and_the_way_out() -> None:
    text = refusal([f"{n}.pkl" for n in range(5)])
    assert "'0.pkl', '1.pkl', '2.pkl' and 2 more" in text
    assert "spec.allowPickle" in text


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_known_by_its_content(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    assert is_pickle(file)


def test_a_zip_file_with_a_pickle_in_it_is_one(tmp_path: Path) -> None:
    for member, expected in (("archive/data.pkl", True), ("archive/weights.npy", False)):
        file = tmp_path / "weights.bin"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, b"x")
        assert is_pickle(file) is expected


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04 and no zip file", b'{"a": 1}'])
def test_what_is_no_pickle_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert not is_pickle(file)
