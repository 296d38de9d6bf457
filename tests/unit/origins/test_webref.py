"""References to files on web servers: what is one, which revision it is, what is never shown."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins import OriginError, OriginReason, WebFile, WebRef, parse_uri

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com/m/model.gguf", "model.gguf"),
        ("http://example.com:8080/model.gguf?sig=abc/def", "model.gguf"),
        ("https://example.com/m/my%20model.onnx", "my model.onnx"),
        ("https://[2001:db8::1]/a", "a"),
    ],
)
def test_a_file_is_called_what_its_url_ends_in(url: str, path: str) -> None:
    assert WebFile(url, DIGEST).path == path


@pytest.mark.parametrize(
    ("url", "sha256", "path", "words"),
    [
        ("ftp://example.com/x", DIGEST, "", "is not one"),
        ("https:///x", DIGEST, "", "is not one"),
        ("https://example.com:port/x", DIGEST, "", "is not one"),
        ("https://example.com/a b", DIGEST, "", "is not one"),
        ("https://example.com/a\nb", DIGEST, "", "is not one"),
        ("https://example.com/", DIGEST, "", "set path"),
        ("https://example.com", DIGEST, "", "set path"),
        ("https://example.com/a/%2e%2e", DIGEST, "", "set path"),
        ("https://example.com/a%2fb", DIGEST, "", "set path"),
        ("https://example.com/x", DIGEST[:-1], "", "64 hex digits"),
        ("https://example.com/x", "", "", "64 hex digits"),
    ],
)
def test_what_cannot_be_is_refused(url: str, sha256: str, path: str, words: str) -> None:
    with pytest.raises(OriginError, match=words) as caught:
        WebFile(url, sha256, path)
    assert caught.value.reason is OriginReason.INVALID_REFERENCE


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", ".beamlit/x", "a/..", "x\0y"])
def test_no_path_leaves_the_directory(path: str) -> None:
    with pytest.raises(OriginError, match="not a safe file name"):
        WebRef((WebFile("https://example.com/x", DIGEST, path),))


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b")])
def test_two_files_cannot_have_one_place(paths: tuple[str, ...]) -> None:
    with pytest.raises(OriginError, match="correct the path"):
        WebRef(tuple(WebFile(f"https://example.com/{n}", DIGEST, p) for n, p in enumerate(paths)))


def test_no_password_and_no_signature_is_ever_shown() -> None:
    with pytest.raises(OriginError) as caught:
        WebFile("https://me:secret@example.com/x", DIGEST)
    assert "secret" not in str(caught.value)
    ref = WebRef((WebFile("https://example.com/x?signature=secret", DIGEST),))
    assert ref.uri == ref.place == "https://example.com/x"


PATHS = st.lists(
    st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5, unique=True
).filter(lambda paths: not any(a != b and b.startswith(f"{a}/") for a in paths for b in paths))


@given(PATHS, st.randoms())
def test_the_revision_is_that_of_the_content_wherever_it_is(
    paths: list[str], chance: object
) -> None:
    files = [
        WebFile(f"https://a/{n}", hashlib.sha256(p.encode()).hexdigest(), p)
        for n, p in enumerate(paths)
    ]
    before = WebRef(tuple(files))
    moved = [replace(file, url=f"http://b/{file.path}") for file in reversed(files)]
    assert WebRef(tuple(moved)).revision == before.revision
    for changed in (
        [replace(files[0], sha256="0" * 64), *files[1:]],
        [replace(files[0], path="another"), *files[1:]],
        [*files, WebFile("https://a/new", DIGEST, "new")],
    ):
        assert WebRef(tuple(changed)).revision != before.revision


def test_a_uri_needs_its_digest() -> None:
    with pytest.raises(OriginError, match="add --sha256"):
        parse_uri("https://example.com/x")
    found = parse_uri("https://example.com/x", sha256=DIGEST.upper())
    assert found == WebRef((WebFile("https://example.com/x", DIGEST, "x"),))
