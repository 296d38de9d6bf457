"""Layers over each other."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins.fetching.laying import Laid, laid_over
from beamlit_operator.origins.listing import OriginFile


def over(*layers: dict[str, int], only: str = "") -> dict[str, int]:
    """What is left of layers, as names and sizes."""
    there: dict[str, Laid] = {}
    for number, layer in enumerate(layers):
        files = [OriginFile(name, size, "", name) for name, size in layer.items()]
        there = laid_over(there, files, folder=Path(str(number)), only=only)
    return {path: laid.file.size for path, laid in there.items()}


def test_the_upper_of_two_files_counts() -> None:
    assert over({"a": 1, "b": 2}, {"a": 3}) == {"a": 3, "b": 2}


def test_a_whiteout_removes_a_file_or_a_whole_folder_of_the_layers_below() -> None:
    assert over({"a": 1, "b/c": 2, "b/d/e": 3}, {".wh.b": 0}) == {"a": 1}
    assert over({"b/c": 2, "b/d": 3}, {"b/.wh.c": 0, "b/e": 4}) == {"b/d": 3, "b/e": 4}
    # It speaks of the layers below and not of its own.
    assert over({"a": 1}, {".wh.a": 0, "a": 2}) == {"a": 2}


def test_an_opaque_folder_hides_what_is_below_it() -> None:
    below = {"a": 1, "b/c": 2, "b/d/e": 3}
    assert over(below, {"b/.wh..wh..opq": 0, "b/f": 4}) == {"a": 1, "b/f": 4}
    assert over(below, {".wh..wh..opq": 0, "f": 4}) == {"f": 4}


def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file() -> None:
    assert over({"a/b": 1}, {"a": 2}) == {"a": 2}
    assert over({"a": 1}, {"a/b": 2}) == {"a/b": 2}


def test_the_models_folder_is_taken_off_the_names() -> None:
    layers = ({"models/a": 1, "models/b/c": 2}, {"models/.wh.b": 0})
    assert over(*layers, only="models") == {"a": 1}


NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq"])


@given(st.lists(st.dictionaries(NAMES, st.integers(0, 9), max_size=5), max_size=4))
def test_whatever_lies_over_what_the_names_can_all_exist(layers: list[dict[str, int]]) -> None:
    # As in one archive, no name of a layer is a file and a folder at once.
    proper = [
        {
            name: size
            for name, size in layer.items()
            if not any(other.startswith(f"{name}/") for other in layer)
        }
        for layer in layers
    ]
    found = over(*proper)
    assert not any(name.rpartition("/")[2].startswith(".wh.") for name in found)
    assert not any(other.startswith(f"{name}/") for name in found for other in found)
    if proper:
        uppermost = {n for n in proper[-1] if not n.rpartition("/")[2].startswith(".wh.")}
        assert uppermost <= found.keys()
