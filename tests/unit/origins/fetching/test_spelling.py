"""Names that some volumes take for one: told before anything is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamlit_operator.origins import OriginError, OriginReason
from beamlit_operator.origins.fetching import spelling
from beamlit_operator.origins.fetching.spelling import check_spelling

PAIRS = [
    ("Model.bin", "model.bin"),
    ("a/x", "A/y"),
    ("straße", "STRASSE"),
    ("caf\u00e9", "cafe\u0301"),
    ("a", "A/b"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_they_are_tried_on_the_volume_and_refused_where_they_are_one(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "names"
    # Here they are two, so nothing is wrong with them.
    check_spelling(["other", *pair], folder=folder, place="/mnt/models")
    assert not folder.exists()
    tried: list[tuple[str, str]] = []

    def one(first: str, second: str, *, folder: Path) -> bool:
        tried.append((first, second))
        return True

    monkeypatch.setattr(spelling, "is_same", one)
    with pytest.raises(OriginError, match="are one file on the volume of /mnt/models") as caught:
        check_spelling(["other", *pair], folder=folder, place="/mnt/models")
    assert caught.value.reason is OriginReason.UNSAFE_PATH
    assert len(tried) == 1


def test_what_the_volume_says_counts(tmp_path: Path) -> None:
    folder = tmp_path / "names"
    assert spelling.is_same("a/b", "a/b", folder=folder)
    assert not spelling.is_same("a/b", "a/c", folder=folder)
    assert not folder.exists()


def test_different_names_are_not_even_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(spelling, "is_same")
    check_spelling(["a", "b", "c/a", "c/b"], folder=tmp_path / "names", place="x")
