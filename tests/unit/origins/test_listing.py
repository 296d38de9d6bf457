"""Listings: the digest that names a set of objects, and the names that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins import OriginError, OriginFile, OriginReason
from beamlit_operator.origins.errors import one_line
from beamlit_operator.origins.listing import objects_revision, resolved

_OBJECT = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, 9), st.text("ab")
)
_OBJECTS = st.lists(_OBJECT, max_size=6, unique_by=lambda item: item[0])


@given(_OBJECTS, st.randoms())
def test_the_order_of_a_listing_does_not_matter(
    objects: list[tuple[str, int, str]], random: object
) -> None:
    shuffled = list(objects)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert objects_revision(shuffled) == objects_revision(objects)


@given(_OBJECTS, _OBJECTS)
def test_different_objects_are_different_revisions(
    one: list[tuple[str, int, str]], other: list[tuple[str, int, str]]
) -> None:
    same = sorted(one) == sorted(other)
    assert (objects_revision(one) == objects_revision(other)) == same


def test_the_digest_is_the_one_the_documentation_describes() -> None:
    # printf '["iris/a",1,"c4ca"]\n["iris/\\u00e9",2,"c81e"]\n' | sha256sum
    assert objects_revision([("iris/é", 2, "c81e"), ("iris/a", 1, "c4ca")]) == (
        "sha256:83c6ab16bf497acf50dddfe17cf53eab4f17bbf972ca3405d2aff728e2b862a1"
    )


def _files(*paths: str) -> list[OriginFile]:
    return [OriginFile(path, 1, "e", path) for path in paths]


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "/etc/passwd", "a//b", ".", "a/.", "", "a\0b", ".beamlit/lock"]
)
def test_names_that_are_not_safe_are_refused(path: str) -> None:
    with pytest.raises(OriginError) as caught:
        resolved("r", _files("ok", path), place="s3://models/x")
    assert caught.value.reason is OriginReason.UNSAFE_PATH


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a", "a"), ("a/b/c", "a/b")])
def test_names_that_cannot_both_exist_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(OriginError):
        resolved("r", _files(*paths), place="s3://models/x")


def test_dots_inside_names_are_fine() -> None:
    listing = resolved("r", _files("b..c/..d", "...", ".gitattributes"), place="hf://org/name")
    assert [file.path for file in listing.files] == ["...", ".gitattributes", "b..c/..d"]
    assert listing.bytes == 3


@pytest.mark.parametrize("reason", list(OriginReason))
def test_every_reason_says_when_to_look_again(reason: OriginReason) -> None:
    assert OriginError(reason, "x").retry_after_seconds >= 1


def test_a_stores_words_are_cut_to_one_line_without_secrets() -> None:
    assert one_line("a\n key=hunter2\r\n b", ["hunter2", ""]) == "a key=*** b"
    assert len(one_line("x" * 1000)) == 300
