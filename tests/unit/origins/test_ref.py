"""References: what parses, what is refused, and that writing and reading agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins import (
    HubRef,
    OriginError,
    OriginReason,
    S3Ref,
    format_uri,
    parse_uri,
)


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("s3://models", S3Ref("models")),
        ("s3://models/", S3Ref("models")),
        ("s3://models/iris/v1", S3Ref("models", "iris/v1")),
        ("s3://models/iris/v1/", S3Ref("models", "iris/v1")),
        ("hf://org/name", HubRef("org/name", "main")),
        ("hf://gpt2", HubRef("gpt2", "main")),
        ("hf://org/name@refs/pr/1", HubRef("org/name", "refs/pr/1")),
    ],
)
def test_a_uri_names_its_reference(uri: str, ref: S3Ref | HubRef) -> None:
    assert parse_uri(uri) == ref


@pytest.mark.parametrize(
    "uri",
    [
        "models/iris",
        "gs://models/iris",
        "s3://",
        "s3://a",
        "s3://mod els/iris",
        "hf://",
        "hf://a/b/c",
        "hf://org/../name",
        "hf://org/name@",
    ],
)
def test_what_cannot_exist_is_an_invalid_reference(uri: str) -> None:
    with pytest.raises(OriginError) as caught:
        parse_uri(uri)
    assert caught.value.reason is OriginReason.INVALID_REFERENCE
    assert caught.value.stalled


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio", "https://", "http://h:port"])
def test_an_endpoint_must_be_a_url(endpoint: str) -> None:
    with pytest.raises(OriginError, match="is not a URL"):
        S3Ref("models", endpoint=endpoint)


def test_a_password_in_an_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(OriginError) as caught:
        S3Ref("models", endpoint="https://user:hunter2@minio:9000")
    assert "hunter2" not in str(caught.value)


_NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)
_SEGMENTS = st.text(
    st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=10
)


@given(_NAMES, st.lists(_SEGMENTS, max_size=4))
def test_an_s3_uri_reads_back_as_it_was_written(bucket: str, segments: list[str]) -> None:
    ref = S3Ref(bucket, "/".join(segments))
    assert parse_uri(format_uri(ref)) == ref


@given(st.text("abc123", min_size=1, max_size=9), st.text("abc/123-.", min_size=1, max_size=9))
def test_a_hub_uri_reads_back_as_it_was_written(name: str, revision: str) -> None:
    ref = HubRef(f"org/{name}", revision)
    assert parse_uri(format_uri(ref)) == ref
