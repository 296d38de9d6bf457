"""References to models in registries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins.errors import OriginError
from beamlit_operator.origins.ociref import parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("acme/llama", "docker.io", "acme/llama", "latest", ""),
        ("llama:1.0", "docker.io", "library/llama", "1.0", ""),
        ("docker.io/ai/smollm2:360M", "docker.io", "ai/smollm2", "360M", ""),
        ("ghcr.io/acme/llama:v2", "ghcr.io", "acme/llama", "v2", ""),
        ("oci://localhost:5000/llama", "localhost:5000", "llama", "latest", ""),
        ("localhost/llama", "localhost", "llama", "latest", ""),
        ("[::1]:5000/llama:x", "[::1]:5000", "llama", "x", ""),
        (f"ghcr.io/acme/llama@{DIGEST}", "ghcr.io", "acme/llama", "latest", DIGEST),
        (f"ghcr.io/acme/llama:v2@{DIGEST}", "ghcr.io", "acme/llama", "v2", DIGEST),
    ],
)
def test_a_reference_is_read_as_container_engines_read_it(
    text: str, registry: str, repository: str, tag: str, digest: str
) -> None:
    ref = parse_reference(text)
    assert (ref.registry, ref.repository, ref.tag, ref.digest) == (
        registry,
        repository,
        tag,
        digest,
    )
    again = parse_reference(ref.uri)
    assert (again.uri, again.registry, again.repository) == (ref.uri, registry, repository)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghcr.io/",
        "ghcr.io/Acme/llama",
        "ghcr.io/acme//llama",
        "ghcr.io/acme/../llama",
        "ghcr.io/acme/llama:a b",
        "ghcr.io/acme/llama@sha256:abc",
        "user:password@ghcr.io/acme/llama",
        "ghcr.io/" + "a" * 260,
        "https://ghcr.io/acme/llama",
    ],
)
def test_what_is_no_reference_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(OriginError, match="InvalidReference") as found:
        parse_reference(text)
    assert "password" not in found.value.message


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        ref = parse_reference(text)
    except OriginError:
        return
    assert parse_reference(ref.reference).base_url == ref.base_url
    assert ".." not in ref.base_url.split("/")


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("docker.io", "https://registry-1.docker.io/v2/acme/llama"),
        ("ghcr.io", "https://ghcr.io/v2/acme/llama"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/acme/llama"),
        ("[::1]:5000", "http://[::1]:5000/v2/acme/llama"),
        ("localhost:5000", "http://localhost:5000/v2/acme/llama"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/acme/llama"),
        ("127.0.0.1.example.com", "https://127.0.0.1.example.com/v2/acme/llama"),
    ],
)
def test_only_this_machine_is_asked_without_tls(registry: str, url: str) -> None:
    assert parse_reference(f"{registry}/acme/llama").base_url == url


def test_a_revision_is_a_digest_and_a_version_may_be_a_tag() -> None:
    ref = parse_reference("ghcr.io/acme/llama:v2")
    assert ref.at(DIGEST).reference == f"ghcr.io/acme/llama@{DIGEST}"
    assert ref.at(DIGEST).at("v1").reference == "ghcr.io/acme/llama:v1"
    with pytest.raises(OriginError):
        ref.at("not a tag")


@pytest.mark.parametrize("folder", ["../etc", "a//b", "a/./b", "/a/../b"])
def test_a_folder_stays_in_the_image(folder: str) -> None:
    with pytest.raises(OriginError, match="is not a folder of an image"):
        parse_reference("acme/llama", folder=folder)
