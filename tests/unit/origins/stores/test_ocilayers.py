"""What the layers of a manifest are."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.origins.errors import OriginError
from beamlit_operator.origins.stores.ocilayers import chosen, layers, parsed

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
PACKED = "layer-00000-abababababab"


def entry(media: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"mediaType": media, "digest": DIGEST, "size": 3, "annotations": annotations or {}}


def found(*entries: dict[str, Any]) -> list[tuple[str, bool, str]]:
    made = layers({"layers": list(entries)}, folder="models", place="oci://r/m:1")
    return [(each.path, each.packed, each.folder) for each in made]


@pytest.mark.parametrize(
    ("media", "annotations", "expected"),
    [
        ("application/octet-stream", {TITLE: "a/b.bin"}, ("a/b.bin", False, "")),
        ("text/plain", {TITLE: "./b.txt"}, ("b.txt", False, "")),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            {TITLE: "folder", "io.deis.oras.content.unpack": "true"},
            (f"{PACKED}.tar.gz", True, ""),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            {TITLE: "folder"},
            (f"{PACKED}.tar.gz", True, ""),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            {TITLE: "model.tar.gz"},
            ("model.tar.gz", False, ""),
        ),
        ("application/vnd.oci.image.layer.v1.tar", {TITLE: "a.bin"}, ("a.bin", False, "")),
        (
            "application/vnd.cncf.model.weight.v1.raw",
            {FILEPATH: "model-1.safetensors"},
            ("model-1.safetensors", False, ""),
        ),
        (
            "application/vnd.cncf.model.weight.config.v1.raw",
            {FILEPATH: "config.json"},
            ("config.json", False, ""),
        ),
        (
            "application/vnd.cnai.model.weight.v1.raw",
            {"org.cnai.model.filepath": "x.gguf"},
            ("x.gguf", False, ""),
        ),
        ("application/vnd.cncf.model.weight.v1.tar", {}, (f"{PACKED}.tar", True, "")),
        (
            "application/vnd.kitops.modelkit.model.v1.tar+gzip",
            {},
            (f"{PACKED}.tar.gz", True, ""),
        ),
        ("application/vnd.ollama.image.model", {}, ("model.gguf", False, "")),
        ("application/vnd.docker.ai.gguf.v3", {}, ("model.gguf", False, "")),
        (
            "application/vnd.docker.ai.safetensors",
            {FILEPATH: "text/model.safetensors"},
            ("text/model.safetensors", False, ""),
        ),
        ("application/vnd.docker.ai.dir.tar", {}, (f"{PACKED}.tar", True, "")),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            {},
            (f"{PACKED}.tar.gz", True, "models"),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            {},
            (f"{PACKED}.tar.zst", True, "models"),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            {TITLE: "folder"},
            (f"{PACKED}.tar.zst", True, ""),
        ),
        (
            "application/vnd.cncf.model.weight.v1.tar+zstd",
            {},
            (f"{PACKED}.tar.zst", True, ""),
        ),
        (
            "application/vnd.kitops.modelkit.model.v1.tar+zstd",
            {},
            (f"{PACKED}.tar.zst", True, ""),
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            {},
            (f"{PACKED}.tar.zst", True, "models"),
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            {},
            (f"{PACKED}.tar.gz", True, "models"),
        ),
    ],
)
def test_each_tool_s_layers_are_known(
    media: str, annotations: dict[str, str], expected: tuple[str, bool, str]
) -> None:
    assert found(entry(media, annotations)) == [expected]


@pytest.mark.parametrize(
    "media",
    [
        "application/vnd.cncf.model.doc.v1.raw",
        "application/vnd.cncf.model.code.v1.tar",
        "application/vnd.kitops.modelkit.dataset.v1.tar+gzip",
        "application/vnd.ollama.image.params",
        "application/vnd.ollama.image.license",
        "application/vnd.docker.ai.license",
        "application/vnd.docker.ai.chat.template.jinja",
    ],
)
def test_what_is_beside_a_model_is_left_out(media: str) -> None:
    both = found(entry(media), entry("application/vnd.ollama.image.model"))
    assert [path for path, _, _ in both] == ["model.gguf"]
    with pytest.raises(OriginError, match="holds no file of a model"):
        found(entry(media))


@pytest.mark.parametrize(
    "bad",
    [
        entry("application/vnd.cncf.model.weight.v1.tar+xz"),
        entry("application/vnd.oci.image.layer.v1.tar+zstd+encrypted"),
        entry("application/vnd.oci.image.layer.nondistributable.v1.tar"),
        entry("application/x-something"),
        entry("application/vnd.cncf.model.weight.v1.raw"),
        entry("text/plain", {TITLE: "folder/"}),
        {**entry("text/plain", {TITLE: "a"}), "digest": "sha512:" + "a" * 128},
        {**entry("text/plain", {TITLE: "a"}), "digest": "../../etc/passwd"},
        {**entry("text/plain", {TITLE: "a"}), "size": -1},
        {**entry("text/plain", {TITLE: "a"}), "size": True},
        {**entry("text/plain", {TITLE: "a"}), "size": 2**63},
        {**entry("text/plain", {TITLE: "a"}), "size": "3"},
    ],
)
def test_what_is_not_known_is_refused_and_never_left_out(bad: dict[str, Any]) -> None:
    with pytest.raises(OriginError, match="layer 1 "):
        found(entry("application/vnd.ollama.image.model"), bad)


def test_of_an_index_the_one_for_linux_is_taken_else_the_first() -> None:
    def at(digest: str, os: str, machine: str) -> dict[str, Any]:
        return {"digest": digest, "platform": {"os": os, "architecture": machine}}

    arm, amd = at(DIGEST, "linux", "arm64"), at(OTHER, "linux", "amd64")
    assert chosen({"manifests": [arm, amd]}, place="x") == OTHER
    assert chosen({"manifests": [arm]}, place="x") == DIGEST
    assert chosen({"manifests": [{"digest": DIGEST}]}, place="x") == DIGEST
    attestation = at(DIGEST, "unknown", "unknown")
    assert chosen({"manifests": [attestation, amd]}, place="x") == OTHER
    with pytest.raises(OriginError, match="names no manifest"):
        chosen({"manifests": [attestation]}, place="x")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "layers", "digest", "size", "mediaType", "annotations", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(ANY_JSON)
def test_any_document_is_read_or_refused(document: object) -> None:
    for read in (lambda d: layers(d, folder="", place="x"), lambda d: chosen(d, place="x")):
        with contextlib.suppress(OriginError):
            read(parsed(json.dumps(document).encode(), place="x"))


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(OriginError, match="sends no manifest"):
        parsed(content, place="x")
